"""Whether an env is still what was installed: every file against its package's record.

Envs are hard-linked from the package cache. Who writes into a file of one env therefore changes it
in the cache and in every env linked from there; a report names the damaged entries of the cache, so
that they can be dropped before the env is built again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.building.build import read_record
from hpcburst.envs.child.process import Progress, no_progress
from hpcburst.envs.depot.packs import bundle_of, read_pack
from hpcburst.envs.keeping.contents import File, Installed, read_contents

if TYPE_CHECKING:
    from collections.abc import Iterator

READERS = 8
"""Threads that read at once: enough to keep a file server busy, too few to trouble it."""

BATCH = 64
"""Files a thread takes at a time: most are small, and handing each over would cost more."""

_EMPTY = hashlib.sha256(b"").hexdigest()
_ELF = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was installed.

    Attributes:
        path: The file, relative to the prefix.
        kind: "missing", "changed", "wrong link", "unreadable", "not executable", or "record" (what
            says what should be there cannot be trusted).
        package: Name and version of the package it belongs to.
        found: What was found, in words.
        entry: Folder of the package cache that is damaged as well; "" if none is.
    """

    path: str
    kind: str
    package: str
    found: str
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of one env found.

    Attributes:
        key: The env's key; "" for one that we did not build.
        prefix: Where it is.
        packages: How many packages it has.
        files: How many files were looked at.
        read_bytes: How much was read of them.
        quick: Whether only sizes, and files changed since the build, were looked into.
        faults: What is wrong, in the order of packages and paths.
        seconds: How long it took.
    """

    key: str
    prefix: str
    packages: int
    files: int
    read_bytes: int
    quick: bool
    faults: tuple[Fault, ...]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether all is as it was installed."""
        return not self.faults

    @property
    def damaged_entries(self) -> tuple[str, ...]:
        """Folders of the package cache that hold damaged files."""
        return tuple(dict.fromkeys(fault.entry for fault in self.faults if fault.entry))


@dataclass(frozen=True, slots=True)
class Seen:
    """What is at a path now.

    Attributes:
        kind: "nothing", "file", "link", "folder" or "special file".
        mode: Permission bits.
        size: Bytes.
        changed: When its content was last written, seconds since the epoch.
        sha256: Digest in hex; None if it was not read.
        target: What a link leads to; "" for others.
        leads_somewhere: Whether the link's target exists.
        should_be: What the link leads to in the package cache; "" if it is not there.
        head: The first bytes, of a file that was read.
        has_prefix: Whether it names the prefix, in a file that was read for that.
    """

    kind: str
    mode: int = 0o644
    size: int = 0
    changed: float = 0.0
    sha256: str | None = None
    target: str = ""
    leads_somewhere: bool = True
    should_be: str = ""
    head: bytes = b""
    has_prefix: bool = False


def verify(prefix: Path, *, quick: bool = False, progress: Progress = no_progress) -> Report:
    """Compare every file of an env with the record of its package.

    Byte-compiled Python is left out: any run may write it. Files that no package brought are too.

    Args:
        prefix: The env.
        quick: Compare sizes, and read only files written to since they were installed.
        progress: Told how many files are done.
    """
    began = time.monotonic()
    record = read_record(prefix)
    moved = record is not None and record.builder != "rattler"  # others link where they are told
    packages, broken = read_contents(prefix, moved=moved)
    faults = [_broken(prefix, path) for path in broken]
    faults += _count_faults(record.packages if record else None, packages, len(broken))
    work = [(package, file) for package in packages for file in package.files]
    checker = _Checker(prefix, work, quick, progress)
    faults += checker.check()
    return Report(
        key=record.key if record else "",
        prefix=str(prefix),
        packages=len(packages),
        files=len(work),
        read_bytes=checker.read_bytes,
        quick=quick,
        faults=tuple(faults),
        seconds=time.monotonic() - began,
    )


def verify_pack(file: Path, *, quick: bool = False, progress: Progress = no_progress) -> Report:
    """Compare the bundles that an env is linked from with the digests that name them.

    Args:
        file: The env's pack.
        quick: Only see that they are there.
        progress: Told how many bundles are done.

    Raises:
        OSError: The pack cannot be read.
        ValueError: It is not a pack.
    """
    began = time.monotonic()
    pack = read_pack(file)
    faults, read_bytes = [], 0
    bundles = (*pack.bundles, pack.extras_in)
    for number, bundle in enumerate(bundles, 1):
        path = bundle_of(file, bundle)
        digest = _digest_of(path) if path.exists() and not quick else bundle.name
        read_bytes += path.stat().st_size if path.exists() and not quick else 0
        if not path.exists():
            faults.append(Fault(bundle.name, "missing", "", "it is not in the depot"))
        elif digest != bundle.name:
            found = "it is not what its name says"
            faults.append(Fault(bundle.name, "changed", "", found, str(path)))
        progress("verifying bundles", number, len(bundles))
    return Report(
        key=pack.key,
        prefix=str(file),
        packages=int(pack.record.get("packages", 0)),
        files=len(bundles),
        read_bytes=read_bytes,
        quick=quick,
        faults=tuple(faults),
        seconds=time.monotonic() - began,
    )


def judge(file: File, seen: Seen) -> tuple[str, str] | None:
    """What is wrong with a file: kind and words; None if it is as its record says. Pure."""
    if seen.kind == "nothing":
        return "missing", "it is not there"
    if file.link:
        found = _wrong_link(file, seen)
        return ("wrong link", found) if found else None
    if seen.kind == "link" and not seen.leads_somewhere:
        return "wrong link", f"a link that leads nowhere: {seen.target}"
    if seen.kind != "file":
        return "changed", f"a {seen.kind} is in its place"
    return _wrong_mode(file, seen) or _wrong_content(file, seen)


def _wrong_link(file: File, seen: Seen) -> str:
    if seen.kind != "link":
        # Some installers write a copy where the file system has no links.
        copied = seen.kind == "file" and seen.sha256 == file.original
        return "" if copied else f"a {seen.kind} is in its place"
    if hashlib.sha256(os.fsencode(seen.target)).hexdigest() == file.sha256:
        return ""  # rattler takes the digest of the link's text, conda that of what it leads to
    if seen.should_be:
        right = seen.target == seen.should_be
        return "" if right else f"it leads to {seen.target} instead of {seen.should_be}"
    if file.sha256 != file.original:
        return f"it leads to {seen.target}, and did not when it was made"
    lost = not seen.leads_somewhere and file.original not in ("", _EMPTY)
    return f"it leads nowhere: {seen.target}" if lost else ""


def _wrong_mode(file: File, seen: Seen) -> tuple[str, str] | None:
    if not seen.mode & stat.S_IRUSR:
        return "unreadable", f"mode {seen.mode:04o}"
    if file.path.startswith("bin/") and seen.head == _ELF and not seen.mode & stat.S_IXUSR:
        return "not executable", f"mode {seen.mode:04o}"
    return None


def _wrong_content(file: File, seen: Seen) -> tuple[str, str] | None:
    if file.size is not None and seen.size != file.size:
        return "changed", f"{seen.size} bytes instead of {file.size}, {_written(seen)}"
    return ("changed", f"other content, {_written(seen)}") if _differs(file, seen) else None


def _differs(file: File, seen: Seen) -> bool:
    if seen.sha256 is None or not file.sha256 or seen.sha256 == file.sha256:
        return False
    # Its path was written into it after pip took the digest; stages are named as long as prefixes.
    return not (file.rewritten and seen.has_prefix)


def _written(seen: Seen) -> str:
    return "written " + time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.changed))


def _broken(prefix: Path, path: Path) -> Fault:
    name = path.stem.rsplit("-", 2)[0]
    return Fault(str(path.relative_to(prefix)), "record", name, "it cannot be read")


def _count_faults(
    stated: int | None, packages: tuple[Installed, ...], broken: int
) -> Iterator[Fault]:
    there = sum(package.channel != "pip" for package in packages) + broken
    if stated is not None and stated != there:
        found = f"{there} conda packages are there, and {stated} were installed"
        yield Fault("conda-meta", "record", "", found)


class _Checker:
    """Looks at files with several threads; faults come back in the order of the work."""

    def __init__(
        self, prefix: Path, work: list[tuple[Installed, File]], quick: bool, progress: Progress
    ) -> None:
        self.read_bytes = 0
        self._prefix = prefix
        self._quick = quick
        self._progress = progress
        self._work = work
        self._done = 0
        self._guard = threading.Lock()

    def check(self) -> Iterator[Fault]:
        starts = range(0, len(self._work), BATCH)
        batches = [self._work[start : start + BATCH] for start in starts]
        with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as pool:
            for faults in pool.map(self._check_batch, batches):
                yield from faults

    def _check_batch(self, batch: list[tuple[Installed, File]]) -> list[Fault]:
        faults, read = [], 0
        for package, file in batch:
            seen = self._look(package, file)
            read += seen.size if seen.sha256 else 0
            wrong = judge(file, seen)
            if wrong:
                kind, found = wrong
                entry = package.entry if _is_damaged(package, file) else ""
                faults.append(Fault(file.path, kind, str(package), found, entry))
        with self._guard:
            self.read_bytes += read
            self._done += len(batch)
            self._progress("verifying files", self._done, len(self._work))
        return faults

    def _look(self, package: Installed, file: File) -> Seen:
        path = self._prefix / file.path
        try:
            found = path.lstat()
        except OSError:
            return Seen("nothing")
        if stat.S_ISLNK(found.st_mode):
            return self._look_at_link(path, package, file)
        if not stat.S_ISREG(found.st_mode):
            return Seen("folder" if stat.S_ISDIR(found.st_mode) else "special file")
        seen = Seen("file", stat.S_IMODE(found.st_mode), found.st_size, found.st_mtime)
        untouched = self._quick and found.st_mtime < package.noted
        return seen if untouched and not file.link else self._read(path, seen, file)

    def _look_at_link(self, path: Path, package: Installed, file: File) -> Seen:
        return Seen(
            "link",
            target=str(path.readlink()),
            leads_somewhere=path.exists(),
            should_be=_link_in_cache(package, file),
        )

    def _read(self, path: Path, seen: Seen, file: File) -> Seen:
        try:
            with path.open("rb") as stream:
                head = stream.read(len(_ELF))
                stream.seek(0)
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            return replace(seen, mode=0) if error.errno == errno.EACCES else Seen("nothing")
        rewritten = file.rewritten and digest != file.sha256
        named = rewritten and os.fsencode(self._prefix) in path.read_bytes()
        return replace(seen, sha256=digest, head=head, has_prefix=named)


def _digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _link_in_cache(package: Installed, file: File) -> str:
    if not package.entry or not file.in_cache:
        return ""
    try:
        return str(Path(package.entry, file.in_cache).readlink())
    except OSError:
        return ""


def _is_damaged(package: Installed, file: File) -> bool:
    """Whether the package cache's copy of a faulty file is not what the archive held either."""
    if not package.entry or not file.in_cache or not file.original or file.link:
        return False
    try:
        return _digest_of(Path(package.entry, file.in_cache)) != file.original
    except FileNotFoundError:
        return Path(package.entry).is_dir()
    except OSError:
        return True
