"""From an Outcome to a value or an exception: what the caller of a task finally sees."""

from __future__ import annotations

from typing import Any, NoReturn

from hpcburst.errors import (
    BodyDied,
    BodyError,
    BurstError,
    Cancelled,
    EnvError,
    RequestError,
    RunError,
    WalltimeReached,
)
from hpcburst.results import Failure, Fault, Outcome, Where
from hpcburst.workers.guest import values

_KINDS: dict[Fault, type[BurstError]] = {
    Fault.DIED: BodyDied,
    Fault.OUT_OF_MEMORY: BodyDied,
    Fault.TIMEOUT: WalltimeReached,
    Fault.ARGUMENTS: RequestError,
    Fault.RESULT: RequestError,
    Fault.ENV: EnvError,
    Fault.NONZERO: RunError,
    Fault.CANCELLED: Cancelled,
}

_TODO: dict[Fault, str] = {
    Fault.DIED: "the last output may tell why",
    Fault.OUT_OF_MEMORY: "ask for more memory: @needs(memory=...)",
    Fault.TIMEOUT: "ask for more time (walltime, timeout_seconds), or make the task smaller",
    Fault.ENV: "build the env again: hpcburst env remove KEY, then hpcburst env create FILE",
}


def value_of(outcome: Outcome, name: str) -> Any:
    """The value a task's body returned.

    Args:
        outcome: How the task ended.
        name: The task's name, for the message.

    Raises:
        BaseException: What the body raised, rebuilt, with the env's traceback as a note.
        BurstError: The body did not end by itself, or its value or exception cannot be rebuilt
            here.
    """
    if outcome.failure is not None:
        raise_failure(outcome.failure, outcome.where, name)
    try:
        if outcome.stored is not None:
            return values.load_kept(outcome.stored.path)
        return values.loads(outcome.payload, outcome.buffers)
    except Exception as error:
        raise RequestError(
            f"Task {name!r} returned a value of its env",
            f"it cannot be read here ({type(error).__name__}: {error})",
            "return plain data, arrays or the path of a file",
        ) from error


def raise_failure(failure: Failure, where: Where, name: str) -> NoReturn:
    """Raise a failure as the exception its reader expects."""
    if failure.fault is Fault.RAISED:
        raise _raised(failure, where, name)
    error = _rebuilt(failure) if failure.fault is Fault.ENV else None
    if isinstance(error, EnvError):
        raise _placed(error, where)
    raise _KINDS[failure.fault](
        f"Task {name!r} did not end well: {failure.message}",
        "",
        _TODO.get(failure.fault, ""),
        job_id=where.job_id or None,
        host=where.host or None,
        log=where.log or None,
        tail=failure.traceback,
    )


def _placed(error: EnvError, where: Where) -> EnvError:
    """An error of the node's, which says by itself what to do, with the job it came from."""
    error.job_id, error.host = where.job_id or None, where.host or None
    error.log = where.log or None
    return error


def _raised(failure: Failure, where: Where, name: str) -> BaseException:
    error = _rebuilt(failure)
    if isinstance(error, Exception):
        error.add_note(
            f"In the task's env (job {where.job_id} on {where.host}):\n{failure.traceback}"
        )
        return error
    # SystemExit and its kin would end the caller, who did nothing wrong; unknown types cannot come.
    told = BodyError(
        f"Task {name!r} raised {failure.kind}: {failure.message}",
        job_id=where.job_id or None,
        host=where.host or None,
        log=where.log or None,
        tail=failure.traceback,
    )
    told.kind = failure.kind
    told.traceback = failure.traceback
    return told


def _rebuilt(failure: Failure) -> object:
    if failure.pickled is None:
        return None
    try:
        return values.loads(failure.pickled)
    except Exception:  # noqa: BLE001 - any class may refuse in any way; its text is told instead
        return None
