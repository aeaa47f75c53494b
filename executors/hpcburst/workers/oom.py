"""Whether the kernel killed for memory: the job's own count, read from its control group."""

from __future__ import annotations

import functools
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def oom_kills() -> int | None:
    """Processes killed at the memory limit of this process's control group since it exists.

    Returns:
        The count (cgroup v2 or v1), or None where it cannot be read.
    """
    counter = _counter()
    return None if counter is None else _read(counter)


@functools.cache
def _counter() -> Path | None:
    try:
        rows = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for row in rows:
        number, controllers, group = row.split(":", 2)
        for path in _places(number, controllers.split(","), group):
            if _read(path) is not None:
                return path
    return None


def _places(number: str, controllers: list[str], group: str) -> list[Path]:
    """Where the count may be: in a container the group's own path is not seen, only its root."""
    if number == "0":
        return [_ROOT / group.lstrip("/") / "memory.events", _ROOT / "memory.events"]
    if "memory" in controllers:
        memory = _ROOT / "memory"
        return [memory / group.lstrip("/") / "memory.oom_control", memory / "memory.oom_control"]
    return []


def _read(path: Path) -> int | None:
    try:
        rows = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
        return int(rows["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
