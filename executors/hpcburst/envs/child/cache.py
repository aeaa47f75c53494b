"""Rattler's cache of extracted packages (0.26 to 0.28): what is in it, and what is left of that.

An entry is a folder named after package, version and build, extracted aside and then renamed. The
file `<entry>.lock` beside it holds the number of times that was done and the digest of the archive,
which rattler compares if the record has one. It does not look whether all files are still there,
and scratch file systems take away what nobody has read for a month.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_REVISION_BYTES = 8


def entry_of(record: Any) -> str:
    """What a package is called in the cache and in `conda-meta`."""
    return f"{record.name.normalized}-{record.version}-{record.build}"


def is_extracted(record: Any, cache: Sequence[str]) -> bool:
    """Whether one of these folders holds a package, extracted from the archive in its record."""
    entry = entry_of(record)
    return any(
        Path(folder, entry).is_dir()
        and record.sha256 in {None, _digest_beside(Path(folder, f"{entry}.lock"))}
        for folder in cache
    )


def drop_damaged(records: Sequence[Any], cache: Sequence[str]) -> list[str]:
    """Take entries away that have lost files; rattler extracts them again then.

    Returns:
        The names of those entries.

    Raises:
        OSError: One cannot be taken away.
    """
    import shutil  # here: packages are seldom damaged, and it takes 3 ms

    dropped = []
    for folder in map(Path, cache):
        for entry in map(entry_of, records):
            if (folder / entry).is_dir() and not _is_whole(folder / entry):
                aside = folder / f".{entry}-{os.urandom(4).hex()}"
                (folder / entry).rename(aside)
                shutil.rmtree(aside, ignore_errors=True)
                dropped.append(entry)
    return dropped


def _is_whole(entry: Path) -> bool:
    try:
        paths = json.loads((entry / "info/paths.json").read_bytes())["paths"]
        return all(_is_as_packed(entry / row["_path"], row) for row in paths)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # very old packages have no such list: extracting one again does no harm


def _is_as_packed(path: Path, row: dict[str, Any]) -> bool:
    size = row.get("size_in_bytes")
    found = path.lstat()
    return row.get("path_type") != "hardlink" or size is None or found.st_size == size


def _digest_beside(path: Path) -> bytes:
    try:
        return path.read_bytes()[_REVISION_BYTES:]
    except OSError:
        return b""
