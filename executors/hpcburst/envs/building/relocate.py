"""Files that were written for one prefix, rewritten for another."""

from __future__ import annotations

import os
import re
from pathlib import Path


def relocate(folder: Path, written_for: Path, prefix: Path) -> list[Path]:
    """Rewrite a path wherever a file or link in a folder speaks of it.

    Files with other hard links belong to a package cache as well and hold no prefix; they are left
    alone. In binary files the text around a path ends with a NUL: it may become shorter and is
    filled up with NULs, as conda and rattler do it, but never longer. Compiled Python cannot be
    changed so; when the lengths differ it is deleted, to be compiled again.

    Args:
        folder: The files.
        written_for: What they speak of.
        prefix: What they shall speak of.

    Returns:
        The files and links that were rewritten or deleted.

    Raises:
        ValueError: A binary file would need a longer path than it has room for.
    """
    old, new = os.fsencode(written_for), os.fsencode(prefix)
    return [path for path in _candidates(folder) if _rewrite(path, old, new)]


def moved_text(data: bytes, old: bytes, new: bytes) -> bytes:
    r"""The bytes of a file in which one path stands instead of another.

    >>> moved_text(b"#!/a/stage/bin/python", b"/a/stage", b"/env")
    b'#!/env/bin/python'
    >>> moved_text(bytes(1) + b"/a/stage/lib" + bytes(2), b"/a/stage", b"/env")
    b'\x00/env/lib\x00\x00\x00\x00\x00\x00'

    Raises:
        ValueError: It is binary, and the new path is longer.
    """
    if b"\0" not in data or len(old) == len(new):
        return data.replace(old, new)
    if len(new) > len(old):
        raise ValueError(f"{os.fsdecode(new)} is longer than {os.fsdecode(old)}")
    string = re.compile(re.escape(old) + rb"[^\0]*\0*", re.DOTALL)
    return string.sub(lambda match: _filled(match[0], old, new), data)


def _filled(text: bytes, old: bytes, new: bytes) -> bytes:
    string = text.rstrip(b"\0")
    return string.replace(old, new).ljust(len(text), b"\0")


def _candidates(folder: Path) -> list[Path]:
    return [
        Path(base, name) for base, folders, files in os.walk(folder) for name in files + folders
    ]


def _rewrite(path: Path, old: bytes, new: bytes) -> bool:
    if path.is_symlink():
        return _point(path, old, new)
    found = path.lstat()
    if not path.is_file() or found.st_nlink > 1:
        return False
    data = path.read_bytes()
    if old not in data:
        return False
    if path.suffix == ".pyc" and len(old) != len(new):
        path.unlink()
        return True
    aside = path.with_name(path.name + ".hpcburst")
    aside.write_bytes(moved_text(data, old, new))
    aside.chmod(found.st_mode & 0o7777)
    os.utime(aside, ns=(found.st_atime_ns, found.st_mtime_ns))  # compiled Python names its source's
    aside.replace(path)
    return True


def _point(path: Path, old: bytes, new: bytes) -> bool:
    target = os.fsencode(path.readlink())
    if target != old and not target.startswith(old + b"/"):
        return False
    path.unlink()
    path.symlink_to(os.fsdecode(target.replace(old, new, 1)))
    return True
