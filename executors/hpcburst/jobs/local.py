"""The dialect of the embedded queue (`localqueue`). Pure."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hpcburst.jobs.dialect import NO_NEWS, JobNews, JobState, Submission, Terse
from hpcburst.jobs.readings import check_answer, submitted_id
from hpcburst.tasks import Shape

PROGRAM = Path(__file__).with_name("localqueue.py")

DIRECTIVE = "#LOCALQ"


@dataclass(frozen=True, slots=True)
class LocalDialect(Terse):
    """Speaks to the embedded queue.

    Attributes:
        spool: The queue's folder: private, one for each run.
    """

    spool: Path

    name: ClassVar[str] = "local"
    job_id_variable: ClassVar[str] = ""
    gone: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")  # a job that is gone is no failure to it
    trouble: ClassVar[re.Pattern[str]] = re.compile(r"^Traceback ", re.MULTILINE)

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:  # noqa: ARG002 - there is but one node
        """Walltime and log; cores and memory are kept to by the planner, not by the queue.

        dask-jobqueue has no header for it: write each directive after `DIRECTIVE`.
        """
        walltime_s = math.ceil(shape.walltime_s)
        # As JSON: a path with a line break in it must not become a line of the script.
        output = json.dumps(f"{logs}/%j.log")
        return {"job_extra_directives": [f"walltime={walltime_s}", f"output={output}"]}

    def log_of(self, logs: str, job_id: str) -> str:
        """See `Dialect`."""
        return f"{logs}/{job_id}.log"

    def submission(self, path: str, script: str) -> Submission:  # noqa: ARG002 - see Dialect
        """`localqueue submit SPOOL PATH`."""
        return Submission((*self._argv("submit"), path))

    def read_submitted(self, text: str) -> str:
        """From "Submitted local job 12"."""
        return submitted_id(text, re.compile(r"Submitted local job ([0-9]+)"))

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`localqueue states SPOOL ID...`."""
        return self._argv("states") + list(job_ids)

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Lines of "id state"."""
        check_answer(text, self.trouble)
        said = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        known = {state.value: JobNews(state) for state in JobState}
        return {job_id: known.get(said.get(job_id, ""), NO_NEWS) for job_id in job_ids}

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`localqueue cancel SPOOL ID...`."""
        return self._argv("cancel") + list(job_ids)

    def _argv(self, verb: str) -> list[str]:
        # -I -S: no user site, no site-packages: the program needs neither and starts in 15 ms.
        return [sys.executable, "-I", "-S", str(PROGRAM), verb, str(self.spool)]
