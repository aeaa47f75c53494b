"""The dialect of PBS: OpenPBS and PBS Pro, and Torque, which speaks an older one. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcburst.jobs.dialect import JobNews, JobState, Submission, Terse
from hpcburst.jobs.directives import clock, folder_path, mebibytes, queue_option, redirection
from hpcburst.jobs.placing import account_option, features, refuse, word
from hpcburst.jobs.readings import (
    check_answer,
    epoch_of,
    news_for,
    number_of,
    records_of,
    seconds_of,
    submitted_id,
)
from hpcburst.placement import Placement
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
        disk_resource: Resource that local disk is asked by; None asks for none, as each site has a
            name of its own for it.
    """

    torque: bool = False
    disk_resource: str | None = None

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
            **account_option(shape.placement, "account"),
            "walltime": clock(shape.walltime_s),
            "resource_spec": self._resources(shape),
            "job_directives_skip": ["#PBS -e ", "#PBS -o "],
            "job_extra_directives": [
                *("-r n", "-j oe", "-S /bin/bash", f"-o {folder_path(logs)}/"),
                *self._placed(shape.placement),
            ],
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
        """Cores, memory and the rest, for each node; Torque's memory is the whole job's."""
        nodes, ranks = shape.spread.nodes, shape.spread.tasks_per_node
        memory_mib = mebibytes(shape.memory_mb)
        wanted = features(shape.placement.constraint)
        disk_mib = mebibytes(shape.placement.disk_core_mb * shape.cores)
        disk = self.disk_resource if shape.placement.disk_core_mb else None
        if self.torque:
            gpus = f":gpus={shape.gpus}" if shape.gpus else ""
            disk = f",{disk}={disk_mib}mb" if disk else ""
            names = "".join(f":{name}" for name in wanted)
            cores = f"nodes={nodes}:ppn={shape.cores}{gpus}{names}"
            return f"{cores},mem={memory_mib * nodes}mb{disk}"
        gpus = f":ngpus={shape.gpus}" if shape.gpus else ""
        processes = f":mpiprocs={ranks}" if shape.spread.tasks > 1 else ""
        disk = f":{disk}={disk_mib}mb" if disk else ""
        named = "".join(f":{name}" if "=" in name else f":{name}=True" for name in wanted)
        size = f"ncpus={shape.cores}:mem={memory_mib}mb"
        return f"select={nodes}:{size}{gpus}{processes}{disk}{named}"

    def _placed(self, placement: Placement) -> list[str]:
        """Directives for the rest of a placement, in the words of Torque's scheduler Moab."""
        refuse(placement, ("gpu_model",), "PBS")
        if not self.torque:
            refuse(placement, ("qos", "reservation"), "PBS")
            return []
        rows = (("qos", placement.qos), ("advres", placement.reservation))
        return [f"-l {name}={word(name, value)}" for name, value in rows if value]


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
