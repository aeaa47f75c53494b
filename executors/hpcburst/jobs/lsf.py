"""The dialect of LSF (10.1 and later). Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcburst.jobs.dialect import JobNews, JobState, Submission, Terse
from hpcburst.jobs.directives import (
    folder_path,
    mebibytes,
    node_names,
    queue_option,
    redirection,
)
from hpcburst.jobs.placing import account_option, features, word
from hpcburst.jobs.readings import check_answer, count_of, news_for, rows_of, submitted_id
from hpcburst.tasks import Shape

MINUTE_S = 60
"""LSF keeps run limits in whole minutes."""

STATES_FORMAT = "jobid stat exec_host pend_reason delimiter='|'"

_STATES = {
    **dict.fromkeys(("PEND", "PSUSP", "WAIT", "PROV", "FWD_PEND"), JobState.PENDING),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP"), JobState.RUNNING),
    **dict.fromkeys(("DONE", "EXIT", "ZOMBI"), JobState.ENDED),
}
_LEFT = re.compile(r"([0-9]{1,6}):([0-9]{2})(?: L)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class LsfDialect(Terse):
    """Speaks to LSF.

    Attributes:
        warn_s: Seconds before the end of its walltime at which a job is sent SIGUSR1, in whole
            minutes; 0 is never. A process that does not handle it dies of it.
        disk_resource: Resource that local disk is reserved by, in MiB; None reserves none.
    """

    warn_s: int = 0
    disk_resource: str | None = None

    name: ClassVar[str] = "lsf"
    job_id_variable: ClassVar[str] = "LSB_JOBID"
    gone: ClassVar[re.Pattern[str]] = re.compile(
        r"Job <[^>]*> is not found|No (?:matching |unfinished )?job found|already finished"
    )
    trouble: ClassVar[re.Pattern[str]] = re.compile(
        r"^(?:LSF is down|LIM is down|Failed in an? (?:LSF|LSBATCH)|Cannot connect to LSF|"
        r"ls_\w+: |lsb_\w+: |batch system daemon|mbatchd .*(?:down|busy))",
        re.MULTILINE,
    )
    variables: ClassVar[Mapping[str, str | None]] = {
        "BSUB_QUIET": None,  # with it bsub does not tell the id of the job
        "LSB_HMS_TIME_FORMAT": None,
        "LSB_BJOBS_PENDREASON_LEVEL": "1",  # the one reason that matters, in one line
    }

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:
        """See `Dialect`. `-rn`: never run again, because a pilot's name is used once.

        LSF would keep the output until the end of the job, so the script sends it to the log; LSF
        appends its report there.
        """
        extra = ["-rn", f"-o {folder_path(logs)}/%J.log"]
        placement, wide = shape.placement, shape.spread.nodes > 1
        if shape.gpus:
            model = placement.gpu_model and f":gmodel={word('gpu_model', placement.gpu_model)}"
            extra.append(f'-gpu "num={shape.gpus}{model or ""}"')
        extra += self._placed(shape)
        if self.warn_s:
            extra.append(f"-wa USR1 -wt {math.ceil(self.warn_s / MINUTE_S)}")
        nodes = node_names(avoid)
        if nodes:
            apart = " && ".join(f"hname!='{node}'" for node in nodes)
            extra.append(f'-R "select[{apart}]"')
        minutes = max(1, math.ceil(shape.walltime_s / MINUTE_S))
        return {
            **queue_option(shape.queue),
            **account_option(placement, "project"),
            "walltime": f"{minutes // 60:02d}:{minutes % 60:02d}",
            "ncpus": shape.cores * shape.spread.nodes,
            "mem": shape.memory_mb * 10**6,
            "job_directives_skip": ["#BSUB -e ", "#BSUB -o ", *(["span[hosts=1]"] if wide else [])],
            "job_extra_directives": extra,
            "job_script_prologue": [redirection(logs, "$LSB_JOBID")],
        }

    def _placed(self, shape: Shape) -> list[str]:
        """Directives for several nodes, and for what a placement states."""
        placement = shape.placement
        rows = (("-sla", "qos", placement.qos), ("-U", "reservation", placement.reservation))
        extra = [f"{option} {word(name, value)}" for option, name, value in rows if value]
        wanted = [name.replace("=", "==") for name in features(placement.constraint)]
        if wanted:
            extra.append(f'-R "select[{" && ".join(wanted)}]"')
        if placement.disk_core_mb and self.disk_resource:
            size = mebibytes(placement.disk_core_mb * shape.cores)
            extra.append(f'-R "rusage[{self.disk_resource}={size}]"')
        if shape.spread.nodes > 1:
            extra.append(f'-R "span[ptile={shape.cores}]"')
        return extra

    def log_of(self, logs: str, job_id: str) -> str:
        """See `Dialect`."""
        return f"{logs}/{job_id}.log"

    def submission(self, path: str, script: str) -> Submission:  # noqa: ARG002 - see Dialect
        """`bsub`, which reads directives from its standard input only."""
        return Submission(("bsub",), script)

    def read_submitted(self, text: str) -> str:
        """From "Job <12> is submitted to queue <short>."."""
        return submitted_id(text, re.compile(r"Job <([0-9]+)> is submitted"))

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`bjobs -a`, lately ended jobs too."""
        return ["bjobs", "-a", "-noheader", "-o", STATES_FORMAT, *job_ids]

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Rows of `STATES_FORMAT`."""
        check_answer(text, self.trouble)
        rows = {
            job_id: _news(state, host, reason) for job_id, state, host, reason in rows_of(text, 4)
        }
        return news_for(job_ids, rows)

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`bkill ID...`."""
        return ["bkill", *job_ids]

    def limit_argv(self, job_id: str) -> list[str]:
        """`bjobs -o time_left`."""
        return ["bjobs", "-noheader", "-o", "time_left", job_id]

    def read_limit(self, text: str, now: float) -> float | None:
        """The first line like "0:25 L"; "E" in place of the "L" would be an estimate, no limit."""
        found = next(
            filter(None, (_LEFT.fullmatch(line.strip()) for line in text.splitlines())), None
        )
        if found is None:
            return None
        hours, minutes = (count_of(number) or 0 for number in found.groups())
        return now + (hours * 60 + minutes) * MINUTE_S


def _news(state: str, host: str, reason: str) -> JobNews:
    known = _STATES.get(state, JobState.UNKNOWN)
    node = host.partition(":")[0].rpartition("*")[2] if host != "-" else ""
    if known is JobState.PENDING:
        words = "" if reason == "-" else reason
        return JobNews(known, words, held=state == "PSUSP")
    return JobNews(known, "" if state == "RUN" else state, node)
