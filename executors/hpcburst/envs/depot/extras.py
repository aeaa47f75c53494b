"""What a built prefix holds beside its archives: kept as one tar, put into a prefix elsewhere.

Pip packages, byte code of noarch packages, variables, what post-link scripts wrote or changed: all
of it is found by comparing the prefix with what its `conda-meta` says the archives brought. Paths
in text are rewritten for the new prefix. Byte code is not: Python corrects the file names in it as
it loads it. Other binaries that hold the prefix cannot be moved, and are refused.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

HASHERS = 8
"""Threads that read a prefix: file servers answer many questions at once."""

_OWN = "conda-meta/hpcburst.json"
_CACHED = re.compile(r"(?P<folder>.*/)?__pycache__/(?P<stem>[^/]+?)\.[^/.]+(?:\.opt-\d)?\.pyc")


class CannotMove(EnvError):
    """The env holds files that are good at its prefix only."""


@dataclass(frozen=True, slots=True)
class Extras:
    """How a prefix differs from what its archives make; paths are relative to the prefix.

    Attributes:
        added: Files, links and empty folders that the archives do not bring, or not like this.
        rewritten: Those of them that hold the prefix as text.
        removed: Files that the archives bring and that are not there any more.
        size: Bytes of the whole prefix.
        copied: Bytes of its files that are written for the prefix, not linked from a cache.
        files: Files, links and folders of the whole prefix.
    """

    added: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    size: int = 0
    copied: int = 0
    files: int = 0


def find_extras(prefix: Path) -> Extras:
    """Compare a finished prefix with the records of its packages.

    Raises:
        CannotMove: A binary file that no archive brought holds the prefix.
        OSError: The prefix cannot be read.
    """
    rows = _listed(prefix)
    there, folders, size = _walked(prefix)
    with ThreadPoolExecutor(HASHERS) as threads:
        changed = threads.map(lambda path: _is_extra(prefix, path, rows.get(path)), there)
        added = [path for path, is_extra in zip(there, changed, strict=True) if is_extra]
        holding = threads.map(lambda path: _holds_prefix(prefix, path), added)
        told = [path for path, holds in zip(added, holding, strict=True) if holds]
    stale, rewritten = _sorted_out(prefix, told)
    brought = (path for path, row in rows.items() if row.get("path_type") != "pyc_file")
    return Extras(
        # Byte code last: it is written to fit sources that are there by then.
        added=tuple(sorted(set(added) - stale, key=lambda path: (path.endswith(".pyc"), path))),
        rewritten=rewritten,
        removed=tuple(sorted(set(brought) - set(there))),
        size=size,
        copied=sum(row.get("size_in_bytes") or 0 for row in rows.values() if _is_written(row)),
        files=len(there) + folders,
    )


def write_extras(prefix: Path, extras: Extras, to: IO[bytes]) -> None:
    """Write the added files as a compressed tar, with nothing in it that differs from run to run.

    Raises:
        OSError: The prefix cannot be read, or there is no room.
    """
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=to, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in extras.added:
            path = prefix / name
            member, info = tarfile.TarInfo(name), path.lstat()
            member.mode, member.mtime = stat.S_IMODE(info.st_mode), int(info.st_mtime)
            if path.is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(member)
            elif path.is_dir():
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = info.st_size
                with path.open("rb") as file:
                    tar.addfile(member, file)


def unpack_extras(
    packed: Path, stage: Path, *, rewritten: Collection[str], old: str, new: str
) -> None:
    """Put extras into a prefix that its archives were linked into, over what is there.

    Args:
        packed: What `write_extras` wrote.
        stage: The prefix.
        rewritten: The members that hold `old` as text.
        old: The prefix they were written for.
        new: The prefix they are to be good at.

    Raises:
        EnvError: A member would be written outside of the stage.
        OSError: There is no room.
    """
    safe: set[Path] = set()
    with tarfile.open(packed, "r:*") as tar:
        for member in tar:
            target = _target(member, stage, safe)
            if member.isdir():
                target.mkdir(exist_ok=True)
            elif member.issym():
                target.unlink(missing_ok=True)
                target.symlink_to(_moved(member.linkname, old, new))
            else:
                source = tar.extractfile(member)
                if source is None:
                    raise _unsafe(member.name)
                # Unlinked, not written to: it may be a link to a file of the package cache.
                target.unlink(missing_ok=True)
                change = (old.encode(), new.encode()) if member.name in rewritten else None
                _write(member, source, target, change)


def remove_files(stage: Path, removed: Iterable[str]) -> None:
    """Take files out of a prefix, as they were taken out of the one that was packed."""
    for name in removed:
        with suppress(FileNotFoundError):
            (stage / name).unlink()


def _listed(prefix: Path) -> dict[str, dict[str, Any]]:
    """What the packages' records say was linked, by path."""
    rows: dict[str, dict[str, Any]] = {}
    for path in _package_records(prefix):
        raw = json.loads(path.read_text(encoding="utf-8"))
        rows.update((name, {}) for name in raw.get("files") or ())
        found = (raw.get("paths_data") or {}).get("paths") or ()
        rows.update((row["_path"], row) for row in found if row.get("path_type") != "directory")
    return rows


def _package_records(prefix: Path) -> list[Path]:
    return [path for path in (prefix / "conda-meta").glob("*.json") if path != prefix / _OWN]


def _walked(prefix: Path) -> tuple[list[str], int, int]:
    """Files, links and empty folders, without what linking writes anew; all folders; bytes."""
    own = {prefix / _OWN, *_package_records(prefix)}
    found, folders, size = [], 0, 0
    for base, inner, files in os.walk(prefix):
        folders += 1
        links = [name for name in inner if Path(base, name).is_symlink()]
        paths = [Path(base, name) for name in files + links]
        size += sum(path.lstat().st_size for path in paths)
        found += [str(path.relative_to(prefix)) for path in paths if path not in own]
        if not inner and not files:
            found.append(str(Path(base).relative_to(prefix)))
    return found, folders, size


def _is_extra(prefix: Path, name: str, row: dict[str, Any] | None) -> bool:
    """Whether the archives do not make this file as it is."""
    if row is None or row.get("path_type") == "pyc_file":
        return True
    path = prefix / name
    is_link = path.is_symlink()
    if is_link or row.get("path_type") == "softlink":
        return not (is_link and row.get("path_type") in ("softlink", None))
    digest = row.get("sha256_in_prefix") or row.get("sha256")
    if not digest:
        return False  # a record without digests: nothing more can be known
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return found != str(digest) and not _is_as_brought(path, row, os.fsencode(prefix))


def _is_as_brought(path: Path, row: dict[str, Any], prefix: bytes) -> bool:
    """Whether only paths were rewritten, by whoever moved the env to its prefix and told no digest.

    In text one path stands for the other; in binaries the string is filled up with NULs as well.
    """
    holder = os.fsencode(row.get("prefix_placeholder") or "")
    if not holder:
        return False
    data = path.read_bytes()
    if row.get("file_mode") == "binary":
        strings = re.compile(re.escape(prefix) + rb"[^\0]*\0+", re.DOTALL)
        data = strings.sub(
            lambda m: m[0].rstrip(b"\0").replace(prefix, holder).ljust(len(m[0]), b"\0"), data
        )
    else:
        data = data.replace(prefix, holder)
    return hashlib.sha256(data).hexdigest() == row.get("sha256")


def _is_written(row: dict[str, Any]) -> bool:
    return bool(row.get("prefix_placeholder"))


def _holds_prefix(prefix: Path, name: str) -> bool:
    path = prefix / name
    return path.is_file() and not path.is_symlink() and _find(path, os.fsencode(prefix))


def _find(path: Path, text: bytes) -> bool:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(text) >= 0


def _sorted_out(prefix: Path, holding: Iterable[str]) -> tuple[set[str], tuple[str, ...]]:
    """Of the files that hold the prefix: byte code to leave behind, and text to rewrite."""
    stale, rewritten, fixed = set(), [], []
    for name in holding:
        source = _source_of(name)
        if source is not None and (prefix / source).is_file():
            if _find(prefix / source, os.fsencode(prefix)):
                stale.add(name)  # not only its file name: Python will compile it anew
        elif _find(prefix / name, b"\0"):
            fixed.append(name)
        else:
            rewritten.append(name)
    if fixed:
        raise CannotMove(
            f"The env {prefix} was to be packed for the nodes",
            f"paths inside of it are part of binary files ({', '.join(sorted(fixed)[:3])}), "
            "which are good at one place only",
            "leave it under the shared root: `hpcburst.envs.place: shared`",
        )
    return stale, tuple(sorted(rewritten))


def _source_of(name: str) -> str | None:
    """The source that a file of cached byte code belongs to."""
    match = _CACHED.fullmatch(name)
    return f"{match['folder'] or ''}{match['stem']}.py" if match else None


def _target(member: tarfile.TarInfo, stage: Path, safe: set[Path]) -> Path:
    name = PurePosixPath(member.name)
    known = member.isreg() or member.isdir() or member.issym()
    if not known or name.is_absolute() or ".." in name.parts or not name.parts:
        raise _unsafe(member.name)
    parent = (stage / name).parent
    if parent not in safe:
        parent.mkdir(parents=True, exist_ok=True)
        if parent.resolve() != stage.resolve() / name.parent:
            raise _unsafe(member.name)
        safe.add(parent)
    return stage / name


def _write(
    member: tarfile.TarInfo, source: IO[bytes], target: Path, change: tuple[bytes, bytes] | None
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        if change:
            file.write(source.read().replace(*change))
        elif _source_of(member.name):
            file.write(_fitted(source.read(), target))
        else:
            shutil.copyfileobj(source, file, 1 << 20)
        os.fchmod(file.fileno(), member.mode & 0o755 | 0o600)
        file.flush()
        os.utime(file.fileno(), (member.mtime, member.mtime))


def _fitted(code: bytes, target: Path) -> bytes:
    """Byte code with the time and size of its source as they are here, or Python would not use it.

    The header is 16 bytes: magic number, flags (0: checked by time and size), time, size.
    """
    source = target.parent.parent / Path(_source_of(f"__pycache__/{target.name}") or "")
    if len(code) < 16 or code[4:8] != bytes(4) or not source.is_file():
        return code
    found = source.stat()
    numbers = (int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    return code[:8] + b"".join(number.to_bytes(4, "little") for number in numbers) + code[16:]


def _moved(link: str, old: str, new: str) -> str:
    return new + link[len(old) :] if link == old or link.startswith(f"{old}/") else link


def _unsafe(name: str) -> EnvError:
    return EnvError(
        "An env was to be linked from the depot",
        f"its extra files hold {name[:200]!r}, which would be written elsewhere",
        "see who may write to the depot; then remove the env there and build it again",
    )
