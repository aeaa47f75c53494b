"""The one look at all jobs of a worker: one status call and one question to Prefect for all.

What a look finds is decided in `verdict`; here it is asked and done. A batch system or a server
that does not answer changes nothing: the jobs are there, and are looked at again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hpcburst.errors import TAIL_LINES, SiteError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import NO_NEWS, Dialect, JobNews, JobState
from prefect_hpcburst.worker.records import JobRecord
from prefect_hpcburst.worker.tickets import taken_at, taken_by, tear
from prefect_hpcburst.worker.verdict import End, RunNews, Verdict, Wish, is_over, judge, wish

logger = logging.getLogger("prefect.workers.hpcburst")

ASK_S = 2.0
"""Seconds between two questions to Prefect: a run that is cancelled while it waits ends so soon.
One question for all runs, to a server of our own."""

RENEW_S = 60.0
"""Seconds between two renewals of a deployment's concurrency slot."""

LEASE_S = 300.0
"""Seconds such a slot is held without a renewal: Prefect's own default."""

TAIL_BYTES = 2000


class Prefect(Protocol):
    """What the watch asks of Prefect, and tells it; each verb but `tell` raises `Unreachable`."""

    async def news(self, flow_run_ids: Sequence[str]) -> Mapping[str, RunNews]:
        """What is known of these flow runs, by one question."""

    async def say(self, flow_run_id: str, verdict: Verdict) -> None:
        """Give a flow run the state of a verdict."""

    async def renew(self, lease: str, seconds: float) -> None:
        """Hold a concurrency slot for so long from now on."""

    def tell(self, flow_run_id: str, text: str) -> None:
        """Write a line into a flow run's log."""


class Unreachable(Exception):
    """Prefect did not answer; it is asked again."""


@dataclass(slots=True)
class Watched:
    """One job that is watched.

    Attributes:
        record: The job; without an id while it is being submitted.
        over: Set when nothing more is to be done for it.
        crashed: Whether it ended before its flow run, which is Crashed by that.
    """

    record: JobRecord
    over: asyncio.Event = field(default_factory=asyncio.Event)
    crashed: bool = False
    news: JobNews = NO_NEWS
    ended_looks: int = 0
    unknown_looks: int = 0
    renewed_at: float = 0.0

    @property
    def ticket(self) -> Path:
        """Its ticket."""
        return Path(self.record.ticket)

    @property
    def begun(self) -> bool:
        """Whether a job has taken the ticket: there the flow run begins."""
        return taken_by(self.ticket) is not None


class Watch:
    """Watches jobs until each has ended and Prefect knows of it.

    Args:
        dialect: How the batch system is spoken to.
        prefect: How Prefect is.
        interval_s: Seconds between two looks at the batch system.
        start: Starts a coroutine function in the background; called when there is something to
            watch and nobody does.
    """

    def __init__(
        self,
        dialect: Dialect,
        prefect: Prefect,
        interval_s: float,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
    ) -> None:
        self._dialect = dialect
        self._prefect = prefect
        self._interval_s = interval_s
        self._start = start
        self._rows: dict[str, Watched] = {}
        self._unwanted: set[str] = set()
        self._running = False
        self._trouble = ""

    def __contains__(self, flow_run_id: str) -> bool:
        return flow_run_id in self._rows

    def add(self, record: JobRecord) -> Watched:
        """Watch a job."""
        row = self._rows[record.flow_run_id] = Watched(record)
        self._wake()
        return row

    def submitted(self, row: Watched, job_id: str) -> None:
        """A job has its id from now on; one that nobody wants any more is ended."""
        row.record = replace(row.record, job_id=job_id)
        if row.over.is_set():
            self._unwanted.add(job_id)
            self._wake()
        else:
            row.record.save()

    async def give_up(self, row: Watched, why: str) -> None:
        """Leave a job that may be in the queue or not, and have its run begin anew."""
        tear(row.ticket)
        verdict = Verdict("reschedule", why)
        while not row.over.is_set():
            try:
                await self._prefect.say(row.record.flow_run_id, verdict)
                self.forget(row)
            except Unreachable as error:
                self._complain("Prefect", error)
                await asyncio.sleep(ASK_S)

    def forget(self, row: Watched) -> None:
        """Watch a job no more. Idempotent."""
        row.over.set()
        if self._rows.get(row.record.flow_run_id) is row:
            del self._rows[row.record.flow_run_id]
        tear(row.ticket)
        row.record.forget()

    def _wake(self) -> None:
        if not self._running:
            self._running = True
            self._start(self._run)

    async def _run(self) -> None:
        """Look again and again, until there is nothing left to watch."""
        looked_at = 0.0
        try:
            while self._rows or self._unwanted:
                await self._ask()
                if time.monotonic() - looked_at >= self._interval_s:
                    looked_at = time.monotonic()
                    await self._look()
                await asyncio.sleep(min(ASK_S, self._interval_s))
        finally:
            self._running = False

    # -- Prefect -----------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Do what Prefect's states ask for, and keep concurrency slots."""
        rows = list(self._rows.values())
        if not rows:
            return
        try:
            found = await self._prefect.news([row.record.flow_run_id for row in rows])
            for row in rows:
                await self._follow(row, found.get(row.record.flow_run_id, RunNews("")))
            self._fine("Prefect")
        except Unreachable as error:
            self._complain("Prefect", error)

    async def _follow(self, row: Watched, run: RunNews) -> None:
        if row.over.is_set():
            return
        asked = wish(run, begun=row.begun)
        if asked is Wish.KEEP:
            await self._renew(row, run)
        elif asked is Wish.FORGET:
            self.forget(row)
        else:
            await self._withdraw(row, cancelled=asked is Wish.CANCEL)

    async def _withdraw(self, row: Watched, *, cancelled: bool) -> None:
        """End a job that waits. Without its ticket it does no harm if it starts all the same."""
        job_id = row.record.job_id
        tear(row.ticket)
        if cancelled:
            named = f"Job {job_id} was ended" if job_id else "No job was submitted"
            verdict = Verdict("cancelled", f"{named} before the flow run began.", force=True)
            await self._prefect.say(row.record.flow_run_id, verdict)
        self.forget(row)
        if job_id:
            self._unwanted.add(job_id)
            await self._end_unwanted()

    async def _renew(self, row: Watched, run: RunNews) -> None:
        """Prefect's own process renews the slot once the flow runs."""
        due = time.monotonic() - row.renewed_at >= RENEW_S
        if run.lease and due and run.state == "PENDING":
            row.renewed_at = time.monotonic()
            await self._prefect.renew(run.lease, LEASE_S)

    # -- the batch system --------------------------------------------------------------------

    async def _look(self) -> None:
        """One look at all jobs."""
        await self._end_unwanted()
        rows = [row for row in self._rows.values() if row.record.job_id]
        if not rows:
            return
        try:
            found = await probe.news(self._dialect, [row.record.job_id for row in rows])
            self._fine("The batch system")
        except SiteError as error:
            self._complain("The batch system", error)
            return
        over = [row for row in rows if self._note(row, found[row.record.job_id])]
        if over:
            await self._judge(over)

    async def _end_unwanted(self) -> None:
        if not self._unwanted:
            return
        try:
            await probe.cancel(self._dialect, sorted(self._unwanted))
            self._unwanted.clear()
        except SiteError as error:
            self._complain("The batch system", error)

    def _note(self, row: Watched, news: JobNews) -> bool:
        """Take down what a look found; whether the job is over for certain."""
        if (news.state, news.reason, news.held) != (row.news.state, row.news.reason, row.news.held):
            self._tell(row, news)
        if news.state is not JobState.UNKNOWN:
            row.news = replace(news, host=news.host or row.news.host)
        row.ended_looks = row.ended_looks + 1 if news.state is JobState.ENDED else 0
        row.unknown_looks = row.unknown_looks + 1 if news.state is JobState.UNKNOWN else 0
        return is_over(row.ended_looks, row.unknown_looks, news.reason)

    def _tell(self, row: Watched, news: JobNews) -> None:
        why = f": {news.reason}" if news.reason else ""
        where = f" on {news.host}" if news.host else ""
        if news.state is JobState.PENDING:
            held = "will not start by itself" if news.held else "waits"
            self._prefect.tell(row.record.flow_run_id, f"Job {row.record.job_id} {held}{why}")
        elif news.state is JobState.RUNNING:
            text = f"Job {row.record.job_id} runs{where}{why}"
            self._prefect.tell(row.record.flow_run_id, text)

    async def _judge(self, rows: Sequence[Watched]) -> None:
        """Tell Prefect what it does not know yet of runs whose jobs have ended."""
        rows = [row for row in rows if not self._went_elsewhere(row)]
        try:
            found = await self._prefect.news([row.record.flow_run_id for row in rows])
            for row in rows:
                await self._close(row, found.get(row.record.flow_run_id, RunNews("")))
        except Unreachable as error:
            self._complain("Prefect", error)

    def _went_elsewhere(self, row: Watched) -> bool:
        """Whether the flow runs in another job: of a submission that was thought to have failed."""
        other = taken_by(row.ticket)
        if not other or other == row.record.job_id:
            return False
        row.record = replace(row.record, job_id=other)
        row.record.save()
        row.ended_looks = row.unknown_looks = 0
        return True

    async def _close(self, row: Watched, run: RunNews) -> None:
        record = row.record
        log = self._dialect.log_of(str(Path(record.folder) / "logs"), record.job_id)
        verdict = judge(
            run,
            _end_of(row, log),
            reschedules=record.on_early_end == "reschedule",
            max_jobs=record.max_jobs,
        )
        if verdict.state:
            row.crashed = verdict.state == "crashed"
            await self._prefect.say(record.flow_run_id, verdict)
        self.forget(row)

    def _complain(self, who: str, error: Exception) -> None:
        """Say once that somebody does not answer."""
        if self._trouble != who:
            self._trouble = who
            logger.warning("%s does not answer; flow runs stay as they are. %s", who, error)

    def _fine(self, who: str) -> None:
        if self._trouble == who:
            self._trouble = ""
            logger.info("%s answers again", who)


def _end_of(row: Watched, log: str) -> End:
    began = taken_at(row.ticket)
    return End(
        job_id=row.record.job_id,
        host=row.news.host,
        reason=row.news.reason if row.news.state is JobState.ENDED else "",
        lasted_s=None if began is None else time.time() - began,
        walltime_s=row.record.walltime_s,
        log=log,
        tail=_tail(Path(log)),
    )


def _tail(log: Path) -> str:
    try:
        text = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])
