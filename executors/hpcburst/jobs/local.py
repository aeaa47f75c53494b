"""The dialect of the embedded queue (`localqueue`). Pure."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcburst.jobs.dialect import JobState
from hpcburst.tasks import Shape

PROGRAM = Path(__file__).with_name("localqueue.py")

DIRECTIVE = "#LOCALQ"


@dataclass(frozen=True, slots=True)
class LocalDialect:
    """Speaks to the embedded queue.

    Attributes:
        spool: The queue's folder: private, one for each run.
    """

    spool: Path

    def header(self, shape: Shape, log: str) -> list[str]:
        """Walltime and log; cores and memory are kept to by the planner, not by the queue."""
        walltime_s = math.ceil(shape.walltime_s)
        # As JSON: a path with a line break in it must not become a line of the script.
        return [f"{DIRECTIVE} walltime={walltime_s}", f"{DIRECTIVE} output={json.dumps(log)}"]

    def submit_argv(self) -> list[str]:
        """`localqueue submit SPOOL`."""
        return self._argv("submit")

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`localqueue states SPOOL ID...`."""
        return self._argv("states") + list(job_ids)

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobState]:
        """Lines of "id state"."""
        said = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        known = {state.value for state in JobState}
        return {
            job_id: JobState(said[job_id]) if said.get(job_id) in known else JobState.UNKNOWN
            for job_id in job_ids
        }

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`localqueue cancel SPOOL ID...`."""
        return self._argv("cancel") + list(job_ids)

    def _argv(self, verb: str) -> list[str]:
        # -I -S: no user site, no site-packages: the program needs neither and starts in 15 ms.
        return [sys.executable, "-I", "-S", str(PROGRAM), verb, str(self.spool)]
