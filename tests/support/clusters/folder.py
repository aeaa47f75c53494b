"""The folder of a private cluster: ours, short enough for sockets, one caller at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.clusters.errors import ClusterError

LONGEST = 70
"""Sockets below the folder (spool/n100/n100_123456.4294967291) have 108 characters in all."""


@contextmanager
def claimed(folder: Path, mode: int) -> Iterator[Path]:
    """The folder, made when it is not there, and nobody else changing the cluster in it.

    Raises:
        ClusterError: It is another user's, or its path is too long.
    """
    if len(str(folder)) > LONGEST:
        raise ClusterError(
            f"the path of the cluster's folder is too long for Unix sockets: {folder} "
            f"({len(str(folder))} characters, at most {LONGEST}); choose another with --folder"
        )
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise ClusterError(f"{folder} is not a folder of yours; choose another with --folder")
    folder.chmod(mode)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def emptied(folder: Path, *names: str) -> None:
    """Make these folders below it anew."""
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
