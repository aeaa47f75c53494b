"""The fleet: jobs with a pilot in each. The only door to dask-jobqueue.

dask-jobqueue writes the jobs' scripts and submits them; names, numbers and ends of jobs are the
keeper's.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hpcburst.comms.staging import RunFolder, write_private
from hpcburst.errors import SubmitError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect, JobState
from hpcburst.policy.model import Site
from hpcburst.pools.line import Line
from hpcburst.pools.pilots import Pilot
from hpcburst.tasks import Shape


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep dask-jobqueue from taking SIGINT, as one of its modules does when it is imported.

    With its handler Ctrl-C would end a script with status 0; and outside of the main thread, where
    a flow may submit its first task, the import would fail.
    """
    original = signal.signal

    def guarded(signum: int, handler: Any) -> Any:
        asker = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001 - who asks decides
        return None if asker.startswith("dask_jobqueue") else original(signum, handler)

    signal.signal = guarded  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = original


with _signals_kept():
    from dask_jobqueue.core import Job

DEATH_TIMEOUT_S = 30
"""A pilot that does not find its driver leaves after this long: a dead driver's queued jobs cost
the site half a minute each, no more."""


class PilotJob(Job):  # type: ignore[misc]  # dask-jobqueue is untyped
    """A batch job with one pilot in it, in whatever dialect the site speaks.

    Args:
        scheduler: Address of the Dask scheduler.
        name: The pilot's name.
        shape: Its shape.
        dialect: How the batch system is spoken to.
        run: Folder of the run: credentials, scripts and logs.
        worker_extra_args: More arguments for the pilot.
    """

    config_name = "local"

    def __init__(
        self,
        scheduler: str,
        name: str,
        *,
        shape: Shape,
        dialect: Dialect,
        run: RunFolder,
        worker_extra_args: Sequence[str],
        local_directory: str,
    ) -> None:
        super().__init__(
            scheduler=scheduler,
            name=name,
            cores=shape.cores,
            memory=f"{shape.memory_mb}MB",
            processes=1,
            nanny=False,
            python=shlex.quote(sys.executable),
            shebang="#!/bin/sh",
            worker_command="hpcburst.workers.pilot",
            worker_extra_args=[shlex.quote(argument) for argument in worker_extra_args],
            death_timeout=DEATH_TIMEOUT_S,
            local_directory=shlex.quote(local_directory),
            job_name="hpcburst",
            job_script_prologue=["exec \\"],
        )
        self._run = run
        self._argv = dialect.submit_argv()
        self.job_header = "\n".join(dialect.header(shape, str(run.logs / "%j.log")))

    @contextmanager
    def job_file(self) -> Iterator[str]:
        """The script lies in the run's private folder for as long as it takes to submit it."""
        script = self._run.secret / f"{self.name}.sh"
        write_private(script, self.job_script().encode())
        try:
            yield str(script)
        finally:
            script.unlink(missing_ok=True)

    async def _submit_job(self, script_filename: str) -> Any:
        return await self._call([*self._argv, script_filename])


@dataclass(slots=True)
class JobFleet:
    """Submits, looks at and ends the jobs of one run.

    Attributes:
        scheduler: The Dask scheduler, in this process.
        security: The run's TLS.
        dialect: How the batch system is spoken to.
        run: Folder of the run.
        site: What the site allows.
    """

    scheduler: Any
    security: Any
    dialect: Dialect
    run: RunFolder
    site: Site

    def job_script(self, shape: Shape) -> str:
        """The script that a job of this shape would run."""
        return str(self._job("pilot", shape).job_script())

    async def submit(self, name: str, shape: Shape) -> str:
        """Submit a job for a pilot; returns the job id.

        Raises:
            SubmitError: The batch system refused it.
        """
        job = self._job(name, shape)
        try:
            await job.start()
        except (RuntimeError, ValueError, OSError) as error:
            raise SubmitError(
                f"A job was submitted ({shape})", "the batch system refused it", tail=str(error)
            ) from error
        return str(job.job_id)

    async def states(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """States of these jobs, by one command."""
        return await probe.states(self.dialect, job_ids)

    async def release(self, pilots: Sequence[Pilot]) -> None:
        """End pilots: results of plain Dask move to others first, then all jobs end at once."""
        workers = self.scheduler.workers
        addresses = [pilot.address for pilot in pilots if pilot.address in workers]
        holding = [address for address in addresses if workers[address].has_what]
        if holding and len(addresses) < len(workers):
            await self.scheduler.retire_workers(workers=holding, close_workers=False, remove=True)
        await probe.cancel(self.dialect, [p.record.job_id for p in pilots if p.record.job_id])

    async def open_line(self, address: str) -> Line:
        """Open a line to a pilot."""
        return await Line.open(address, self.security.get_connection_args("client"))

    def log_of(self, job_id: str) -> str:
        """Path of a job's log."""
        return str(self.run.logs / f"{job_id}.log")

    def foreign_tasks(self, address: str) -> int:
        """Tasks of plain Dask that a pilot has."""
        worker = self.scheduler.workers.get(address)
        return len(worker.processing) if worker else 0

    def foreign_demand(self) -> int:
        """Tasks of plain Dask that wait or run; a result held in memory counts as one more."""
        workers = self.scheduler.workers.values()
        running = sum(len(worker.processing) for worker in workers)
        holding = any(worker.has_what for worker in workers)
        return running + len(self.scheduler.queued) + len(self.scheduler.unrunnable) + holding

    def _job(self, name: str, shape: Shape) -> PilotJob:
        files = self.security.get_tls_config_for_role("worker")
        return PilotJob(
            self.scheduler.address,
            name,
            shape=shape,
            dialect=self.dialect,
            run=self.run,
            worker_extra_args=[
                f"--tls-ca-file={files['ca_file']}",
                f"--tls-cert={files['cert']}",
                f"--tls-key={files['key']}",
                f"--host={self.site.host}",
            ],
            local_directory=str(self.site.paths.node_root),
        )
