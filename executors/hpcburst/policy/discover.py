"""Look at the machine: its cores, its memory, its batch system. Reads, never writes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

SUBMIT_COMMANDS = {
    "slurm": "sbatch",
    "pbs": "qsub",
    "lsf": "bsub",
    "htcondor": "condor_submit",
    "oar": "oarsub",
}
"""The command whose presence on PATH tells a batch system; `qsub` is told apart by its company."""

RESERVE = 0.9
"""Share of the memory that jobs of the local queue may have together; the rest is for the person
who sits at this machine, the driver and the page cache."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine gives to jobs of the local queue.

    Attributes:
        cores: CPU cores this process may use.
        memory_mb: Memory in MB (10^6 bytes), after the reserve and any cgroup limit.
    """

    cores: int
    memory_mb: int


def this_machine() -> Machine:
    """Cores and memory of this machine, as far as this process may use them."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = min([physical, *_cgroup_limits()])
    return Machine(len(os.sched_getaffinity(0)), int(limit * RESERVE / 1e6))


def batch_systems() -> dict[str, str]:
    """The batch systems whose submit command is on PATH: name to path of the command."""
    found = {}
    for name, command in SUBMIT_COMMANDS.items():
        path = shutil.which(command)
        if path and name == "pbs" and shutil.which("qconf"):
            name = "sge"  # noqa: PLW2901 - Grid Engine has the same qsub; only it has qconf
        if path:
            found[name] = path
    return found


def _cgroup_limits() -> list[int]:
    limits = []
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (Path("/sys/fs/cgroup") / path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return limits
