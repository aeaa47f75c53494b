"""Look at the machine: its cores, its memory, its batch system and that one's queues.

Reads, never writes; the batch system is asked a few commands that change nothing (`policy.ask`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpcburst.errors import SiteError
from hpcburst.policy.ask import Told, ask, output_or_nothing
from hpcburst.policy.discovery.found import Found
from hpcburst.policy.discovery.systems import SYSTEMS
from hpcburst.policy.present import COMMANDS, detect

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
    for name, (submit, *_) in COMMANDS.items():
        path = shutil.which(submit)
        # Grid Engine and PBS have the same qsub; only one of them has qconf.
        grid_engine = shutil.which("qconf") is not None
        if path and not (submit == "qsub" and grid_engine != (name == "sge")):
            found[name] = path
    return found


def scheduler_here() -> str:
    """The name of the batch system that is here, `present.LOCAL` if there is none."""
    return detect(shutil.which, output_or_nothing)


def discover(scheduler: str, asked: Callable[[Sequence[str]], Told] = ask) -> Found:
    """What a batch system says of its queues.

    Args:
        scheduler: A key of `discovery.systems.SYSTEMS`.
        asked: Runs one command that only reads.

    Raises:
        SiteError: The system cannot be asked, or told of no queue.
    """
    system = SYSTEMS.get(scheduler)
    if system is None:
        raise SiteError(
            f"The queues of {scheduler!r} were looked for",
            "it is no batch system that can be asked",
            f"those are {', '.join(SYSTEMS)}",
        )
    told = {name: asked(argv) for name, argv in system.first.items()}
    answers = {name: answer.text for name, answer in told.items()}
    more = {name: asked(argv) for name, argv in system.then(answers).items()}
    found = system.read({**answers, **{name: answer.text for name, answer in more.items()}})
    troubles = [answer.trouble for answer in (*told.values(), *more.values()) if answer.trouble]
    if not found.queues:
        raise SiteError(
            f"{scheduler} was asked for its queues",
            "; ".join(troubles) or "it told of none that can be used",
            "state them under hpcburst.queues",
        )
    return replace(found, remarks=(*found.remarks, *troubles))


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
