"""Files that were written with the stage's path, rewritten for the final one."""

from __future__ import annotations

import os
from pathlib import Path


def relocate(stage: Path, prefix: Path) -> list[Path]:
    """Rewrite the paths in what pip or a post-link script added to a stage.

    Rattler writes its own files for the final prefix. Files with other hard links belong to a cache
    as well and are left alone; binary files are rewritten only when both paths are equally long.

    Returns:
        The files and links that were rewritten.
    """
    old, new = os.fsencode(stage), os.fsencode(prefix)
    return [path for path in _candidates(stage) if _rewrite(path, old, new)]


def _candidates(stage: Path) -> list[Path]:
    return [Path(base, name) for base, folders, files in os.walk(stage) for name in files + folders]


def _rewrite(path: Path, old: bytes, new: bytes) -> bool:
    if path.is_symlink():
        return _point(path, old, new)
    if not path.is_file() or path.stat().st_nlink > 1:
        return False
    data = path.read_bytes()
    if old not in data or (b"\0" in data and len(old) != len(new)):
        return False
    mode = path.stat().st_mode
    aside = path.with_name(path.name + ".hpcburst")
    aside.write_bytes(data.replace(old, new))
    aside.chmod(mode & 0o7777)
    aside.replace(path)
    return True


def _point(path: Path, old: bytes, new: bytes) -> bool:
    target = os.fsencode(path.readlink())
    if not target.startswith(old + b"/"):
        return False
    path.unlink()
    path.symlink_to(os.fsdecode(target.replace(old, new, 1)))
    return True
