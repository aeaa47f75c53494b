"""The only door through which scheduler commands are run (dask-jobqueue's own submit aside).

Every command is bounded in time, reads nothing it is not given, and speaks plain English.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hpcburst.errors import SiteError, SubmitError
from hpcburst.jobs.dialect import Dialect, Gap, JobNews, Submission

COMMAND_TIMEOUT_S = 60.0
"""A scheduler command that has not answered by now will not; the next look comes soon enough."""


async def submit(
    dialect: Dialect, path: str, script: str, without: re.Pattern[str] | None = None
) -> str:
    """Submit the script `script`, the text of the file `path`; returns the job id.

    Args:
        dialect: How the batch system is spoken to.
        path: The script's file.
        script: Its text.
        without: Names of environment variables that the job must not inherit from us.

    Raises:
        SubmitError: The batch system refused it, or told no id.
        SiteError: The command is missing or did not answer in time: the job may be queued or not.
    """
    submission = dialect.submission(path, script)
    # Jobs inherit the environment of the submit command: it is not ours to add to.
    unset = {name: value for name, value in dialect.variables.items() if value is None}
    if without is not None:
        unset |= dict.fromkeys(filter(without.fullmatch, os.environ))
    told = await _run(submission, unset)
    if told.status:
        raise SubmitError(
            "A job was submitted", "the batch system refused it", tail=told.err or told.out
        )
    return dialect.read_submitted(told.out)


async def news(dialect: Dialect, job_ids: Sequence[str]) -> dict[str, JobNews]:
    """News of all these jobs, by one command.

    Raises:
        SiteError: The command is missing, failed or did not answer in time.
    """
    if not job_ids:
        return {}
    return dialect.read_states(await _answer(dialect, dialect.states_argv(job_ids)), job_ids)


async def cancel(dialect: Dialect, job_ids: Sequence[str]) -> None:
    """End all these jobs by one command; those that are gone already do not matter.

    Raises:
        SiteError: The command is missing, failed or did not answer in time.
    """
    if job_ids:
        await _answer(dialect, dialect.cancel_argv(job_ids))


async def gaps(dialect: Dialect, queues: Sequence[str]) -> list[Gap]:
    """The gaps in these queues; none where the batch system does not tell.

    Raises:
        SiteError: A command is missing, failed or did not answer in time.
    """
    texts = [await _answer(dialect, argv) for argv in dialect.gaps_argv(queues)]
    return dialect.read_gaps(texts, time.time()) if texts else []


async def limit(dialect: Dialect, job_id: str) -> float | None:
    """When a running job will be ended, in seconds since the epoch; None where nobody tells.

    Raises:
        SiteError: The command is missing, failed or did not answer in time.
    """
    argv = dialect.limit_argv(job_id)
    return dialect.read_limit(await _answer(dialect, argv), time.time()) if argv else None


@dataclass(frozen=True, slots=True)
class _Told:
    status: int
    out: str
    err: str


async def _answer(dialect: Dialect, argv: list[str]) -> str:
    """What a command printed, if it succeeded or failed only for jobs that are gone."""
    told = await _run(Submission(tuple(argv)), {"LC_ALL": "C", **dialect.variables})
    both = f"{told.out}\n{told.err}"
    only_gone = dialect.gone.search(both) and not dialect.trouble.search(both)
    if told.status and not only_gone:
        raise SiteError(
            f"The command {argv[0]} was run",
            f"it ended with status {told.status}",
            tail=told.err or told.out,
        )
    return told.out


async def _run(command: Submission, variables: Mapping[str, str | None]) -> _Told:
    name = command.argv[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL if command.stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(variables),
            start_new_session=True,  # some commands are scripts: they end with what they started
        )
    except OSError as error:
        raise SiteError(f"The command {name} was run", f"it cannot start: {error}") from error
    given = None if command.stdin is None else command.stdin.encode()
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            out, err = await process.communicate(given)
    except TimeoutError as error:
        raise SiteError(
            f"The command {name} was run", f"no answer within {COMMAND_TIMEOUT_S:g} s"
        ) from error
    finally:
        if process.returncode is None:  # late, or we were cancelled: nobody waits for it any more
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return _Told(
        process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
    )


def environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with some variables changed; None takes one away."""
    changed = {**os.environ, **variables}
    return {name: value for name, value in changed.items() if value is not None}
