"""Full disks and used-up quotas, put into words."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REASONS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}

_TODO = (
    "take old envs away (`hpcburst env list`, `hpcburst env remove KEY`), "
    "or name a larger place in the config (`hpcburst.shared-root`)"
)

_QUOTA = "; `quota -s`, or the file system's own command (`lfs quota`, `mmlsquota`), shows it"


@dataclass(frozen=True, slots=True)
class Room:
    """Room on a disk, free or needed.

    Attributes:
        size: Bytes.
        files: Files and folders (inodes).
    """

    size: int
    files: int

    def holds(self, needed: Room) -> bool:
        """Whether so much fits in."""
        return needed.size <= self.size and needed.files <= self.files

    def __str__(self) -> str:
        return f"{self.size / 1e6:.0f} MB and {self.files} files"


@contextmanager
def room_for(
    source: str, place: Path, *, needed: Room | None = None, todo: str = _TODO
) -> Iterator[None]:
    """Turn what the operating system says about a write into an answer.

    Args:
        source: What the env's spec is called in messages.
        place: What is being written.
        needed: How much is being written, when that is known.
        todo: What the reader can do when there is no room.

    Raises:
        EnvError: Instead of any OSError inside.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _REASONS:
            raise _no_room(source, place, error.errno, needed, todo) from error
        raise EnvError(
            f"The env of {source} was to be built in {place}",
            str(error),
            f"see that you may write to {place.parent}, then run it again",
        ) from error


def raise_if_no_room(text: str) -> None:
    """Raise the OSError that a program's output speaks of, if it speaks of a full disk or quota.

    Raises:
        OSError: ENOSPC or EDQUOT.
    """
    for number, reason in _REASONS.items():
        if os.strerror(number).lower() in text.lower() or f"(os error {number})" in text:
            raise OSError(number, reason)


def free_room(folder: Path) -> Room:
    """The room that is left to us on the disk of an existing folder; quotas do not show in it.

    Raises:
        OSError: There is no such folder.
    """
    disk = os.statvfs(folder)
    # A file system that makes inodes as it goes says that it has none at all.
    files = disk.f_favail if disk.f_files else 2**63
    return Room(disk.f_bavail * disk.f_frsize, files)


def _no_room(source: str, place: Path, number: int, needed: Room | None, todo: str) -> EnvError:
    folder = next((p for p in (place, *place.parents) if p.exists()), Path("/"))
    disk = os.statvfs(folder)
    free, total = (blocks * disk.f_frsize / 1e6 for blocks in (disk.f_bavail, disk.f_blocks))
    wanted = f"{needed} are needed; " if needed else ""
    inodes = " and no more files can be made" if disk.f_files and not disk.f_favail else ""
    return EnvError(
        f"The env of {source} was to be built in {place.parent}",
        f"{_REASONS[number]}; {wanted}with the half-built env taken away again, {free:.0f} MB of "
        f"{total:.0f} MB are free on that disk{inodes}",
        todo + (_QUOTA if number == errno.EDQUOT else ""),
    )
