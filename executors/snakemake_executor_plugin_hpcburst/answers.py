"""What a user reads when a job fails: whose fault, where it ran, what it said last."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcburst.errors import BurstError, RunError
from hpcburst.results import Failure, Fault, Outcome
from snakemake_executor_plugin_hpcburst import endings
from snakemake_executor_plugin_hpcburst.logs import last_lines

_TODO = {
    Fault.OUT_OF_MEMORY: "Give the rule more mem_mb, for instance attempt * 4000 with --retries",
    Fault.TIMEOUT: "Give the rule more runtime (minutes), for instance attempt * 30 with --retries",
    Fault.DIED: "The log may say more",
}

_KILLED = "Its command was killed outright (SIGKILL)"
_MAYBE_MEMORY = "If it needs more memory than it asked for, give the rule more mem_mb"
"""Where the system does not count what it kills for memory, this is all there is to say."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a job failed.

    Attributes:
        text: The whole answer; ends with a line end, because Snakemake appends to it.
        job_id: Id of the batch job it ran in; None if it never ran.
        logs: Logs that tell more.
    """

    text: str
    job_id: str | None = None
    logs: tuple[str, ...] = ()


def of_future(
    job: Any, future: Future[Outcome], log: Path, *, nested: bool = True
) -> Answer | None:
    """Why a job failed whose future is done; None if it ended well.

    Args:
        job: Snakemake's job.
        future: What became of it.
        log: Its log.
        nested: Whether a nested Snakemake ran it, and wrote the log.
    """
    try:
        outcome = future.result()
    except BurstError as error:
        return refusal(error, log)
    except CancelledError:
        return Answer("The job was withdrawn.\n", logs=_existing(log))
    return None if outcome.ok else _failure(job, outcome, log, nested=nested)


def refusal(error: Exception, log: Path | None = None) -> Answer:
    """The answer to a job that did not come to run."""
    job_id = error.job_id if isinstance(error, BurstError) else None
    return Answer(f"{error}\n", job_id, _existing(log) if log else ())


def label(job: Any) -> str:
    """What tells one attempt of a job from all others of its rule."""
    wildcards = "" if job.is_group() else ",".join(f"{k}={v}" for k, v in _wildcards(job))
    return f"job{job.jobid}-attempt{job.attempt}" + (f"-{wildcards}" if wildcards else "")


def _wildcards(job: Any) -> list[tuple[str, Any]]:
    return list((getattr(job, "wildcards_dict", None) or {}).items())


def _failure(job: Any, outcome: Outcome, log: Path, *, nested: bool) -> Answer:
    failure, where = outcome.failure, outcome.where
    assert failure is not None  # noqa: S101 - the caller asked `ok`
    tail = last_lines(log) or "\n".join(line.text for line in outcome.lines)
    error = RunError(
        f"{'Group' if job.is_group() else 'Rule'} {job.name} ran on {where.pilot or 'a pilot'}",
        *_reason(failure, outcome.returncode, log if nested else None),
        job_id=where.job_id or None,
        host=where.host or None,
        log=str(log),
        tail=tail,
    )
    return Answer(f"{error}\n", error.job_id, _existing(log))


def _reason(failure: Failure, returncode: int | None, nested_log: Path | None) -> tuple[str, str]:
    """What is told of a failure and what to do about it, the same in every mode."""
    if failure.fault not in (Fault.NONZERO, Fault.DIED):
        return failure.message, _TODO.get(failure.fault, "")
    said = endings.end_of(str(nested_log)) if nested_log else ""
    told = endings.command_status(said)
    if told is None and endings.lacks_outputs(said):
        return "Its command ended well, and outputs are missing", ""
    status = returncode if told is None else told
    if endings.was_killed(status):
        return _KILLED, _MAYBE_MEMORY
    if failure.fault is Fault.NONZERO and status is not None and status > 0:
        return f"It ended with status {status}.", ""
    return failure.message, _TODO.get(failure.fault, "")


def _existing(log: Path) -> tuple[str, ...]:
    return (str(log),) if log.exists() else ()
