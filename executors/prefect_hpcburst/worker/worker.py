"""`BurstWorker`: Prefect's worker of type `hpcburst`.

Prefect's base class finds the flow runs and calls `run` for each; jobs and what becomes of them are
the affair of `submission` and `watch`. A worker that is told to stop leaves at once: its jobs go
on, and the next worker of the pool adopts them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import anyio.to_thread
from prefect.exceptions import InfrastructureNotAvailable, InfrastructureNotFound
from prefect.workers.base import BaseWorker, BaseWorkerResult

from hpcburst.errors import SiteError, SubmitError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect, JobState
from hpcburst.jobs.known import DIALECTS
from hpcburst.jobs.local import LocalDialect
from hpcburst.policy.model import Site
from hpcburst.policy.present import LOCAL
from prefect_hpcburst.worker.api import PrefectApi
from prefect_hpcburst.worker.form import JobForm, JobVariables, base_job_template
from prefect_hpcburst.worker.records import FlowRunFolders, JobRecord, Owner
from prefect_hpcburst.worker.submission import MAX_REFUSALS, FlowJob, Submitter, pauses
from prefect_hpcburst.worker.watch import Watch, Watched

if TYPE_CHECKING:
    from anyio.abc import TaskStatus
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import WorkerFlowRunResponse

ENDED_EARLY = 75
"""Status of a job that ended before its flow run: sysexits' "try again later"."""


class BurstResult(BaseWorkerResult):
    """How a flow run's job ended: 0, or `ENDED_EARLY`."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a worker that is set up works with."""

    folders: FlowRunFolders
    submitter: Submitter
    watch: Watch
    api: PrefectApi


class BurstWorker(BaseWorker[JobForm, JobVariables, BurstResult]):
    """Runs each flow run as a batch job."""

    type = "hpcburst"
    job_configuration = JobForm
    job_configuration_variables = JobVariables

    _display_name = "hpcburst"
    _description = (
        "Run each flow as a batch job of its own (Slurm, PBS, Grid Engine, LSF, HTCondor, OAR, or "
        "processes of this machine), in its conda env; its tasks run in jobs that come and go."
    )
    _documentation_url = "https://github.com/hpcburst/hpcburst#readme"
    _logo_url = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parts: _Parts | None = None
        self._stays = True

    @property
    def parts(self) -> _Parts:
        """What the worker works with.

        Raises:
            RuntimeError: It is not set up.
        """
        if self._parts is None:
            raise RuntimeError("the worker is not set up: use it as an async context manager")
        return self._parts

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """The template of a new work pool: the form, with this site's queues."""
        return base_job_template()

    async def start(
        self,
        run_once: bool = False,
        with_healthcheck: bool = False,
        printer: Callable[..., None] = print,
    ) -> None:
        """Work until told to stop; with `run_once`, until what is due now has run."""
        self._stays = run_once
        await super().start(run_once, with_healthcheck, printer)

    async def setup(self) -> None:
        """Read the site, adopt the jobs that an earlier worker left.

        Raises:
            hpcburst.errors.SiteError: The site cannot be read.
        """
        site = await anyio.to_thread.run_sync(_prepared_site)
        folders = FlowRunFolders.below(site.paths.shared_root)
        await anyio.to_thread.run_sync(folders.sweep, site.keep_runs_days)
        dialect = _dialect(site, folders)
        await super().setup()
        api = PrefectApi(self.client, self.get_flow_run_logger)
        start = self._runs_task_group.start_soon  # type: ignore[union-attr]  # made by setup
        watch = Watch(dialect, api, site.limits.status_interval_s, start)
        self._parts = _Parts(folders, Submitter(site, dialect), watch, api)
        for record in folders.orphans(self._work_pool_name):
            start(self._adopt, record)

    async def teardown(self, *exc_info: Any) -> None:
        """Leave; jobs go on unless this worker was to see them through."""
        if not self._stays and self._runs_task_group is not None:
            self._runs_task_group.cancel_scope.cancel()
        await super().teardown(*exc_info)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: JobForm,
        task_status: TaskStatus[Any] | None = None,
    ) -> BurstResult:
        """Submit the job of a flow run and wait until it is over.

        Raises:
            hpcburst.errors.BurstError: There can be no such job; nothing is left in the queue.
        """
        row = await self._submit(flow_run, configuration)
        if task_status is not None:
            task_status.started(row.record.identifier if row.record.job_id else None)
        await row.over.wait()
        return BurstResult(
            identifier=row.record.identifier, status_code=ENDED_EARLY if row.crashed else 0
        )

    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: JobForm,  # noqa: ARG002 - the base class's signature
        grace_seconds: int = 30,  # noqa: ARG002 - what a batch system gives, it gives
    ) -> None:
        """End the job of a flow run that does not end by itself.

        Raises:
            InfrastructureNotFound: It is gone already.
            InfrastructureNotAvailable: It is on a machine this worker cannot reach.
        """
        scheduler, host, job_id = infrastructure_pid.split(":", 2)
        dialect = self.parts.submitter.dialect
        elsewhere = scheduler == "local" and host != socket.gethostname()
        if scheduler != dialect.name or elsewhere:
            raise InfrastructureNotAvailable(f"job {job_id} is one of {scheduler} at {host}")
        try:
            news = await probe.news(dialect, [job_id])
            if news[job_id].state in (JobState.ENDED, JobState.UNKNOWN):
                raise InfrastructureNotFound(f"job {job_id} has ended")
            await probe.cancel(dialect, [job_id])
        except SiteError as error:
            raise InfrastructureNotAvailable(str(error)) from error

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """Runs that are due; one whose last job is still ending waits for the next look."""
        due = await super()._get_scheduled_flow_runs()
        return [entry for entry in due if str(entry.flow_run.id) not in self.parts.watch]

    async def _submit(self, flow_run: FlowRun, form: JobForm) -> Watched:
        """The job of a flow run in the queue, watched; without an id when it was withdrawn."""
        self.parts.api.know(flow_run)
        submitter, run_id = self.parts.submitter, str(flow_run.id)
        env = await anyio.to_thread.run_sync(submitter.env_of, form)
        folder = self.parts.folders.of(run_id)
        job = submitter.prepare(form, env, folder)
        record = JobRecord(
            flow_run_id=run_id,
            pool=self._work_pool_name,
            scheduler=submitter.dialect.name,
            host=socket.gethostname(),
            folder=str(folder),
            ticket=str(job.ticket),
            walltime_s=job.shape.walltime_s,
            on_early_end=form.on_early_end,
            max_jobs=form.max_jobs,
            owner=Owner.here(),
        )
        record.save()
        row = self.parts.watch.add(record)
        try:
            await self._queue(job, row)
        except SiteError:
            self.parts.watch.forget(row)
            raise
        return row

    async def _queue(self, job: FlowJob, row: Watched) -> None:
        """Submit until the batch system takes the job, refuses it, or nobody wants it any more."""
        submitter, refusals = self.parts.submitter, 0
        tell = partial(self.parts.api.tell, row.record.flow_run_id)
        for pause_s in pauses():
            try:
                job_id = await submitter.submit(job, Path(row.record.folder))
            except SiteError as error:
                down = not isinstance(error, SubmitError) or not await submitter.answers()
                refusals = 0 if down else refusals + 1
                if refusals >= MAX_REFUSALS:
                    raise
                what = "does not answer" if down else "refused the job"
                tell(f"The batch system {what}; trying again. {error}")
            else:
                self.parts.watch.submitted(row, job_id)
                tell(f"Submitted job {job_id} ({job.shape})")
                return
            with anyio.move_on_after(pause_s):
                await row.over.wait()
            if row.over.is_set():
                return

    async def _adopt(self, record: JobRecord) -> None:
        """Watch a job that an earlier worker submitted."""
        self._logger.info("Adopting job %s of flow run %s", record.job_id, record.flow_run_id)
        row = self.parts.watch.add(record)
        if not record.job_id:
            await self.parts.watch.give_up(row, "Its worker ended while it submitted the job.")
        borrowed = self._borrow(UUID(record.flow_run_id))
        await row.over.wait()
        if borrowed:
            self._release_limit_slot(UUID(record.flow_run_id))

    def _borrow(self, run_id: UUID) -> bool:
        """Count an adopted job towards the worker's limit, unless that is reached."""
        if self._limiter is None:
            return False
        try:
            self._limiter.acquire_on_behalf_of_nowait(run_id)
        except anyio.WouldBlock:
            return False
        return True


def _prepared_site() -> Site:
    """The site; what submitting needs is imported on the way, so that no flow run waits for it."""
    import hpcburst.pools.fleet  # noqa: F401 - see above
    from hpcburst.policy.load import load_site

    return load_site()


def _dialect(site: Site, folders: FlowRunFolders) -> Dialect:
    if site.scheduler == LOCAL:
        return LocalDialect(folders.spool)
    return DIALECTS[site.scheduler](**site.dialect)
