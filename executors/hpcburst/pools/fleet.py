"""The fleet: jobs with a pilot in each. The only door to dask-jobqueue.

dask-jobqueue writes the jobs' scripts and submits them; names, numbers and ends of jobs are the
keeper's.
"""

from __future__ import annotations

import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hpcburst.comms.credentials import Credentials
from hpcburst.comms.staging import RunFolder, write_private
from hpcburst.errors import SiteError, SubmitError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect, Gap, JobNews
from hpcburst.jobs.directives import JOB_NAME, with_section
from hpcburst.jobs.local import DIRECTIVE
from hpcburst.jobs.undertaker import Undertaker
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
    from dask_jobqueue.htcondor import HTCondorJob
    from dask_jobqueue.lsf import LSFJob
    from dask_jobqueue.oar import OARJob
    from dask_jobqueue.pbs import PBSJob
    from dask_jobqueue.sge import SGEJob
    from dask_jobqueue.slurm import SLURMJob

DEATH_TIMEOUT_S = 30
"""A pilot that does not find its driver leaves after this long: a dead driver's queued jobs cost
the site half a minute each, no more."""


HEARD_S = 1.0
"""What a pilot says of its tasks so long after it was told to drain is what it will finish; an
earlier word may have been on its way already."""


class LocalJob(Job):  # type: ignore[misc]  # dask-jobqueue is untyped
    """A job of the embedded queue, for which dask-jobqueue has no header."""

    config_name = "local"

    def __init__(self, scheduler: str, name: str, **options: Any) -> None:
        super().__init__(scheduler=scheduler, name=name, **options)
        self.job_header = "\n".join(f"{DIRECTIVE} {line}" for line in self.job_extra_directives)


WRITERS: Mapping[str, type[Job]] = {
    "local": LocalJob,
    "slurm": SLURMJob,
    "pbs": PBSJob,
    "sge": SGEJob,
    "lsf": LSFJob,
    "htcondor": HTCondorJob,
    "oar": OARJob,
}
"""dask-jobqueue's classes, which write the scripts of jobs. Their other verbs are not used."""

_SHEBANG = "#!/bin/bash"
"""Users' own prologues (`jobqueue.<name>.job-script-prologue`) are written for bash."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a pilot's job runs.

    Attributes:
        python: The interpreter.
        module: The module in it that is run.
        file: A file that is run in the place of a module, for an interpreter without hpcburst.
    """

    python: str = sys.executable
    module: str = "hpcburst.workers.pilot"
    file: str = ""

    @property
    def command(self) -> str:
        """What dask-jobqueue writes before `-m MODULE`.

        The pilot takes the shell's place: what the batch system signals is the pilot.
        """
        return shlex.join(["exec", self.python, *([self.file] if self.file else [])])


@dataclass(frozen=True, slots=True)
class PilotScripts:
    """Writes the scripts of pilots' jobs. The driver they are for need not be there yet.

    Attributes:
        dialect: How the batch system is spoken to.
        site: What the site allows.
        address: The driver's, which pilots find it at.
        credentials: What pilots are believed by.
        logs: Folder of their logs.
        program: What runs in the jobs.
    """

    dialect: Dialect
    site: Site
    address: str
    credentials: Credentials
    logs: str
    program: Program = Program()

    def text(self, name: str, shape: Shape, avoid: Sequence[str] = ()) -> str:
        """The script of the job of a pilot, kept away from the nodes in `avoid`.

        Raises:
            RequestError: The batch system has no words for what the shape asks for.
            SiteError: The folder's path cannot be written into a job script.
        """
        import dask.config

        section = dask.config.get(f"jobqueue.{self.dialect.name}", None) or {}
        options = with_section(self.dialect.job_options(shape, self.logs, avoid), section)
        job = WRITERS[self.dialect.name](
            scheduler=self.address,
            name=name,
            cores=shape.cores,
            memory=f"{shape.memory_mb}MB",
            processes=1,
            nanny=False,
            python=self.program.command,
            interface="",  # the user's is for the driver; a pilot finds its own way to it
            worker_command=self.program.module,
            worker_extra_args=[shlex.quote(argument) for argument in self._arguments()],
            death_timeout=DEATH_TIMEOUT_S,
            local_directory=shlex.quote(str(self.site.paths.node_root)),
            job_name=JOB_NAME,
            shebang=_SHEBANG,
            **options,
        )
        return str(job.job_script())

    def _arguments(self) -> list[str]:
        """What a pilot must know to find its driver, and to be believed by it."""
        name = self.dialect.name
        asks = [f"--batch-system={name}"] if self.dialect.limit_argv("1") else []
        host = [f"--host={self.site.host}"] if name == "local" else []
        return [
            *asks,
            f"--tls-ca-file={self.credentials.certificate}",
            f"--tls-cert={self.credentials.certificate}",
            f"--tls-key={self.credentials.key}",
            *host,
        ]


@dataclass(slots=True)
class JobFleet:
    """Submits, looks at and ends the jobs of one run.

    Attributes:
        scheduler: The Dask scheduler, in this process.
        security: The run's TLS.
        dialect: How the batch system is spoken to.
        run: Folder of the run.
        site: What the site allows.
        scripts: Writes the jobs' scripts.
    """

    scheduler: Any
    security: Any
    dialect: Dialect
    run: RunFolder
    site: Site
    scripts: PilotScripts
    _drained: dict[str, float] = field(default_factory=dict)
    _undertaker: Undertaker = field(init=False)

    def __post_init__(self) -> None:
        environ = probe.environment(self.dialect.variables)
        self._undertaker = Undertaker(self.dialect.cancel_argv([]), environ)

    def job_script(self, shape: Shape) -> str:
        """The script that a job of this shape would run."""
        return self.scripts.text("pilot", shape)

    async def submit(self, name: str, shape: Shape, avoid: Sequence[str] = ()) -> str:
        """Submit a job for a pilot, away from the nodes in `avoid`; returns the job id.

        Raises:
            SubmitError: The batch system refused it.
        """
        text = self.scripts.text(name, shape, avoid)
        script = self.run.secret / f"{name}.sh"
        write_private(script, text.encode())
        try:
            job_id = await probe.submit(self.dialect, str(script), text)
            self._undertaker.watch(job_id)
            return job_id
        except SubmitError as error:
            raise SubmitError(
                f"A job was submitted ({shape})", "the batch system refused it", tail=error.tail
            ) from error
        finally:
            script.unlink(missing_ok=True)

    async def news(self, job_ids: Sequence[str]) -> Mapping[str, JobNews]:
        """News of these jobs, by one command."""
        return await probe.news(self.dialect, job_ids)

    async def gaps(self) -> Sequence[Gap]:
        """Where jobs would start now, by one round of commands for all queues."""
        return await probe.gaps(self.dialect, [queue.name for queue in self.site.queues])

    async def drain(self, address: str) -> None:
        """Let Dask give a pilot no more tasks; results it holds are copied to others.

        `retire_workers` alone would take the order back when there are no others.
        """
        if address not in self.scheduler.workers:
            return
        self._drained[address] = time.time()
        status = {"status": "closing_gracefully", "stimulus_id": "hpcburst-drain"}
        self.scheduler.handle_worker_status_change(worker=address, **status)
        self.scheduler.stream_comms[address].send({"op": "worker-status-change", **status})
        if self.scheduler.running:
            await self.scheduler.retire_workers([address], close_workers=False, remove=False)

    def holds_alone(self, address: str) -> bool:
        """Whether a pilot has results of plain Dask that no other pilot could take now."""
        worker = self.scheduler.workers.get(address)
        others = any(other.address != address for other in self.scheduler.running)
        return bool(worker and not others and any(len(t.who_has) == 1 for t in worker.has_what))

    async def release(self, pilots: Sequence[Pilot]) -> None:
        """End pilots: results of plain Dask move to others first, then all jobs end at once."""
        workers = self.scheduler.workers
        addresses = [pilot.address for pilot in pilots if pilot.address in workers]
        leaving = [a for a in addresses if workers[a].has_what or workers[a].processing]
        if leaving and any(worker.address not in addresses for worker in self.scheduler.running):
            await self.scheduler.retire_workers(workers=leaving, close_workers=False, remove=True)
        try:
            await self.cancel([p.record.job_id for p in pilots if p.record.job_id])
        except SiteError:
            for address in addresses:  # the batch system is away; the pilots themselves are not
                await self.dismiss(address)
            raise

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """End these jobs, waiting or running."""
        await probe.cancel(self.dialect, job_ids)
        self._undertaker.forget(job_ids)

    async def dismiss(self, address: str) -> None:
        """Tell a pilot to leave; its job ends with it."""
        await self.scheduler.remove_worker(address, stimulus_id="hpcburst-dismiss", close=True)

    async def open_line(self, address: str, on_left: Callable[[float], None]) -> Line | None:
        """Open a line to a pilot, which tells how many seconds its job lasts if it knows.

        A pilot inside an env has none: it takes Dask's own tasks.
        """
        if self.scripts.program.file:
            return None
        return await Line.open(address, self.security.get_connection_args("client"), on_left)

    def log_of(self, job_id: str) -> str:
        """Path of a job's log."""
        return self.dialect.log_of(str(self.run.logs), job_id)

    def foreign_tasks(self, address: str) -> int:
        """Tasks of plain Dask that a pilot has; of one that drains, those that it has begun.

        It begins no more, and what is left goes to others when it goes.
        """
        worker = self.scheduler.workers.get(address)
        if worker is None:
            return 0
        heard = worker.last_seen > self._drained.get(address, math.inf) + HEARD_S
        return len(worker.executing if heard else worker.processing)

    def foreign_demand(self) -> int:
        """Tasks of plain Dask that wait or run; a result held in memory counts as one more."""
        workers = self.scheduler.workers.values()
        running = sum(len(worker.processing) for worker in workers)
        holding = any(worker.has_what for worker in workers)
        return running + len(self.scheduler.queued) + len(self.scheduler.unrunnable) + holding
