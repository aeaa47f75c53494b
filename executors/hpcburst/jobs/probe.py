"""The only door through which scheduler commands are run (dask-jobqueue's own submit aside)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hpcburst.errors import SiteError
from hpcburst.jobs.dialect import Dialect, JobState

COMMAND_TIMEOUT_S = 60.0
"""A scheduler command that has not answered by now will not; the next look comes soon enough."""


async def states(dialect: Dialect, job_ids: Sequence[str]) -> dict[str, JobState]:
    """The states of all these jobs, by one command.

    Raises:
        SiteError: The command is missing, failed or did not answer in time.
    """
    if not job_ids:
        return {}
    return dialect.read_states(await _output(dialect.states_argv(job_ids)), job_ids)


async def cancel(dialect: Dialect, job_ids: Sequence[str]) -> None:
    """End all these jobs by one command.

    Raises:
        SiteError: The command is missing, failed or did not answer in time.
    """
    if job_ids:
        await _output(dialect.cancel_argv(job_ids))


async def _output(argv: list[str]) -> str:
    name = argv[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SiteError(f"The command {name} was run", f"it cannot start: {error}") from error
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise SiteError(
            f"The command {name} was run", f"no answer within {COMMAND_TIMEOUT_S:g} s"
        ) from error
    if process.returncode:
        raise SiteError(
            f"The command {name} was run",
            f"it ended with status {process.returncode}",
            tail=err.decode(errors="replace"),
        )
    return out.decode(errors="replace")
