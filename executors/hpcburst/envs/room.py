"""Full disks and used-up quotas, put into words."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REASONS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}


@contextmanager
def room_for(source: str, place: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into an answer.

    Args:
        source: What the env's spec is called in messages.
        place: What is being written.

    Raises:
        EnvError: Instead of any OSError inside.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is not None:
            raise _no_room(source, place, reason) from error
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


def _no_room(source: str, place: Path, reason: str) -> EnvError:
    folder = next((p for p in (place, *place.parents) if p.exists()), Path("/"))
    disk = shutil.disk_usage(folder)
    return EnvError(
        f"The env of {source} was to be built in {place.parent}",
        f"{reason}; with the half-built env taken away again, {disk.free / 1e6:.0f} MB of "
        f"{disk.total / 1e6:.0f} MB are free on that disk",
        "take old envs away (`hpcburst env list`, `hpcburst env remove KEY`), "
        "or name a larger place in the config (`hpcburst.shared-root`)",
    )
