"""Find the processes of a private cluster by a variable that all of them carry, and end them.

A pid file may be stale, and its number may be another cluster's by now; a process's environment
tells for certain whose it is, also after the cluster's own commands have died.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.clusters.errors import ClusterError


@dataclass(frozen=True)
class Process:
    """A live process, as it was when looked at."""

    pid: int
    parent: int
    name: str
    environ: dict[str, str] = field(repr=False)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with suppress(OSError):
        return _stat(pid)[1] != "Z"
    return False


def carrying(variable: str, value: str) -> list[Process]:
    """All live processes with this in their environment, and the ones that these started.

    The caller itself and those above it are left out: who asks may be a user of the cluster.
    """
    processes = {process.pid: process for process in _everyone()}
    above = set(_line_above(os.getpid(), processes))
    found = {pid for pid, process in processes.items() if process.environ.get(variable) == value}
    return [processes[pid] for pid in sorted(found - above)]


def below(tops: Sequence[Process]) -> list[Process]:
    """These processes and all that come from them: a child may have dropped the variable."""
    processes = {process.pid: process for process in _everyone()}
    wanted = {process.pid for process in tops}
    return [
        process
        for pid, process in processes.items()
        if not wanted.isdisjoint(_line_above(pid, processes))
    ]


def end(processes: Sequence[Process], *, patience_s: float = 0.0) -> None:
    """Ask them to end, and kill the ones that are there after `patience_s`; 0 kills at once."""
    pids = [process.pid for process in processes]
    if patience_s:
        _tell(pids, signal.SIGTERM)
        with suppress(ClusterError):
            wait_until(lambda: not any(map(alive, pids)), "", patience_s)
    _tell([pid for pid in pids if alive(pid)], signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids)), f"the end of {pids} after SIGKILL", 10)


def wait_until(condition: Callable[[], object], what: str, within_s: float) -> None:
    """Wait for a condition.

    Raises:
        ClusterError: `what` did not happen in time.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not happen within {within_s:g} s")
        time.sleep(0.03)


def _tell(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _everyone() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile, or is another user's
                name, state, parent = _stat(int(entry.name))
                if state != "Z":
                    yield Process(int(entry.name), parent, name, _environ(entry))


def _stat(pid: int) -> tuple[str, str, int]:
    """Name, state and parent of a process."""
    head, tail = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
    state, parent = tail.split()[:2]
    return head.split("(", 1)[1], state, int(parent)


def _environ(entry: Path) -> dict[str, str]:
    words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def _line_above(pid: int, processes: dict[int, Process]) -> Iterator[int]:
    """The process, its parent, and so on up."""
    while pid in processes:
        yield pid
        pid = processes[pid].parent
