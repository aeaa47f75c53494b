"""The dialect of PBS: OpenPBS and PBS Pro, and Torque, which speaks an older one. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcburst.jobs.dialect import JobNews, JobState, Submission, Terse
from hpcburst.jobs.directives import clock, folder_path, mebibytes, queue_option, redirection
from hpcburst.jobs.readings import (
    check_answer,
    epoch_of,
    news_for,
    number_of,
    records_of,
    seconds_of,
    submitted_id,
)
from hpcburst.tasks import Shape

_JOB = re.compile(r"Job Id: *([0-9]\S*)")
_STATES = {
    **dict.fromkeys("QWHT", JobState.PENDING),
    **dict.fromkeys("RSUB", JobState.RUNNING),
    **dict.fromkeys("EFXC", JobState.ENDED),
}
_NOT_RUNNING_NOW = {"S": "suspended", "U": "suspended: its node is in use"}


@dataclass(frozen=True, slots=True)
class PbsDialect(Terse):
    """Speaks to PBS.

    Attributes:
        torque: Whether it is Torque: nodes and cores are asked for in other words, and ended jobs
            are not remembered.
    """

    torque: bool = False

    name: ClassVar[str] = "pbs"
    job_id_variable: ClassVar[str] = "PBS_JOBID"
    gone: ClassVar[re.Pattern[str]] = re.compile(
        "Unknown Job|Job has finished|has finished, use -x|Request invalid for state of job"
    )
    trouble: ClassVar[re.Pattern[str]] = re.compile(
        r"^(?:q\w+: (?:cannot connect|could not connect|Error)|Connection refused|"
        r"Communication failure|No default server|pbs_iff)",
        re.MULTILINE,
    )
    variables: ClassVar[Mapping[str, str | None]] = {"PBS_DPREFIX": None}

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:  # noqa: ARG002 - PBS cannot exclude nodes
        """See `Dialect`. PBS has no way to exclude nodes.

        The script itself sends its output to the log: PBS would keep it on the node until the
        end, under a name with the server's in it. What PBS has to say goes to the same folder.
        """
        return {
            **queue_option(shape.queue),
            "walltime": clock(shape.walltime_s),
            "resource_spec": self._resources(shape),
            "job_directives_skip": ["#PBS -e ", "#PBS -o "],
            "job_extra_directives": ["-r n", "-j oe", "-S /bin/bash", f"-o {folder_path(logs)}/"],
            "job_script_prologue": [redirection(logs, "${PBS_JOBID%%.*}")],
        }

    def log_of(self, logs: str, job_id: str) -> str:
        """See `Dialect`."""
        return f"{logs}/{number_of(job_id)}.log"

    def submission(self, path: str, script: str) -> Submission:  # noqa: ARG002 - see Dialect
        """`qsub PATH`."""
        return Submission(("qsub", path))

    def read_submitted(self, text: str) -> str:
        """From a line that is "12.server"."""
        return submitted_id(text, re.compile(r"^([0-9]+\.\w[\w.-]*)[ \r]*$", re.MULTILINE))

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`qstat -f` with ended jobs among them, in text: Torque has no JSON, and it may break."""
        return ["qstat", "-f", *([] if self.torque else ["-x"]), *job_ids]

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Records of `qstat -f`."""
        check_answer(text, self.trouble)
        rows = {number_of(job_id): _news(record) for job_id, record in records_of(text, _JOB)}
        return news_for(job_ids, rows)

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`qdel ID...`."""
        return ["qdel", *job_ids]

    def limit_argv(self, job_id: str) -> list[str]:
        """`qstat -f ID`."""
        return ["qstat", "-f", job_id]

    def read_limit(self, text: str, now: float) -> float | None:  # noqa: ARG002 - see Dialect
        """Start and walltime of the first job."""
        record = next((record for _, record in records_of(text, _JOB)), {})
        started = record.get("stime") or record.get("start_time", "")
        start = epoch_of(started, "%a %b %d %H:%M:%S %Y")
        walltime_s = seconds_of(record.get("Resource_List.walltime", ""))
        return None if start is None or walltime_s is None else start + walltime_s

    def _resources(self, shape: Shape) -> str:
        memory_mib = mebibytes(shape.memory_mb)
        if self.torque:
            gpus = f":gpus={shape.gpus}" if shape.gpus else ""
            return f"nodes=1:ppn={shape.cores}{gpus},mem={memory_mib}mb"
        gpus = f":ngpus={shape.gpus}" if shape.gpus else ""
        return f"select=1:ncpus={shape.cores}:mem={memory_mib}mb{gpus}"


def _news(record: Mapping[str, str]) -> JobNews:
    letter = record.get("job_state", "")
    state = _STATES.get(letter, JobState.UNKNOWN)
    host = re.split(r"[/+*:]", record.get("exec_host", "").lstrip("("))[0]
    if state is JobState.PENDING:
        return JobNews(state, record.get("comment", ""), held=letter == "H")
    if state is JobState.RUNNING:
        return JobNews(state, _NOT_RUNNING_NOW.get(letter, ""), host)
    if state is JobState.ENDED:
        status = record.get("Exit_status") or record.get("exit_status")
        return JobNews(state, f"Exit_status {status}" if status else "", host)
    return JobNews(state, "moved to another server" if letter == "M" else f"state {letter!r}")
