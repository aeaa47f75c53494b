"""How much room folders take on disk, with hard links counted once."""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.keeping.retention import Inode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hpcburst.envs.building.build import EnvRecord

_BLOCK = 512  # what stat counts in, whatever the file system does


@dataclass(frozen=True, slots=True)
class Size:
    """What an env would hold on disk if it stood alone."""

    held_bytes: int
    files: int


def walk(path: Path) -> Iterator[Inode]:
    """A file, or a folder and all in it; what vanishes meanwhile is left out."""
    with suppress(OSError):
        yield _inode(path.lstat())
    folders = [] if path.is_symlink() else [str(path)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield _inode(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)


def measure(prefix: Path) -> Size:
    """What a folder holds, each file counted once however many names it has there."""
    inodes = {inode.identity: inode.held_bytes for inode in walk(prefix)}
    return Size(sum(inodes.values()), len(inodes))


def size_of(root: Path, record: EnvRecord) -> Size:
    """What an env holds: measured by the first who asks, and noted for the others.

    Args:
        root: The store's root; the note is left out when it cannot be written there.
        record: The env.
    """
    note = root / "sizes" / record.key
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if (known["prefix"], known["made"]) == (record.prefix, record.made):
            return Size(known["held_bytes"], known["files"])
    size = measure(Path(record.prefix))
    with suppress(OSError):
        _write(note, {"prefix": record.prefix, "made": record.made, **asdict(size)})
    return size


def _inode(found: os.stat_result) -> Inode:
    # A folder has one name; its link count is that of its subfolders.
    links = 1 if stat.S_ISDIR(found.st_mode) else found.st_nlink
    return Inode((found.st_dev, found.st_ino), links, found.st_blocks * _BLOCK)


def _write(path: Path, document: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{secrets.token_hex(8)}")
    try:
        aside.write_text(json.dumps(document), encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
