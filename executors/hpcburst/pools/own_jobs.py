"""Batch jobs of one task each: parallel programs on several nodes, and what must not be shared.

A sibling of the pilots' fleet, without Dask: a job runs one command and ends. It is submitted,
asked after (one status call for all) and ended through `jobs.probe`. How it ended comes in a file
of the run's private folder (`workers.own_job`), so a scheduler that is asked once a minute delays
nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future

from hpcburst.comms.staging import RunFolder, private_folder, write_private
from hpcburst.errors import BurstError, Cancelled, PilotLost, SiteError, SubmitError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect, JobState
from hpcburst.jobs.known import dialect_for
from hpcburst.placement import Spread
from hpcburst.policy.model import Site
from hpcburst.policy.present import LOCAL
from hpcburst.pools.own_job import OwnJob, shape_of, tail
from hpcburst.pools.scripts import OF_ANOTHER_JOB, program_script
from hpcburst.pools.state import RunNow, TasksNow
from hpcburst.pools.telling import INTERVAL_S, Teller
from hpcburst.results import Outcome
from hpcburst.tasks import Burst
from hpcburst.workers.own_job import ALIVE, HEARTBEAT_S

logger = logging.getLogger("hpcburst")

TICK_S = 0.5
"""How often we look for files that tell of an end."""

EARLY_S, EARLY_INTERVAL_S = 60.0, 10.0
"""A job is asked after more often so long after its submission: then it starts or is refused."""

GRACE_S = 10.0
"""A job that has ended may have told so in a file that is not seen here yet."""

PROGRAM = "hpcburst.workers.own_job"
"""What runs in the job."""


class OwnJobs:
    """Runs commands in batch jobs of their own, by a thread that starts with the first.

    Args:
        site: What the site allows.
        max_jobs: Jobs at once, pending and running.

    Raises:
        SiteError: The shared root is not private.
    """

    def __init__(self, site: Site, max_jobs: int) -> None:
        self._site, self._max_jobs = site, min(max_jobs, site.limits.max_jobs)
        self._run = RunFolder.make(site.paths.shared_root)
        self._dialect = _dialect(site, self._run)
        self._waiting: deque[OwnJob] = deque()
        self._there: list[OwnJob] = []
        self._given_up: list[str] = []
        self._numbers = 0
        self._asked_at = self._beat_at = self._told_at = 0.0
        self._done = self._failed = 0
        self._started_at = time.time()
        self._teller = Teller(self._run.path, self.now)
        self._guard = threading.Lock()
        self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._live, name="hpcburst-own-jobs", daemon=True)

    def launch(self, burst: Burst, spread: Spread) -> Future[Outcome]:
        """Queue a job for a task that is a command; callable from any thread.

        Args:
            burst: The task. Its cores are those of each process, its memory and GPUs of each node.
            spread: Nodes and processes.

        Returns:
            A future of its Outcome. Cancelling it ends the job. It holds a BurstError when the task
            could not be run (SubmitError, PilotLost, Cancelled).

        Raises:
            RequestError: No queue has such nodes, or its batch system cannot say what it asks for.
            Cancelled: The run is closed.
        """
        shape = shape_of(burst.needs, spread, self._site)
        with self._guard:
            if self._closed:
                raise Cancelled(f"A job was to be queued for {burst.name!r}", "the run is closed")
            self._numbers += 1
            job = OwnJob(burst, shape, self._run.secret / f"own-{self._numbers}")
            self._script(job)  # what the batch system has no words for is refused now
            self._waiting.append(job)
            if self._thread.ident is None:
                self._thread.start()
        job.future.add_done_callback(lambda _: self._wake.set())
        self._wake.set()
        return job.future

    def now(self) -> RunNow:
        """What the run is doing, for others to read; callable from any thread."""
        jobs, waiting = tuple(job.now() for job in list(self._there)), len(self._waiting)
        why = f"at most {self._max_jobs} jobs at once" if waiting else ""
        return RunNow(
            self._run.path.name,
            self._site.scheduler,
            self._started_at,
            waiting=waiting,
            done=self._done,
            failed=self._failed,
            tasks=(TasksNow("jobs of their own", waiting, len(jobs), why),),
            jobs=jobs,
            told_at=time.time(),
        )

    def close(self) -> None:
        """End every job. Idempotent."""
        with self._guard:
            self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._teller.fall_silent()
        self._run.close()

    # -- its thread ---------------------------------------------------------------------------

    def _live(self) -> None:
        while not self._closed:
            self._wake.wait(TICK_S if self._there else HEARTBEAT_S)
            self._wake.clear()
            try:
                asyncio.run(self._look())
            except Exception:  # the edge of the thread: without it, tasks would wait for ever
                logger.exception("jobs of their own are looked after again in %g s", TICK_S)
        asyncio.run(self._end_all())

    async def _look(self) -> None:
        self._beat()
        for job in self._there:
            job.read_outcome(self._log(job))
        self._drop_done()
        await self._cancel_given_up()
        await self._ask()
        while not self._closed and (following := self._next()) is not None:
            await self._submit(following)
        self._tell()

    def _tell(self) -> None:
        """Tell other processes what there is to tell, not more often than they need it."""
        if time.monotonic() - self._told_at > INTERVAL_S:
            self._told_at, state = time.monotonic(), self.now()
            if self._teller.is_news(state):
                self._teller.tell(state)

    def _beat(self) -> None:
        """Tell the jobs that we are there."""
        if time.monotonic() - self._beat_at > HEARTBEAT_S:
            self._beat_at = time.monotonic()
            (self._run.secret / ALIVE).touch()

    def _next(self) -> OwnJob | None:
        """The next job there is room for; on this machine, room is cores."""
        with self._guard:
            while self._waiting and self._waiting[0].future.done():
                self._waiting.popleft()
            if not self._waiting or len(self._there) >= self._max_jobs:
                return None
            held = sum(job.shape.cores for job in (*self._there, self._waiting[0]))
            if self._site.scheduler == LOCAL and held > self._site.queues[0].max_cores:
                return None
            return self._waiting.popleft()

    async def _submit(self, job: OwnJob) -> None:
        job.sends += 1
        try:
            job.lay_out(HEARTBEAT_S)
            text, path = self._script(job), job.folder / "job.sh"
            write_private(path, text.encode())
            job.job_id = await probe.submit(self._dialect, str(path), text, OF_ANOTHER_JOB)
        except BurstError as error:
            job.call_off()
            job.refuse(error)
        except OSError as error:
            job.refuse(SiteError("A job's folder was to be made", f"it cannot be: {error}"))
        else:
            job.submitted_at, job.gone_since = time.monotonic(), 0.0
            self._there.append(job)

    async def _ask(self) -> None:
        """One status call for all jobs, when it is time; what is over and silent is given up."""
        now = time.monotonic()
        fresh = any(now - job.submitted_at < EARLY_S for job in self._there)
        usual_s = self._site.limits.status_interval_s
        interval_s = min(usual_s, EARLY_INTERVAL_S) if fresh else usual_s
        if self._there and now - self._asked_at >= interval_s:
            self._asked_at = now
            await self._note_news()
        for job in [job for job in self._there if job.gone_since]:
            self._end_silent(job)
        self._drop_done()

    async def _note_news(self) -> None:
        try:
            told = await probe.news(self._dialect, [job.job_id for job in self._there])
        except SiteError as error:
            logger.warning("the batch system does not answer: %s", error)
            return
        for job in self._there:
            job.news = told[job.job_id]
            over = job.news.state in (JobState.ENDED, JobState.UNKNOWN)
            job.gone_since = (job.gone_since or time.monotonic()) if over else 0.0
            if job.news.held:
                self._given_up.append(job.job_id)
                found = f"it would wait for ever ({job.news.reason})"
                job.refuse(self._error(job, found, SubmitError))

    def _end_silent(self, job: OwnJob) -> None:
        """A job is over and no file told how: submitted again if its node was lost, else failed."""
        job.read_outcome(self._log(job))
        if job.future.done() or time.monotonic() - job.gone_since < GRACE_S:
            return
        if not job.is_lost:
            job.end_without_a_word(self._log(job))
        elif job.sends >= self._site.limits.max_sends:
            found = f"each of {job.sends} jobs was lost, the last one by {job.news.reason}"
            job.refuse(self._error(job, found, PilotLost))
        else:
            logger.info("job %s was lost (%s); another is sent", job.job_id, job.news.reason)
            self._there.remove(job)
            with self._guard:
                self._waiting.appendleft(job)

    def _drop_done(self) -> None:
        """Forget jobs whose future is set; one that was withdrawn is to be ended."""
        for job in [job for job in self._there if job.future.done()]:
            self._there.remove(job)
            self._done += 1
            self._failed += job.has_failed
            if job.future.cancelled():
                self._given_up.append(job.job_id)

    async def _cancel_given_up(self) -> None:
        """End what was given up, by one command; what could not be ended stays in the list."""
        if not self._given_up:
            return
        try:
            await probe.cancel(self._dialect, self._given_up)
        except SiteError as error:
            logger.warning("jobs could not be ended, it is tried again: %s", error)
        else:
            self._given_up.clear()

    async def _end_all(self) -> None:
        with self._guard:
            left = [*self._waiting, *self._there]
            self._waiting.clear()
        for job in left:
            job.refuse(Cancelled(f"A job was queued for {job.burst.name!r}", "the run was closed"))
        self._given_up += [job.job_id for job in self._there]
        await self._cancel_given_up()

    # -- words --------------------------------------------------------------------------------

    def _script(self, job: OwnJob) -> str:
        logs = str(self._run.logs)
        return program_script(self._dialect, job.shape, logs, PROGRAM, str(job.folder))

    def _log(self, job: OwnJob) -> str:
        return self._dialect.log_of(str(self._run.logs), job.job_id) if job.job_id else ""

    def _error(self, job: OwnJob, found: str, kind: type[BurstError]) -> BurstError:
        log = self._log(job)
        asked = f"A job was submitted for {job.burst.name!r} alone ({job.shape})"
        return kind(asked, found, job_id=job.job_id, log=log, tail=tail(log))


def _dialect(site: Site, run: RunFolder) -> Dialect:
    return dialect_for(site.scheduler, site.dialect, private_folder(run.secret / "spool"))
