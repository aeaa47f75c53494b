"""The dialect of Grid Engine (Sun, Univa, Altair, Son of; read against 8.1.9). Pure."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcburst.jobs.dialect import JobNews, JobState, Submission, Terse
from hpcburst.jobs.directives import folder_path, mebibytes, node_names, queue_option
from hpcburst.jobs.placing import account_option, features, refuse, word
from hpcburst.jobs.readings import check_answer, news_for, submitted_id
from hpcburst.tasks import Shape

_JOB = re.compile(r"<job_list\b[^>]*>(.*?)</job_list>", re.DOTALL)
_FIELD = re.compile(r"<(\w+)>([^<]*)</\1>")

_LETTERS = set("acdDEhNoPqrRsStTwxz")
_STATES = (  # the first that has a letter of the job's
    (set("dz"), JobState.ENDED, ""),
    (set("E"), JobState.PENDING, ": an attempt to start it failed"),
    (set("sST"), JobState.RUNNING, ": suspended"),
    (set("rt"), JobState.RUNNING, ""),
    (set("qwh"), JobState.PENDING, ""),
)


@dataclass(frozen=True, slots=True)
class SgeDialect(Terse):
    """Speaks to Grid Engine.

    Attributes:
        parallel_environment: Where several cores of one node are asked for (`qconf -spl`; its
            allocation rule must be `$pe_slots`).
        memory_resource: Resource that memory is asked by, for each slot (`qconf -sc`: the one that
            is consumable); None asks for none, as what it means differs from site to site.
        gpu_resource: Resource that GPUs are asked by.
        mpi_environment: Parallel environment of jobs on several nodes; its allocation rule decides
            how many slots each of them gives.
        disk_resource: Resource that local disk is asked by, for each slot; None asks for none.
    """

    parallel_environment: str = "smp"
    memory_resource: str | None = None
    gpu_resource: str = "gpu"
    mpi_environment: str = "mpi"
    disk_resource: str | None = None

    name: ClassVar[str] = "sge"
    job_id_variable: ClassVar[str] = "JOB_ID"
    gone: ClassVar[re.Pattern[str]] = re.compile(
        r"denied: job .* does not exist|Following jobs do not exist|already in deletion"
    )
    trouble: ClassVar[re.Pattern[str]] = re.compile(
        r"^(?:error: |critical error: )?(?:commlib error|unable to (?:contact|send)|"
        r"can't (?:connect|get configuration)|failed receiving|got (?:read|send) error)",
        re.MULTILINE,
    )

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:
        """See `Dialect`.

        `-S`: else the queue's own shell runs the script, which may be a csh. `-w e`: a job that no
        queue can ever take is refused at once and does not wait for ever. No `s_rt`: with it Grid
        Engine ends a job a minute and a half late.
        """
        extra = ["-S /bin/bash", "-r n", "-w e", f"-o {folder_path(logs)}/$JOB_ID.log"]
        slots, wide = shape.cores * shape.spread.nodes, shape.spread.nodes > 1
        if slots > 1:
            environment = self.mpi_environment if wide else self.parallel_environment
            extra.append(f"-pe {environment} {slots}")
        if self.memory_resource:
            # Resources are counted for each slot.
            slot_mib = mebibytes(shape.memory_mb / shape.cores)
            extra.append(f"-l {self.memory_resource}={slot_mib}M")
        if shape.gpus:
            extra.append(f"-l {self.gpu_resource}={shape.gpus}")
        extra += self._placed(shape)
        nodes = node_names(avoid)
        if nodes:
            extra.append(f"-l h=!({'|'.join(nodes)})")
        return {
            **queue_option(shape.queue),
            **account_option(shape.placement, "project"),
            "walltime": str(max(1, math.ceil(shape.walltime_s))),
            "job_directives_skip": ["#$ -e ", "#$ -o "],
            "job_extra_directives": extra,
        }

    def _placed(self, shape: Shape) -> list[str]:
        """Directives for what a placement states; resources are counted for each slot."""
        placement = shape.placement
        refuse(placement, ("qos", "gpu_model"), "Grid Engine")
        extra = [f"-l {name}" for name in features(placement.constraint)]
        if placement.reservation:
            extra.append(f"-ar {word('reservation', placement.reservation)}")
        if placement.disk_core_mb and self.disk_resource:
            extra.append(f"-l {self.disk_resource}={mebibytes(placement.disk_core_mb)}M")
        return extra

    def log_of(self, logs: str, job_id: str) -> str:
        """See `Dialect`."""
        return f"{logs}/{job_id}.log"

    def submission(self, path: str, script: str) -> Submission:  # noqa: ARG002 - see Dialect
        """`qsub PATH`."""
        return Submission(("qsub", path))

    def read_submitted(self, text: str) -> str:
        """From 'Your job 12 ("hpcburst") has been submitted'."""
        return submitted_id(text, re.compile(r"Your job ([0-9]+)"))

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:  # noqa: ARG002 - see below
        """All jobs of ours, lately ended ones too: asked by id, qstat tells nothing of states."""
        # "$user" is qstat's own word for who asks, and undoes a `-u` in a user's ~/.sge_qstat.
        return ["qstat", "-xml", "-u", "$user", "-s", "prsz"]

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Elements `job_list`, one by one: an answer that breaks off is read as far as it goes."""
        check_answer(text, self.trouble)
        rows = {}
        for element in _JOB.findall(text):
            fields = {name: html.unescape(value) for name, value in _FIELD.findall(element)}
            rows[fields.get("JB_job_number", "")] = _news(fields)
        return news_for(job_ids, rows)

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`qdel ID...`."""
        return ["qdel", *job_ids]


def _news(fields: Mapping[str, str]) -> JobNews:
    """State letters add up: "dr" runs and is being deleted, "hqw" waits and is held."""
    letters = fields.get("state", "")
    host = fields.get("queue_name", "").rpartition("@")[2]
    if set(letters) <= _LETTERS:
        for telling, state, words in _STATES:
            if telling & set(letters):
                held = state is JobState.PENDING and bool(set(letters) & set("Eh"))
                plain = letters in ("r", "qw")
                return JobNews(state, "" if plain else f"{letters}{words}", host, held)
    return JobNews(JobState.UNKNOWN, f"state {letters!r}")
