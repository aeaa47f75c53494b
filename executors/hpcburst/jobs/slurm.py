"""The dialect of Slurm (20.02 and later; read against 22.05). Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcburst.jobs.dialect import Gap, JobNews, JobState, Submission, Terse
from hpcburst.jobs.directives import (
    JOB_NAME,
    clock,
    folder_path,
    mebibytes,
    node_names,
    queue_name,
    queue_option,
)
from hpcburst.jobs.hostlists import nodes_of
from hpcburst.jobs.placing import account_option, expression, word
from hpcburst.jobs.readings import check_answer, count_of, news_for, rows_of, submitted_id
from hpcburst.placement import ONE_NODE, Placement, Spread
from hpcburst.tasks import Shape

MINUTE_S = 60
"""Slurm keeps time limits in whole minutes."""

STATES_FORMAT = "%i|%T|%B|%r"
"""Id, state, node, reason: the reason last, it has blanks and commas in it."""

PLAN_FORMAT = "%S|%Y"
"""Planned start and nodes of a waiting job, from the last pass of the backfill scheduler."""

NODES_FORMAT = "NodeList:64,Partition:64,StateCompact:16,CPUsState:32,Memory:16,AllocMem:16"

_PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "POWER_UP_NODE"}
_HELD = {"SPECIAL_EXIT", "REQUEUE_HOLD", "RESV_DEL_HOLD"}
_RUNNING = {"RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"}
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "COMPLETING", "DEADLINE", "EXPEDITING_END", "FAILED"),
    *("LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED"),
    *("STAGE_OUT", "TIMEOUT"),
}
_HELD_REASONS = re.compile(  # no time and no other job's end makes these go away
    r"JobHeld\w+|launch failed requeued held|DependencyNeverSatisfied|BadConstraints|"
    r"Partition(?:Config|NodeLimit|TimeLimit)|\w+PerJob\w*|Invalid(?:Account|QOS)|"
    r"(?:Account|QOS)NotAllowed"
)
_SKIPPED = ("#SBATCH -e ", "#SBATCH -o ")
_STARTS_NOW = re.compile(r"(?:idle|mix|mixed|plnd|planned)-?")


@dataclass(frozen=True, slots=True)
class SlurmDialect(Terse):
    """Speaks to Slurm.

    Attributes:
        warn_s: Seconds before the end of its walltime at which a job is sent SIGUSR1 (by Slurm's
            clock up to a minute earlier); 0 is never. A process that does not handle it dies of it.
        disk_resource: "tmp" where nodes state their local disk (`TmpDisk`), which jobs then ask for
            by `--tmp`; None asks for none, as Slurm refuses it where they do not.
    """

    warn_s: int = 0
    disk_resource: str | None = None

    name: ClassVar[str] = "slurm"
    job_id_variable: ClassVar[str] = "SLURM_JOB_ID"
    gone: ClassVar[re.Pattern[str]] = re.compile(
        "Invalid job id specified|Job/step already completing or completed"
    )
    trouble: ClassVar[re.Pattern[str]] = re.compile(
        r"^(?:slurm_load_\w+ error|(?:squeue|sinfo|scancel|sbatch|slurm): (?:error|fatal))"
        r"(?!.*(?:Invalid job id|already completing))",
        re.MULTILINE,
    )
    variables: ClassVar[Mapping[str, str | None]] = {
        "SLURM_TIME_FORMAT": "%s",
        # A user's preferences for these commands count more than what a job script says, and
        # would hide jobs from us.
        **dict.fromkeys(
            (
                *("SBATCH_ARRAY_INX", "SBATCH_ERROR", "SBATCH_EXCLUSIVE", "SBATCH_GPUS"),
                *("SBATCH_GPUS_PER_NODE", "SBATCH_GPUS_PER_TASK", "SBATCH_GRES", "SBATCH_JOB_NAME"),
                *("SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU", "SBATCH_MEM_PER_NODE"),
                *("SBATCH_OUTPUT", "SBATCH_PARTITION", "SBATCH_REQUEUE", "SBATCH_SIGNAL"),
                *("SBATCH_TIMELIMIT", "SBATCH_WAIT", "SQUEUE_ACCOUNT", "SQUEUE_LICENSES"),
                *("SQUEUE_NAMES", "SQUEUE_PARTITION", "SQUEUE_QOS", "SQUEUE_STATES"),
                *("SQUEUE_USERS", "SINFO_PARTITION"),
            )
        ),
    }

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:
        """See `Dialect`. A node in `avoid` that Slurm does not know would make it refuse the job.

        `--no-requeue`, because a pilot's name is used once.
        """
        extra = ["--no-requeue", f"-o {folder_path(logs)}/%j.log", *_spread(shape.spread)]
        placement = shape.placement
        if shape.gpus:
            model = f"{word('gpu_model', placement.gpu_model)}:" if placement.gpu_model else ""
            extra.append(f"--gres=gpu:{model}{shape.gpus}")
        extra += _placed(placement)
        if placement.disk_core_mb and self.disk_resource:
            extra.append(f"--tmp={mebibytes(placement.disk_core_mb * shape.cores)}M")
        if self.warn_s:
            extra.append(f"--signal=B:USR1@{self.warn_s}")
        nodes = node_names(avoid)
        if nodes:
            extra.append(f"--exclude={','.join(nodes)}")
        return {
            **queue_option(shape.queue),
            **account_option(placement, "account"),
            "walltime": clock(shape.walltime_s, step_s=MINUTE_S),
            "job_cpu": max(1, shape.cores // shape.spread.tasks_per_node),
            "job_mem": f"{mebibytes(shape.memory_mb)}M",
            "job_directives_skip": [
                *_SKIPPED,
                *(["#SBATCH -n 1"] if shape.spread != ONE_NODE else []),
            ],
            "job_extra_directives": extra,
        }

    def log_of(self, logs: str, job_id: str) -> str:
        """See `Dialect`."""
        return f"{logs}/{job_id}.log"

    def submission(self, path: str, script: str) -> Submission:  # noqa: ARG002 - see Dialect
        """`sbatch PATH`."""
        return Submission(("sbatch", path))

    def read_submitted(self, text: str) -> str:
        """From "Submitted batch job 12"."""
        return submitted_id(text, re.compile(r"Submitted batch job ([0-9]+)"))

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:  # noqa: ARG002 - see below
        """Our jobs by user and name: asked by id, squeue fails when it has forgotten the one."""
        return ["squeue", "-h", "--me", "-n", JOB_NAME, "-t", "all", "-o", STATES_FORMAT]

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Rows of `STATES_FORMAT`."""
        check_answer(text, self.trouble)
        rows = {
            job_id: _news(state, host, reason) for job_id, state, host, reason in rows_of(text, 4)
        }
        return news_for(job_ids, rows)

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """`scancel ID...`."""
        return ["scancel", *job_ids]

    def gaps_argv(self, queues: Sequence[str]) -> list[list[str]]:
        """The nodes of these partitions, and the plan for the waiting jobs of all partitions."""
        partitions = ",".join(map(queue_name, queues))
        return [
            ["sinfo", "-h", "-N", "-p", partitions, "-O", NODES_FORMAT],
            ["squeue", "-h", "-t", "PD", "--start", "-o", PLAN_FORMAT],
        ]

    def read_gaps(self, texts: Sequence[str], now: float) -> list[Gap]:
        """A gap on a node lasts until the first waiting job that is planned on it starts.

        What others run ends later than now, so it bounds nothing. Sites may hide other users'
        jobs, and only jobs the backfill scheduler looked at have a plan: a gap may be shorter.
        """
        nodes, plan = texts
        for text in texts:
            check_answer(text, self.trouble)
        starts = _first_starts(plan)
        gaps = [
            _gap(line.split(), starts, now) for line in nodes.splitlines() if line.count(" ") >= 5
        ]
        return [gap for gap in gaps if gap is not None]

    def limit_argv(self, job_id: str) -> list[str]:
        """`squeue -h -j ID -o %e`."""
        return ["squeue", "-h", "-j", job_id, "-o", "%e"]

    def read_limit(self, text: str, now: float) -> float | None:  # noqa: ARG002 - see Dialect
        """The first line that is a time, which `variables` makes seconds since the epoch."""
        times = (count_of(line.strip()) for line in text.splitlines())
        return next((float(time) for time in times if time), None)


def _placed(placement: Placement) -> list[str]:
    """The directives for what a placement states."""
    extra = [
        f"--{name}={word(name, value)}"
        for name, value in (("qos", placement.qos), ("reservation", placement.reservation))
        if value
    ]
    if placement.constraint:
        extra.append(f"--constraint={expression(placement.constraint)}")
    return extra


def _spread(spread: Spread) -> list[str]:
    """The directives for more than one process; dask-jobqueue's own is for one."""
    if spread == ONE_NODE:
        return []
    each = spread.tasks_per_node
    return [f"--nodes={spread.nodes}", f"--ntasks={spread.tasks}", f"--ntasks-per-node={each}"]


def _news(state: str, host: str, reason: str) -> JobNews:
    why = "" if reason == "None" else reason
    node = "" if host in ("n/a", "(null)") else host
    if state in _PENDING | _HELD:
        held = state in _HELD or _HELD_REASONS.match(why) is not None
        words = why if state == "PENDING" else f"{state} {why}".rstrip()
        return JobNews(JobState.PENDING, words, held=held)
    if state in _RUNNING:
        return JobNews(JobState.RUNNING, "" if state == "RUNNING" else state, node)
    words = f"{state} {why}".rstrip()
    return JobNews(JobState.ENDED if state in _ENDED else JobState.UNKNOWN, words, node)


def _first_starts(plan: str) -> dict[str, float]:
    """When the first planned job starts, by node."""
    starts: dict[str, float] = {}
    for text, nodes in rows_of(plan, 2):
        start = count_of(text)
        if start is not None and nodes != "(null)":
            for node in nodes_of(nodes):
                starts[node] = min(start, starts.get(node, math.inf))
    return starts


def _gap(fields: Sequence[str], starts: Mapping[str, float], now: float) -> Gap | None:
    """The gap on one node, if there is one; `fields` are those of `NODES_FORMAT`."""
    if len(fields) != 6 or not _STARTS_NOW.fullmatch(fields[2]):
        return None
    node, partition, _, cpus, *memory = fields
    idle = count_of(cpus.split("/")[1]) if cpus.count("/") == 3 else None
    total_mib, used_mib = map(count_of, memory)
    length_s = starts.get(node, math.inf) - now
    if not idle or total_mib is None or used_mib is None or length_s <= 0:
        return None
    free_mb = (total_mib - used_mib) * 2**20 // 10**6
    return Gap(partition.rstrip("*"), idle, free_mb, length_s) if free_mb > 0 else None
