"""One batch job of a task's own: what it asks for, what it is told, and how it told its end."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import private_folder, write_private
from hpcburst.errors import BurstError, RequestError
from hpcburst.jobs.dialect import JobNews, JobState
from hpcburst.placement import Spread
from hpcburst.policy.decide import grant
from hpcburst.policy.model import Site
from hpcburst.policy.present import LOCAL
from hpcburst.pools.state import JobNow, Stage
from hpcburst.results import Failure, Fault, Outcome, Usage, Where
from hpcburst.tasks import START_S, Burst, Command, Needs, Shape
from hpcburst.workers.own_job import OUTCOME, TASK

TAIL_BYTES = 4000

_LOST = re.compile("NODE_FAIL|PREEMPTED|BOOT_FAIL|REVOKED|LAUNCH_FAILED")
_FAULTS = (
    (re.compile("TIMEOUT|DEADLINE|TERM_RUNLIMIT"), Fault.TIMEOUT),
    (re.compile("OUT_OF_MEMORY|OOM|TERM_MEMLIMIT"), Fault.OUT_OF_MEMORY),
)


@dataclass(slots=True, eq=False)
class OwnJob:
    """One task's batch job, from the wish for it to its end.

    Attributes:
        burst: The task.
        shape: What its job asks for.
        folder: Private folder of the job's own.
        future: Gets its Outcome, or a BurstError.
        sends: How often it was submitted.
        job_id: Id of the last job; "" before the first.
        submitted_at: When that was submitted (monotonic seconds).
        gone_since: Since when the batch system calls it over (monotonic seconds); 0.0 if it is not.
        news: What was last heard of it.
    """

    burst: Burst
    shape: Shape
    folder: Path
    future: Future[Outcome] = field(default_factory=Future)
    sends: int = 0
    job_id: str = ""
    submitted_at: float = 0.0
    gone_since: float = 0.0
    news: JobNews = field(default_factory=lambda: JobNews(JobState.PENDING))

    @property
    def is_lost(self) -> bool:
        """Whether the batch system says that it took the job away: that is nobody's mistake."""
        return _LOST.search(self.news.reason) is not None

    @property
    def has_failed(self) -> bool:
        """Whether its task ended, and badly."""
        future = self.future
        if not future.done() or future.cancelled():
            return False
        return future.exception() is not None or future.result().failure is not None

    def now(self) -> JobNow:
        """What it is doing, for others to read."""
        runs = self.news.state is JobState.RUNNING
        asked = "the batch system is asked again within a minute"
        return JobNow(
            name=self.folder.name,
            job_id=self.job_id,
            shape=self.shape,
            stage=Stage.BUSY if runs else Stage.PENDING,
            since=round(self.submitted_at + time.time() - time.monotonic(), 1),
            host=self.news.host,
            tasks=int(runs),
            why="it works" if runs else self.news.reason or "the batch system has given no reason",
            then="" if runs else asked,
        )

    def lay_out(self, heartbeat_s: float) -> None:
        """Write what it is to run where it will look; nothing of an earlier try stays.

        Args:
            heartbeat_s: How often the driver says that it is there.

        Raises:
            RequestError: It is to run a Python body.
            SiteError: The folder is not private.
        """
        command = self.burst.work
        if not isinstance(command, Command):
            raise RequestError("A Python body was to be a job of its own", "only commands can be")
        private_folder(self.folder)
        (self.folder / OUTCOME).unlink(missing_ok=True)
        task: dict[str, Any] = {
            "argv": command.argv,
            "cwd": command.cwd,
            "environ": dict(command.environ),
            "log": command.log,
            "timeout_s": self.burst.timeout_s,
            "heartbeat_s": heartbeat_s,
        }
        write_private(self.folder / TASK, json.dumps(task).encode())

    def call_off(self) -> None:
        """Take away what it is to run: a job that is queued though nobody said so ends at once."""
        with suppress(OSError):
            (self.folder / TASK).unlink()

    def read_outcome(self, log: str) -> None:
        """Set the future if the job has told how it ended."""
        try:
            told = json.loads((self.folder / OUTCOME).read_bytes())
        except FileNotFoundError:
            return
        failure = told["failure"]
        self.settle(
            Outcome(
                failure=failure and Failure(**{**failure, "fault": Fault(failure["fault"])}),
                returncode=told["returncode"],
                usage=Usage(**told["usage"]),
                where=Where(job_id=self.job_id, host=told["host"], log=log),
                sends=self.sends,
            )
        )

    def end_without_a_word(self, log: str) -> None:
        """Set the future of a job that ended and has not told how, by what is known of it."""
        reason = self.news.reason or "nothing is known of why"
        fault = next((fault for words, fault in _FAULTS if words.search(reason)), Fault.DIED)
        message = f"Its batch job ended without a word ({reason})."
        failure = Failure(fault, reason, message, tail(log))
        where = Where(job_id=self.job_id, host=self.news.host, log=log)
        self.settle(Outcome(failure=failure, where=where, sends=self.sends))

    def settle(self, outcome: Outcome) -> None:
        """Set the future, unless the caller gave up on it."""
        with suppress(InvalidStateError):
            self.future.set_result(outcome)

    def refuse(self, error: BurstError) -> None:
        """Set the future's exception, unless the caller gave up on it."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


def shape_of(needs: Needs, spread: Spread, site: Site) -> Shape:
    """What a job of its own asks for: exactly what the task needs, on each of its nodes.

    Without a number of nodes, processes go to as few as the queue's largest job allows. The local
    queue is one node.

    Args:
        needs: Cores are those of each process, memory and GPUs those of each node.
        spread: Nodes and processes.
        site: What the site allows.

    Raises:
        RequestError: No queue has such nodes.
    """
    queue = site.queue(needs.queue) or site.queues[0]
    spread = replace(spread, nodes=_nodes(needs.cores, spread, site, queue.max_cores))
    cores = needs.cores * spread.tasks_per_node
    if site.scheduler == LOCAL:
        cores = min(cores, queue.max_cores)
    granted = grant(replace(needs, cores=cores), site)
    return replace(
        granted,
        cores=cores,
        memory_mb=needs.memory_mb or _share_mb(cores, granted, site),
        gpus=needs.gpus,
        walltime_s=needs.walltime_s + START_S if needs.walltime_s else granted.walltime_s,
        spread=spread,
    )


def tail(log: str) -> str:
    """The end of a log; "" if there is none."""
    with suppress(OSError):
        return Path(log).read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    return ""


def _nodes(cores: int, spread: Spread, site: Site, most_cores: int) -> int:
    if site.scheduler == LOCAL:
        return 1
    each = max(1, most_cores // cores)
    return -(-spread.tasks // each) if spread.nodes == 1 else spread.nodes


def _share_mb(cores: int, granted: Shape, site: Site) -> int:
    """The site's usual memory for so many cores, as far as the queue goes."""
    usual, queue = site.default_shape, site.queue(granted.queue)
    share_mb = max(granted.memory_mb, usual.memory_mb * cores // usual.cores)
    return min(share_mb, queue.max_memory_mb) if queue else share_mb
