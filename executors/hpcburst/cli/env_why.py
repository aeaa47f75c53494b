"""Why envs are not one and the same: by what was asked for, or else by what their locks hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.cli.env_build import difference
from hpcburst.cli.env_find import find_env, spec_named
from hpcburst.cli.env_words import as_text, print_json
from hpcburst.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcburst.envs.specs.spec import EnvSpec
    from hpcburst.envs.store import EnvStore

LINES = 20
"""Packages that differ which are listed at most."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the envs that are compared.

    Attributes:
        name: What it was called on the command line.
        key: Its key.
        spec: What was asked for; None when only the key is known.
        lock: Its lock; None when it was not solved here.
    """

    name: str
    key: str
    spec: EnvSpec | None
    lock: Path | None


def compare(store: EnvStore, names: Sequence[str], *, as_json: bool) -> int:
    """Say why the first env is not each of the others.

    Raises:
        EnvError: One of them cannot be found or read.
        RequestError: There is only one.
    """
    if len(names) < 2:
        raise RequestError(
            "Envs were to be compared", "only one was named", "name two or more specs or keys"
        )
    first, *others = [_side(store, name) for name in names]
    pairs = [(other, explain_pair(store, first, other)) for other in others]
    if as_json:
        rows = [
            {"one": first.name, "other": other.name, "keys": [first.key, other.key],
             "same": first.key == other.key, "reasons": reasons}
            for other, reasons in pairs
        ]  # fmt: skip
        print_json(rows)
        return 0
    for side in (first, *others):
        print(f"{side.key}  {as_text(side.name)}")
    for other, reasons in pairs:
        heading = f"{first.name} and {other.name}" if len(pairs) > 1 else ""
        _say(heading, reasons)
    return 0


def explain_pair(store: EnvStore, one: Side, other: Side) -> list[str]:
    """Why two envs have different keys, a sentence for each cause."""
    from hpcburst.envs.specs.difference import explain

    if one.key == other.key:
        return ["both are the same env"]
    if one.spec is not None and other.spec is not None:
        found = explain(one.spec, other.spec, (one.name, other.name))
        if one.spec != other.spec:
            return list(found)
    return [_unknown(side) for side in (one, other) if side.spec is None] + _by_locks(
        store, one, other
    )


def _side(store: EnvStore, name: str) -> Side:
    record = find_env(store, name)
    lock = store.folders.lock(record.key)
    asked = spec_named(store, name)
    key = record.key if asked is None else store.key(asked)
    spec = asked or store.spec(record.key)
    return Side(name, key, spec, lock if lock.exists() else None)


def _unknown(side: Side) -> str:
    return f"what {side.name} was made from is not kept, so packages are compared"


def _by_locks(store: EnvStore, one: Side, other: Side) -> list[str]:
    missing = [side.name for side in (one, other) if side.lock is None]
    if one.lock is None or other.lock is None:
        return [
            f"{name} has no lock here: `hpcburst env lock {name}` makes one" for name in missing
        ]
    changes = difference(store.packages(one.lock), store.packages(other.lock))
    if not changes:
        return ["their packages are the same: they were asked for in different words"]
    found = [
        f"{change.name}: {change.old or 'not'} in {one.name}, {change.new or 'not'} in {other.name}"
        for change in changes[:LINES]
    ]
    more = len(changes) - LINES
    return found + ([f"and {more} packages more"] if more > 0 else [])


def _say(heading: str, reasons: Sequence[str]) -> None:
    if heading:
        print(heading)
    for reason in reasons:
        print(f"  {as_text(reason)}")
