"""Archives from channels to files: whole, checked, several at once, and never twice.

Standard library only. Each download writes a part file of its own, so that two processes cannot
damage each other's; a part whose writer is gone is taken over by the next one, by rename, and
continued. A file gets its final name only once its digest has been found right.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hpcburst.envs.child.refusals import (
    ArchiveDamaged,
    ArchiveGone,
    ArchiveRefused,
    FetchFailed,
    Offline,
    few,
)
from hpcburst.envs.specs.entries import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CONNECTIONS = 6
"""Downloads at once: what browsers allow themselves with one server. More fill no line faster, and
public mirrors slow down or refuse those who open dozens."""

ORPHANED_S = 300.0
"""A part of a process on another node, untouched for so long, has no writer any more: ten times
the silence after which a writer gives up a connection."""

READ_BYTES = 1024 * 1024
"""Bytes hashed at once; hashing lets other threads run meanwhile only for large pieces."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One archive to fetch.

    Attributes:
        url: Where it is.
        sha256: Its digest in hex; "" if unknown.
        md5: The same, used only when there is no other.
        size: Bytes; 0 if unknown.
    """

    url: str
    sha256: str = ""
    md5: str = ""
    size: int = 0

    @property
    def file_name(self) -> str:
        """The name of the archive, which says package, version and build.

        Raises:
            FetchFailed: The URL ends in something that cannot be the name of a file.
        """
        name = unquote(urlsplit(self.url).path.rpartition("/")[2])
        if not re.fullmatch(r"[^/\0.][^/\0]*", name):
            raise FetchFailed(f"{redact(self.url)}: it does not end in the name of an archive")
        return name

    def place_in(self, folder: Path) -> Path:
        """Where the whole file belongs, by what is in it; by its URL if that is not known."""
        digest = self.sha256 or self.md5
        digest = digest or "url-" + hashlib.sha256(self.url.encode()).hexdigest()
        return folder / digest / self.file_name

    def is_right(self, path: Path) -> bool:
        """Whether this file is the archive, as far as can be known.

        Raises:
            OSError: It cannot be read.
        """
        size = path.stat().st_size
        if self.size and size != self.size:
            return False
        if self.sha256:
            return digest_of(path, "sha256") == self.sha256
        return not self.md5 or digest_of(path, "md5") == self.md5


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file in hex; `kind` is "sha256" or "md5".

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.new(kind, usedforsecurity=kind != "md5")
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


@dataclass
class Fetch:
    """One round of fetching.

    Args:
        folder: Where the files go, each in a folder named after its digest.
        told: Called with the bytes that are there and all bytes (None if unknown), from threads.
        another_way: Fetches a URL to a path when we cannot: other schemes, refused credentials.
        offline: Do not use the network.
    """

    folder: Path
    told: Callable[[int, int | None], None]
    another_way: Callable[[str, Path], None]
    offline: bool = False

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._done: dict[str, int] = {}
        self._total: int | None = 0
        self._lock = threading.Lock()

    def run(self, archives: Sequence[Wanted]) -> dict[str, Path]:
        """Fetch what is not there yet.

        Returns:
            The file of each archive, by URL; a `file://` one is its own.

        Raises:
            FetchFailed: One cannot be had. What came of it, and of the others, is kept.
            OSError: No room, or no permission.
        """
        files = {a.url: _local(a) or a.place_in(self.folder) for a in archives}
        missing = [a for a in dict.fromkeys(archives) if not _is_there(a, files[a.url])]
        if missing and self.offline:
            raise Offline(f"not fetched yet: {few([a.file_name for a in missing])}")
        sizes = [a.size for a in missing]
        self._total = sum(sizes) if all(sizes) else None
        # The largest first: else one of them is begun last, and all the others wait for it.
        self._fetch_all(sorted(missing, key=lambda a: -a.size), files)
        return files

    def file_anew(self, files: Mapping[str, Path], archives: Sequence[Wanted]) -> None:
        """Put files where they belong by what has become known of them since they were fetched."""
        for archive in archives:
            old, new = files.get(archive.url), archive.place_in(self.folder)
            if old and old != new and not _local(archive):
                new.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # another process did the same
                    old.replace(new)
                with suppress(OSError):
                    old.parent.rmdir()

    def _fetch_all(self, archives: Sequence[Wanted], files: dict[str, Path]) -> None:
        self._stop.clear()
        with ThreadPoolExecutor(CONNECTIONS, "fetch") as pool:
            try:
                jobs = [pool.submit(self._fetch, a, files[a.url]) for a in archives]
                wait(jobs, return_when=FIRST_EXCEPTION)
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
        for error in _errors(jobs):
            raise error

    def _fetch(self, archive: Wanted, place: Path) -> None:
        for _attempt in range(2):
            with _part_of(place) as (part, path):
                self._fill(archive, part, path)
                if archive.is_right(path):
                    self._count(archive, path.stat().st_size)
                    path.replace(place)
                    return
                path.unlink(missing_ok=True)
        raise ArchiveDamaged(
            f"{redact(archive.url)}: what the server sends is not what is asked for "
            f"({'sha256 ' + archive.sha256 if archive.sha256 else 'md5 ' + archive.md5})"
        )

    def _fill(self, archive: Wanted, part: IO[bytes], path: Path) -> None:
        # Here, because it takes 15 ms that linking on a node has no use for.
        from hpcburst.envs.child.downloading import Download

        if urlsplit(archive.url).scheme not in {"http", "https"}:
            self.another_way(archive.url, path)
            return
        if not (archive.sha256 or archive.md5):
            part.truncate(0)  # nothing could tell that the rest belongs to another file
        try:
            Download(
                archive.url,
                part,
                archive.size,
                told=lambda there: self._count(archive, there),
                stopped=self._stop.is_set,
            ).run()
        except ArchiveRefused as refused:
            self._fill_another_way(archive, path, refused)

    def _fill_another_way(self, archive: Wanted, path: Path, refused: ArchiveRefused) -> None:
        try:
            self.another_way(archive.url, path)
        except Exception as error:
            # Whatever that was, the server's own answer says more.
            raise refused from error

    def _count(self, archive: Wanted, there: int) -> None:
        with self._lock:
            self._done[archive.url] = there
            done = sum(self._done.values())
        self.told(done, self._total)


def _errors(jobs: Sequence[Future[None]]) -> list[BaseException]:
    """What went wrong, the cause before those who only stopped because of it."""
    found = [job.exception() for job in jobs if not job.cancelled()]
    return sorted(
        (error for error in found if error is not None),
        key=lambda error: isinstance(error, InterruptedError),
    )


def _local(archive: Wanted) -> Path | None:
    parts = urlsplit(archive.url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _is_there(archive: Wanted, place: Path) -> bool:
    try:
        right = archive.is_right(place)
    except FileNotFoundError:
        if _local(archive):
            raise ArchiveGone(f"{place}: there is no such file") from None
        return False
    if not right:
        if _local(archive):
            raise ArchiveDamaged(f"{place}: it is not the archive that is asked for")
        place.unlink(missing_ok=True)
    return right


@contextmanager
def _part_of(place: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A part file that is ours alone, begun by us or taken over from a writer that is gone."""
    mine = place.with_name(f"{place.name}.{_me()}-{secrets.token_hex(4)}.part")
    for orphan in _orphans(place):
        with suppress(OSError):
            orphan.rename(mine)
            break
    with _open_part(mine) as part:
        try:
            yield part, mine
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                mine.unlink(missing_ok=True)  # half an archive must not fill what room is left
            raise
        finally:
            _let_go(mine, place)


def _open_part(path: Path) -> IO[bytes]:
    """Open a part, made if need be; who has no more use for the folder may take it away."""
    for _attempt in range(3):
        with suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without O_TRUNC: what has come is continued.
            return os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666), "r+b")
    raise FileNotFoundError(errno.ENOENT, "is taken away again and again", str(path.parent))


def _let_go(mine: Path, place: Path) -> None:
    """Leave what came for the next writer, who need not wait to see that we are gone."""
    with suppress(OSError):
        if mine.stat().st_size:
            mine.rename(place.with_name(f"{place.name}.part"))
        else:
            mine.unlink()


def _me() -> str:
    return f"{re.sub(r'[^A-Za-z0-9]', '_', socket.gethostname())}-{os.getpid()}"


def _orphans(place: Path) -> list[Path]:
    """Parts of this archive that nobody writes to, the longest first."""
    parts = [
        path
        for path in place.parent.glob("*.part")
        if path.name.startswith(place.name + ".") and _is_orphan(path, place)
    ]
    return sorted(parts, key=_size, reverse=True)


def _is_orphan(part: Path, place: Path) -> bool:
    writer = part.name[len(place.name) + 1 :].removesuffix("part").rstrip(".")
    if not writer:
        return True
    host, _, rest = writer.partition("-")
    pid = rest.partition("-")[0]
    if host == _me().partition("-")[0] and pid.isdecimal():
        return pid != str(os.getpid()) and not Path(f"/proc/{pid}").exists()
    with suppress(OSError):
        return time.time() - part.stat().st_mtime > ORPHANED_S and os.access(part, os.W_OK)
    return False


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
