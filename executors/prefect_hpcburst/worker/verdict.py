"""What follows from what Prefect and the batch system say of a flow run and its job. Pure.

Prefect's own process in the job reports how the flow ended. What it cannot report is decided here:
a run that nobody wants any more while its job waits, and a job that ends before its flow run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

ENDED_LOOKS = 2
"""Looks that must find a job ended before its run is judged: while a batch system ends a job, the
processes in it may still report to Prefect."""

UNKNOWN_LOOKS = 3
"""Looks that must not find a job at all: a scheduler that was just restarted knows less for a
while, and a job that was just submitted is not listed at once everywhere."""

WALLTIME_SLACK_S = 10.0
"""A job that lasted so much less than its walltime was still ended by it: clocks start apart."""

_STILL_ENDING = re.compile(r"COMPLETING|EXITING", re.IGNORECASE)
_BY_ITSELF = re.compile(r"COMPLET|EXIT|FAILED|DONE|\bF\b", re.IGNORECASE)

_OVER = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class Wish(StrEnum):
    """What is to become of a job whose flow run is in some state."""

    KEEP = "keep"
    FORGET = "forget"  # all is told: the job ends by itself
    WITHDRAW = "withdraw"  # the job is to go; the run's state is right as it is
    CANCEL = "cancel"  # the job is to go, and the run is cancelled by that


@dataclass(frozen=True, slots=True)
class RunNews:
    """What Prefect says of a flow run.

    Attributes:
        state: Type of its state in capitals; "" when there is no such run any more.
        message: Message of that state.
        leaves: Whether the state (paused) means that the process ends and comes back later.
        starts: How often it has begun to run.
        lease: Id of the concurrency slot its deployment holds for it; "" if there is none.
    """

    state: str
    message: str = ""
    leaves: bool = False
    starts: int = 0
    lease: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended.

    Attributes:
        job_id: The job.
        host: The node it ran on; "" if nobody told.
        reason: The batch system's own words; "" if it has none.
        lasted_s: Seconds from its start until it was seen ended; None when it never began.
        walltime_s: Seconds it was allowed.
        log: Path of its log.
        tail: The last lines of its log.
    """

    job_id: str
    host: str = ""
    reason: str = ""
    lasted_s: float | None = None
    walltime_s: float = 0.0
    log: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state a flow run gets because its job has ended.

    Attributes:
        state: "crashed", "cancelled", "reschedule", or "" when nothing is to be said.
        message: Why.
        force: Whether it takes the place of a final state that says less.
    """

    state: str = ""
    message: str = ""
    force: bool = False


def wish(run: RunNews, *, begun: bool) -> Wish:
    """What is to become of a job that has not ended.

    Args:
        run: What Prefect says of its flow run.
        begun: Whether the job has taken its ticket, which is where the flow run begins.
    """
    if not run.state:
        return Wish.WITHDRAW
    if run.state == "CANCELLING":
        return Wish.KEEP if begun else Wish.CANCEL  # Prefect's process in the job sees to it
    if run.state == "CRASHED":
        return Wish.KEEP if begun else Wish.WITHDRAW  # the batch system may know why
    if run.state in _OVER or run.state == "SCHEDULED":
        return Wish.FORGET if begun else Wish.WITHDRAW
    return Wish.KEEP


def is_over(ended_looks: int, unknown_looks: int, reason: str) -> bool:
    """Whether a job has ended for certain, after so many looks in a row that said so."""
    if _STILL_ENDING.match(reason):
        return False
    return ended_looks >= ENDED_LOOKS or unknown_looks >= UNKNOWN_LOOKS


def judge(run: RunNews, end: End, *, reschedules: bool, max_jobs: int) -> Verdict:
    """The state that a flow run gets because its job has ended.

    Args:
        run: What Prefect says of it after that.
        end: How the job ended.
        reschedules: Whether a job that ends early is followed by another one.
        max_jobs: Jobs that one flow run may have in all.
    """
    early = _early(end)
    comes_back = reschedules and run.starts < max_jobs
    if run.state == "CANCELLING":
        return Verdict("cancelled", f"Job {end.job_id} has ended.", force=True)
    if run.state == "PENDING":
        return Verdict("crashed", _unbegun(end))
    if not _is_lost(run, end):
        return Verdict()
    if comes_back:
        return Verdict("reschedule", early)
    if run.state == "CRASHED":
        return Verdict("crashed", f"{early} Prefect said: {run.message}", force=True)
    spent = f" It was job {run.starts} of {max_jobs} at most." if reschedules else ""
    return Verdict("crashed", f"{early}{spent}{_tail(end)}")


def _is_lost(run: RunNews, end: End) -> bool:
    """Whether the run was cut short by the end of its job."""
    if run.state == "CRASHED":  # by the signal that ended the job, or by itself
        return _was_ended(end)
    return run.state == "RUNNING" or (run.state == "PAUSED" and not run.leaves)


def _was_ended(end: End) -> bool:
    """Whether the job did not end by itself."""
    if _walltime_over(end):
        return True
    return bool(end.reason) and not _BY_ITSELF.match(end.reason)


def _walltime_over(end: End) -> bool:
    return end.lasted_s is not None and end.lasted_s >= end.walltime_s - WALLTIME_SLACK_S


def _early(end: End) -> str:
    return f"{_named(end)} ended before its flow run did: {_why(end)}."


def _unbegun(end: End) -> str:
    begun = "its flow run began" if end.lasted_s is None else "its flow run reported to Prefect"
    return f"{_named(end)} ended before {begun}: {_why(end)}.{_tail(end)}"


def _named(end: End) -> str:
    return f"Job {end.job_id} on {end.host}" if end.host else f"Job {end.job_id}"


def _why(end: End) -> str:
    told = f" ({end.reason})" if end.reason else ""
    if _walltime_over(end):
        return f"its walltime of {_span(end.walltime_s)} was over{told}"
    if end.reason:
        return f"the batch system says {end.reason}"
    return "it died, or somebody ended it"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def _tail(end: End) -> str:
    lines = f"\n--- last output ---\n{end.tail}" if end.tail else ""
    return f" [log {end.log}]{lines}" if end.log else lines
