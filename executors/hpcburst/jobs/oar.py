"""The dialect of OAR (2.5). Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcburst.jobs.dialect import JobNews, JobState, Submission, Terse
from hpcburst.jobs.directives import clock, folder_path, queue_option
from hpcburst.jobs.placing import account_option, refuse, word
from hpcburst.jobs.readings import (
    check_answer,
    epoch_of,
    news_for,
    records_of,
    seconds_of,
    submitted_id,
)
from hpcburst.tasks import Shape

SIGUSR1 = 10

_DIRECTIVE = "#OAR "
_JOB = re.compile(r"Job_Id: *([0-9]+)")
_STATES = {
    **dict.fromkeys(
        ("Waiting", "Hold", "toLaunch", "Launching", "toAckReservation"), JobState.PENDING
    ),
    **dict.fromkeys(("Running", "Suspended", "Resuming"), JobState.RUNNING),
    **dict.fromkeys(("Finishing", "Terminated", "Error", "toError"), JobState.ENDED),
}


@dataclass(frozen=True, slots=True)
class OarDialect(Terse):
    """Speaks to OAR.

    Attributes:
        warn_s: Seconds before the end of its walltime at which a job is sent SIGUSR1; 0 is never. A
            process that does not handle it dies of it.
    """

    warn_s: int = 0

    name: ClassVar[str] = "oar"
    job_id_variable: ClassVar[str] = "OAR_JOB_ID"
    gone: ClassVar[re.Pattern[str]] = re.compile(
        r"job does not exist|already (?:terminated|killed|finished|in (?:Terminated|Error))"
    )
    trouble: ClassVar[re.Pattern[str]] = re.compile(
        r"^(?:DB connection error|DBI connect|\[ERROR\]|.*Cannot connect to database)",
        re.MULTILINE,
    )

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:  # noqa: ARG002 - see below
        """See `Dialect`. Nodes are not excluded: OAR hears one `-p`, and memory needs it.

        GPUs are asked for in place of cores, which come with them.
        """
        log = f"{folder_path(logs)}/%jobid%.log"
        extra = [f"-O {log}", f"-E {log}"]
        if self.warn_s:
            extra.append(f"--checkpoint {self.warn_s} --signal {SIGUSR1}")
        inside = f"gpu={shape.gpus}" if shape.gpus else f"core={shape.cores}"
        placement = shape.placement
        refuse(placement, ("qos", "constraint", "gpu_model"), "OAR")
        if placement.reservation:
            extra.append(f"-t inner={word('reservation', placement.reservation)}")
        return {
            **queue_option(shape.queue),
            **account_option(placement, "project"),
            "walltime": clock(shape.walltime_s),
            "resource_spec": f"/nodes={shape.spread.nodes}/{inside}",
            "memory_per_core_property_name": "not_applicable",
            "job_extra_directives": extra,
        }

    def log_of(self, logs: str, job_id: str) -> str:
        """See `Dialect`."""
        return f"{logs}/{job_id}.log"

    def submission(self, path: str, script: str) -> Submission:  # noqa: ARG002 - see Dialect
        """Directives as arguments and the script as the last one.

        Given a path, OAR would read the file on the node, when it is long gone.
        """
        lines = script.splitlines()
        directives = [
            line.removeprefix(_DIRECTIVE) for line in lines if line.startswith(_DIRECTIVE)
        ]
        body = "\n".join(line for line in lines if not line.startswith("#")).strip()
        return Submission(("oarsub", *shlex.split(" ".join(directives)), body))

    def read_submitted(self, text: str) -> str:
        """From "OAR_JOB_ID=12"."""
        return submitted_id(text, re.compile(r"OAR_JOB_ID=([0-9]+)"))

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`oarstat -f -j ID...`."""
        return ["oarstat", "-f", *(word for job_id in job_ids for word in ("-j", job_id))]

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Records of `oarstat -f`."""
        check_answer(text, self.trouble)
        return news_for(job_ids, {row: _news(record) for row, record in records_of(text, _JOB)})

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`oardel ID...`."""
        return ["oardel", *job_ids]

    def limit_argv(self, job_id: str) -> list[str]:
        """`oarstat -f -j ID`."""
        return self.states_argv([job_id])

    def read_limit(self, text: str, now: float) -> float | None:  # noqa: ARG002 - see Dialect
        """Start and walltime of the first job."""
        record = next((record for _, record in records_of(text, _JOB)), {})
        start = epoch_of(record.get("startTime", ""), "%Y-%m-%d %H:%M:%S")
        walltime_s = seconds_of(record.get("walltime", ""))
        return None if start is None or walltime_s is None else start + walltime_s


def _news(record: Mapping[str, str]) -> JobNews:
    word = record.get("state", "")
    state = _STATES.get(word, JobState.UNKNOWN)
    host = record.get("assigned_hostnames", "").split("+")[0]
    if state is JobState.PENDING:
        message = record.get("message", "")
        words = message if word == "Waiting" else f"{word} {message}".rstrip()
        return JobNews(state, words, held=word == "Hold")
    return JobNews(state, "" if word == "Running" else word, host)
