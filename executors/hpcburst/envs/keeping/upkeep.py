"""Who used which env when, and taking away what nobody has used for long.

There is no mark for "in use now": an env counts as used when a run asked for it, so nothing goes
that was asked for within the longest time a job may last.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.building.build import read_record
from hpcburst.envs.building.publish import discard
from hpcburst.envs.child.process import Progress, no_progress
from hpcburst.envs.depot.depot import Depot
from hpcburst.envs.keeping.contents import cache_entries
from hpcburst.envs.keeping.retention import (
    BUILDER_S,
    DAY_S,
    HOUR_S,
    KEYED,
    Rule,
    Thing,
    Verdict,
    decide,
    freed,
    span_text,
)
from hpcburst.envs.keeping.sizes import walk
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LOCK_ENDINGS = (".lock.yml", ".pylock.toml", ".spec.json")


@dataclass(frozen=True, slots=True)
class Collected:
    """What was (or would be) taken away, and what stays.

    Attributes:
        verdicts: One for each thing that was looked at.
        dry_run: Whether nothing was done.
    """

    verdicts: tuple[Verdict, ...]
    dry_run: bool = False

    @property
    def gone(self) -> tuple[Verdict, ...]:
        """What went, or would go."""
        return tuple(row for row in self.verdicts if row.goes and not row.failed)

    @property
    def freed_bytes(self) -> int:
        """Disk space freed in all."""
        return sum(row.freed_bytes for row in self.gone)

    @property
    def freed_files(self) -> int:
        """Files and folders freed in all."""
        return sum(row.freed_files for row in self.gone)


def mark_used(root: Path, key: str) -> None:
    """Note that an env is used now, at most once an hour. One metadata call; never fails.

    Args:
        root: The store's root.
        key: The env's key.
    """
    note = root / "used" / key
    with suppress(OSError):
        if time.time() - _mtime(note) > HOUR_S:
            _touch(note)


def last_used(root: Path, key: str) -> float | None:
    """When an env was used last, seconds since the epoch; None if nobody noted it."""
    return _mtime(root / "used" / key) or None


def collect(
    root: Path,
    rule: Rule,
    *,
    dry_run: bool = False,
    least_s: float = DAY_S,
    progress: Progress = no_progress,
) -> Collected:
    """Take away what the rule says may go, or say what would be taken.

    Args:
        root: The store's root.
        rule: What may go.
        dry_run: Only say.
        least_s: The longest time a job may last here; a rule below it is refused.
        progress: Told about steps as they run.

    Raises:
        EnvError: Envs would be taken from jobs that may be running.
    """
    if rule.older_than_s < least_s:
        raise EnvError(
            f"Envs not used for {span_text(rule.older_than_s)} were to be taken away",
            f"a job that runs now may have begun {span_text(least_s)} ago and use one of them",
            f"ask for at least {span_text(least_s)}, or say --force when nothing runs",
        )
    with _package_cache_held(root, rule.now) as held:
        rule = replace(rule, building=rule.building or not held)
        things = find_things(root, progress)
        verdicts = _counted(things, decide(things, rule), progress)
        if not dry_run:
            verdicts = _take_away(root, things, verdicts, progress)
            Depot(root / "depot").sweep(rule.leftover_s)
    return Collected(verdicts, dry_run)


def drop_entry(entry: Path) -> bool:
    """Take an entry out of the package cache, or a bundle out of the depot; False if it is gone.

    Raises:
        OSError: It cannot be taken away.
    """
    there = entry.exists()
    if entry.is_file():
        entry.unlink()
    else:
        discard(entry)
    entry.with_name(entry.name + ".lock").unlink(missing_ok=True)
    return there


def find_things(root: Path, progress: Progress = no_progress) -> tuple[Thing, ...]:
    """All under a root that may go one day."""
    progress("looking at what is there", 0, None)
    envs = (*_envs(root), *_packs(root))
    keys = {thing.name for thing in envs}
    return (
        *envs,
        *_packages(root / "pkgs"),
        *_each("bundle", _listed(root / "depot/bundles")),
        *_locks(root),
        *_notes(root, keys),
        *_each("stage", [p for p in _listed(root / "envs") if p.name.startswith(".b-")]),
        *_each("claim", (root / "locks").glob("*.claim")),
        *_each("archive", _listed(root / "incoming")),
        *_indexes(root / "repodata"),
    )


def _envs(root: Path) -> Iterator[Thing]:
    for path in _listed(root / "envs"):
        if path.name.startswith("."):
            continue
        record = read_record(path)
        used = max(last_used(root, path.name) or 0.0, record.made if record else _mtime(path))
        yield Thing("env", path.name, (str(path),), used, cache_entries(path))


def _packs(root: Path) -> Iterator[Thing]:
    depot = Depot(root / "depot")
    for pack in depot.published():
        link = depot.folder / f"{pack.key}.json"
        used = max(last_used(root, pack.key) or 0.0, _mtime(link))
        bundles = frozenset(bundle.name for bundle in (*pack.bundles, pack.extras_in))
        yield Thing("pack", pack.key, (str(link), str(depot.path(pack))), used, bundles)


def _packages(folder: Path) -> Iterator[Thing]:
    for path in _listed(folder):
        if (path / "info").is_dir():
            lock = path.with_name(path.name + ".lock")
            came = max(_mtime(path), _mtime(lock))
            yield Thing("package", path.name, (str(path), str(lock)), came)


def _locks(root: Path) -> Iterator[Thing]:
    papers: dict[str, list[Path]] = {}
    for path in _listed(root / "locks"):
        if path.name.endswith(_LOCK_ENDINGS):
            papers.setdefault(path.name.partition(".")[0], []).append(path)
    for key, paths in sorted(papers.items()):
        used = max(last_used(root, key) or 0.0, *map(_mtime, paths))
        yield Thing("lock", key, tuple(map(str, paths)), used)


def _indexes(folder: Path) -> Iterator[Thing]:
    # Of a listing and what is noted about it, only the note is touched when it is still good.
    groups: dict[str, list[Path]] = {}
    for path in _listed(folder):
        groups.setdefault(path.name.split(".")[0] or path.name, []).append(path)
    for name, paths in groups.items():
        yield Thing("index", name, tuple(map(str, paths)), max(map(_newest, paths)))


def _notes(root: Path, keys: set[str]) -> Iterator[Thing]:
    names = {path.name for folder in ("used", "sizes") for path in _listed(root / folder)}
    for name in sorted(names - keys):
        paths = (root / "used" / name, root / "sizes" / name)
        yield Thing("note", name, tuple(map(str, paths)), max(map(_mtime, paths)))


def _each(kind: str, paths: Iterable[Path]) -> Iterator[Thing]:
    for path in sorted(paths):
        yield Thing(kind, path.name, (str(path),), _newest(path))


def _newest(path: Path) -> float:
    """A folder's own time does not change while a file in it grows."""
    return max([_mtime(path), *map(_mtime, _listed(path))])


def _counted(
    things: Sequence[Thing], verdicts: Sequence[Verdict], progress: Progress
) -> tuple[Verdict, ...]:
    progress("counting files", 0, None)
    trees = [
        [inode for path in thing.paths for inode in walk(Path(path))] if verdict.goes else []
        for thing, verdict in zip(things, verdicts, strict=True)
    ]
    return tuple(
        replace(verdict, freed_bytes=held, freed_files=files)
        for verdict, (held, files) in zip(verdicts, freed(trees), strict=True)
    )


def _take_away(
    root: Path, things: Sequence[Thing], verdicts: Sequence[Verdict], progress: Progress
) -> tuple[Verdict, ...]:
    total = sum(verdict.goes for verdict in verdicts)
    done = 0
    found = []
    for thing, verdict in zip(things, verdicts, strict=True):
        if verdict.goes:
            verdict = replace(verdict, failed=_take(root, thing))  # noqa: PLW2901 - the same, done
            done += 1
            progress("taking away", done, total)
        found.append(verdict)
    return tuple(found)


def _take(root: Path, thing: Thing) -> str:
    """Take one thing away; why it stays, or ""."""
    notes = [root / "used" / thing.name] if thing.kind in KEYED else map(Path, thing.paths)
    if max(map(_mtime, notes)) > thing.used:
        return "it has just been used"
    try:
        for path in map(Path, thing.paths):
            if path.is_dir() and not path.is_symlink():
                discard(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return ""


@contextmanager
def _package_cache_held(root: Path, now: float) -> Iterator[bool]:
    """Keep installers out of the package cache; False if one is in it, or an env is being built."""
    claims = (root / "locks").glob("*.claim")
    building = any(now - _mtime(path) < BUILDER_S for path in claims)
    path = root / "pkgs/.cache.lock"  # rattler's own
    if building or not path.exists():
        yield not building
        return
    with path.open("rb") as lock:
        yield _locked(lock.fileno())


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks on this file system: nobody installs into this cache then
    return True


def _touch(note: Path) -> None:
    try:
        os.utime(note)
    except FileNotFoundError:
        _make_folder(note.parent)
        note.touch()
    except PermissionError:  # somebody else's, in a root that several people share
        aside = note.with_name(f".{secrets.token_hex(8)}")
        aside.touch(exist_ok=False)
        aside.replace(note)


def _make_folder(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir()
        shutil.copymode(folder.parent, folder)


def _mtime(path: Path) -> float:
    """0 when there is nothing: that is as long ago as can be."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
