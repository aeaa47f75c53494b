"""What may go from a store of envs, and why: decided from plain rows, nothing is touched here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S

UNUSED_S = 30 * DAY_S
"""An env that nobody has used for a month is cheaper to build again than to keep."""

INDEX_S = 30 * DAY_S
"""What a channel listed a month ago is of no use: the next solve asks it again anyway."""

BUILDER_S = 600.0
"""A builder that gave no sign of life for so long is dead: ten times what other builders wait."""

KEYED = ("env", "pack")
"""The kinds that a task can run from."""


@dataclass(frozen=True, slots=True)
class Thing:
    """Something in a store that may go.

    Attributes:
        kind: "env", "pack" (an env in the depot), "package" (an entry of the package cache),
            "bundle" (of archives in the depot), "lock", "note" (an env's size or last use), "stage"
            and "claim" (of a builder), "archive" (being fetched), "index" (what a channel lists).
        name: The env's key, or a file name.
        paths: What makes it up.
        used: When it was last used or touched, seconds since the epoch.
        needs: Names of the packages that an env was linked from, or of a pack's bundles.
    """

    kind: str
    name: str
    paths: tuple[str, ...]
    used: float
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """What may go.

    Attributes:
        now: Seconds since the epoch.
        older_than_s: Envs that were not used for so long go.
        keep: Keys of envs that stay in any case.
        locks: Whether locks that no env is built from go too, when they are as old.
        building: Whether envs are being built now: the package cache is left alone then.
    """

    now: float
    older_than_s: float = UNUSED_S
    keep: frozenset[str] = frozenset()
    locks: bool = False
    building: bool = False

    @property
    def leftover_s(self) -> float:
        """Seconds that what may be in the making is left alone."""
        return min(DAY_S, self.older_than_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a thing.

    Attributes:
        kind: Its kind.
        name: Its name.
        age_s: Seconds since it was last used or touched.
        goes: Whether it is taken away.
        why: In words.
        freed_bytes: Disk space that its going frees: what other hard links hold is not counted.
        freed_files: Files and folders, as quotas count them.
        failed: Why it could not be taken away; "" if it could.
    """

    kind: str
    name: str
    age_s: float
    goes: bool
    why: str
    freed_bytes: int = 0
    freed_files: int = 0
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Inode:
    """One name in a tree of files.

    Attributes:
        identity: Equal for all names of the same file.
        links: How many names it has, here and elsewhere.
        held_bytes: Disk space it holds.
    """

    identity: tuple[int, int]
    links: int
    held_bytes: int


def decide(things: Sequence[Thing], rule: Rule) -> tuple[Verdict, ...]:
    """What goes and why, in the order of `things`."""
    staying = [thing for thing in things if thing.kind in KEYED and not _is_old(thing, rule)]
    keys = frozenset(thing.name for thing in staying)
    needed = frozenset(name for thing in staying for name in thing.needs)
    return tuple(_verdict(thing, rule, keys, needed) for thing in things)


def freed(trees: Iterable[Iterable[Inode]]) -> list[tuple[int, int]]:
    """Bytes and files that each tree frees when they all go, one after the other.

    A file is freed by the tree that takes its last name away, and by none if a name is elsewhere.
    """
    seen: Counter[tuple[int, int]] = Counter()
    found = []
    for tree in trees:
        held = files = 0
        for inode in tree:
            seen[inode.identity] += 1
            if seen[inode.identity] == inode.links:
                held += inode.held_bytes
                files += 1
        found.append((held, files))
    return found


def span_text(seconds: float) -> str:
    """A length of time in words: "30 days", "12 hours"."""
    unit, name = (DAY_S, "day") if seconds >= 2 * DAY_S else (HOUR_S, "hour")
    count = f"{seconds / unit:.3g}"
    return f"{count} {name}" if count == "1" else f"{count} {name}s"


def _verdict(thing: Thing, rule: Rule, keys: frozenset[str], needed: frozenset[str]) -> Verdict:
    age_s = max(0.0, rule.now - thing.used)
    if thing.kind in KEYED:
        goes, why = _judge_env(thing, rule)
    elif thing.kind in ("package", "bundle"):
        goes, why = _judge_part(thing, age_s, rule, in_use=thing.name in needed)
    elif thing.kind in ("lock", "note"):
        goes, why = _judge_paper(thing, age_s, rule, in_use=thing.name in keys)
    else:
        goes, why = _judge_leftover(thing, age_s, rule)
    return Verdict(thing.kind, thing.name, age_s, goes, why)


def _is_old(thing: Thing, rule: Rule) -> bool:
    return thing.name not in rule.keep and rule.now - thing.used >= rule.older_than_s


def _judge_env(thing: Thing, rule: Rule) -> tuple[bool, str]:
    if thing.name in rule.keep:
        return False, "it is to be kept"
    span = span_text(rule.older_than_s)
    return (True, f"not used for {span}") if _is_old(thing, rule) else (False, "used lately")


def _judge_part(thing: Thing, age_s: float, rule: Rule, *, in_use: bool) -> tuple[bool, str]:
    if in_use:
        return False, "an env that stays was made from it"
    if thing.kind == "package" and rule.building:
        return False, "an env is being built"
    if age_s < rule.leftover_s:
        return False, "it came lately"
    return True, "no env is made from it"


def _judge_paper(thing: Thing, age_s: float, rule: Rule, *, in_use: bool) -> tuple[bool, str]:
    if in_use or thing.name in rule.keep:
        return False, "its env stays"
    if thing.kind == "lock" and not rule.locks:
        return False, "locks stay unless asked for"
    if age_s < rule.older_than_s:
        return False, "used lately"
    return True, "no env is built from it" if thing.kind == "lock" else "its env is gone"


def _judge_leftover(thing: Thing, age_s: float, rule: Rule) -> tuple[bool, str]:
    limit_s, why = {
        "stage": (BUILDER_S, "its builder died"),
        "claim": (BUILDER_S, "its builder died"),
        "archive": (rule.leftover_s, "nobody fetches it any more"),
        "index": (INDEX_S, "not asked for in 30 days"),
    }[thing.kind]
    return (True, why) if age_s >= limit_s else (False, "touched lately")
