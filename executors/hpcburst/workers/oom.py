"""The job's memory by its control group: how much is left, and whether the kernel killed for it."""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")

UNKNOWN_LEFT_BYTES = 1 << 30
"""Taken as left where the system does not say: little enough to keep nothing large."""


def oom_kills() -> int | None:
    """Processes killed at the memory limit of this process's control group since it exists.

    Returns:
        The count (cgroup v2 or v1), or None where it cannot be read.
    """
    counter = _counter()
    return None if counter is None else _kills_in(counter)


def memory_left_bytes() -> int:
    """What this process's control group and the machine can still give."""
    left = [_available(), *(_left_in(group) for group in _groups())]
    return min([amount for amount in left if amount is not None], default=UNKNOWN_LEFT_BYTES)


@functools.cache
def _counter() -> Path | None:
    names = ("memory.events", "memory.oom_control")  # v2, v1
    places = [group / name for group in _groups() for name in names]
    return next((place for place in places if _kills_in(place) is not None), None)


@functools.cache
def _groups() -> tuple[Path, ...]:
    """Where our group may be: in a container its own path is not seen, only its root."""
    try:
        rows = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    return tuple(path for row in rows for path in _places(*row.split(":", 2)) if path.is_dir())


def _places(number: str, controllers: str, group: str) -> list[Path]:
    if number == "0":
        return [ROOT / group.lstrip("/"), ROOT]
    if "memory" in controllers.split(","):
        return [ROOT / "memory" / group.lstrip("/"), ROOT / "memory"]
    return []


def _kills_in(counter: Path) -> int | None:
    with suppress(OSError, ValueError, KeyError):
        rows = dict(line.split() for line in _read(counter).splitlines())
        return int(rows["oom_kill"])
    return None


def _left_in(group: Path) -> int | None:
    """Its limit less its use; None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" is no number
            return int(_read(group / limit)) - int(_read(group / used))
    return None


def _available() -> int | None:
    with suppress(OSError, ValueError, KeyError):
        rows = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    return None


def _read(path: Path) -> str:
    """Not `Path.read_text`: this is asked around every task."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 8192).decode()
    finally:
        os.close(descriptor)
