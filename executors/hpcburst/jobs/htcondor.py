"""The dialect of HTCondor (8.6 and later). Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcburst.errors import RequestError
from hpcburst.jobs.dialect import JobNews, JobState, Submission, Terse
from hpcburst.jobs.directives import folder_path, node_names
from hpcburst.jobs.placing import features, refuse, word
from hpcburst.jobs.readings import check_answer, news_for, number_of, submitted_id
from hpcburst.placement import Placement
from hpcburst.tasks import Shape

STATES_FORMAT = ("ClusterId", "JobStatus", "RemoteHost", "HoldReason")

_STATES = {
    "1": JobState.PENDING,  # idle
    "2": JobState.RUNNING,
    "3": JobState.ENDED,  # removed
    "4": JobState.ENDED,  # completed
    "5": JobState.PENDING,  # held
    "6": JobState.RUNNING,  # transferring output
    "7": JobState.RUNNING,  # suspended
}
_WORDS = {"5": "held", "6": "transferring output", "7": "suspended"}


@dataclass(frozen=True, slots=True)
class HtcondorDialect(Terse):
    """Speaks to HTCondor, which has no queues and no walltimes.

    Attributes:
        disk: Disk to ask for when the user's section states none; dask-jobqueue insists on some.
    """

    disk: str = "1GB"

    name: ClassVar[str] = "htcondor"
    job_id_variable: ClassVar[str] = ""
    gone: ClassVar[re.Pattern[str]] = re.compile(
        r"Couldn't find/remove|Job [0-9.]+ not found|already (?:marked for removal|removed)"
    )
    trouble: ClassVar[re.Pattern[str]] = re.compile(
        r"^(?:-- Failed to fetch ads|Error: |ERROR: |Failed to connect|Can't find address|CEDAR:)",
        re.MULTILINE,
    )

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:
        """See `Dialect`. The shape's queue means nothing here.

        A job is removed when its walltime is over, and when it was put out of its node and waits
        again: HTCondor would start it anew, and a pilot's name is used once.
        """
        walltime_s = max(1, math.ceil(shape.walltime_s))
        log = f"{folder_path(logs)}/$(ClusterId).log"
        extra = {
            "output": log,
            "error": log,
            "stream_output": "True",
            "stream_error": "True",
            "periodic_remove": (
                "(JobStatus == 1 && NumJobStarts > 0) || "
                f"(JobStatus == 2 && time() - EnteredCurrentStatus > {walltime_s})"
            ),
        }
        if shape.gpus:
            extra["request_gpus"] = str(shape.gpus)
        if shape.spread.nodes > 1:
            raise RequestError(
                f"A job on {shape.spread.nodes} nodes was asked for",
                "HTCondor jobs of hpcburst have one node",
                "ask for nodes=1 and fewer tasks",
            )
        placement = shape.placement
        refuse(placement, ("qos", "reservation", "gpu_model"), "HTCondor")
        if placement.account:
            extra["accounting_group"] = word("account", placement.account)
        if placement.disk_core_mb:
            extra["RequestDisk"] = str(
                -(-placement.disk_core_mb * shape.cores * 10**6 // 1024)
            )  # KiB
        wanted = [f'TARGET.Machine =!= "{node}"' for node in node_names(avoid)]
        wanted += _conditions(placement)
        if wanted:
            extra["requirements"] = " && ".join(wanted)
        return {"disk": self.disk, "job_extra_directives": extra}

    def log_of(self, logs: str, job_id: str) -> str:
        """See `Dialect`."""
        return f"{logs}/{number_of(job_id)}.log"

    def submission(self, path: str, script: str) -> Submission:  # noqa: ARG002 - see Dialect
        """`condor_submit PATH`."""
        return Submission(("condor_submit", path))

    def read_submitted(self, text: str) -> str:
        """From "1 job(s) submitted to cluster 12."."""
        return submitted_id(text, re.compile(r"submitted to cluster ([0-9]+)")) + ".0"

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`condor_q ID... -af:t ...`."""
        return ["condor_q", *job_ids, "-af:t", *STATES_FORMAT]

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Lines of `STATES_FORMAT` with tabs between them."""
        check_answer(text, self.trouble)
        lines = (line.split("\t", 3) for line in text.splitlines())
        rows = {row[0].strip(): _news(*row[1:]) for row in lines if len(row) == 4}
        return news_for(job_ids, rows)

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`condor_rm ID...`."""
        return ["condor_rm", *job_ids]


def _conditions(placement: Placement) -> list[str]:
    """Features as attributes of the machine: true, or equal to a text."""
    pairs = [name.partition("=") for name in features(placement.constraint)]
    return [
        f'TARGET.{name} =?= "{value}"' if joined else f"TARGET.{name} =?= True"
        for name, joined, value in pairs
    ]


def _news(status: str, remote_host: str, hold_reason: str) -> JobNews:
    state = _STATES.get(status.strip(), JobState.UNKNOWN)
    host = remote_host.strip().rpartition("@")[2]
    if status == "5":
        return JobNews(state, f"held: {hold_reason.strip()}", held=True)
    words = _WORDS.get(status, "" if state is not JobState.UNKNOWN else f"status {status!r}")
    return JobNews(state, words, "" if host == "undefined" else host)
