"""The watch: what the keeper asks of the batch system, and orders it, as seldom as may be.

One question at a time, each for all jobs together; less often while answers are slow or do not
come. What could not be ended is ended later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hpcburst.errors import SiteError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Gap, JobNews, JobState
from hpcburst.policy.model import Site
from hpcburst.pools.chores import Chores
from hpcburst.pools.pilots import Fleet, Pilot
from hpcburst.pools.state import Outlook
from hpcburst.tasks import Shape

logger = logging.getLogger("hpcburst")

EARLY_S = 60.0
"""A job is looked at more often so long after its submission: then it starts, or it is refused."""

EARLY_INTERVAL_S = 10.0
"""How often then."""

GAPS_INTERVAL_S = 30.0
"""How often the gaps are asked for while tasks want jobs: once in a usual backfill pass."""

GAPS_PATIENCE_S = 1.0
"""The longest that jobs are not asked for because the gaps are about to be told."""

SHARE = 0.05
"""The part of the time that a question may take: what took a second is not asked again within
twenty, for a batch system that is slow is one that has enough to do."""

LONGEST_PAUSE_S = 300.0
"""While no answers come, the pause doubles up to this."""

UNKNOWN_GRACE_S = 10.0
"""A batch system may not know a job for some seconds after it took it."""


@dataclass(slots=True)
class Question:
    """When something may be asked again."""

    asked_at: float = -float("inf")
    took_s: float = 0.0
    failures: int = 0
    open: bool = False
    trouble: str = ""

    def due_at(self, interval_s: float) -> float:
        """When it may be asked by somebody who wants to know it so often (monotonic seconds)."""
        pause_s = max(interval_s, self.took_s / SHARE)
        if self.failures:
            pause_s = max(interval_s, min(pause_s * 2**self.failures, LONGEST_PAUSE_S))
        return self.asked_at + self.took_s + pause_s

    def due(self, interval_s: float) -> bool:
        """Whether it may be asked now, by somebody who wants to know it so often."""
        return not self.open and time.monotonic() >= self.due_at(interval_s)

    def ask(self) -> None:
        """It is being asked."""
        self.open, self.asked_at = True, time.monotonic()

    def answered(self, *, well: bool, trouble: str = "") -> None:
        """The answer came, or there is none; then `trouble` says why."""
        self.open, self.took_s = False, time.monotonic() - self.asked_at
        self.trouble = trouble
        self.failures = 0 if well else self.failures + 1


@dataclass(frozen=True, slots=True)
class Loss:
    """A job that will bring no pilot.

    Attributes:
        end: How the record calls it.
        found: What was seen, for the error; it goes before "before the pilot said hello".
        release: Whether the job must still be ended.
    """

    end: str
    found: str
    release: bool


def loss_of(pilot: Pilot, news: JobNews, connect_s: float) -> Loss | None:
    """Whether the news say that a job's pilot will not come; notes on the pilot what they say."""
    now, state = time.monotonic(), news.state
    pilot.waits_for = news.reason
    pilot.record.node = news.host or pilot.record.node
    if state is JobState.RUNNING and pilot.job_seen_running is None:
        pilot.job_seen_running = now
    mute_s = now - (pilot.job_seen_running or now)
    forgotten = state is JobState.UNKNOWN and now - pilot.since > UNKNOWN_GRACE_S
    if state is JobState.ENDED or forgotten:
        found = f"it ended ({news.reason})" if news.reason else "it ended"
        return Loss("ended before it said hello", found, release=False)
    if news.held:
        return Loss("held", f"it would wait for ever ({news.reason})", release=True)
    if mute_s > connect_s:
        return Loss("never said hello", f"it ran for {mute_s:.0f} s", release=True)
    return None


@dataclass(slots=True)
class Watch:
    """Questions and orders of one keeper.

    Attributes:
        fleet: Where they go.
        site: At which intervals.
        chores: What is going on.
        wake: Called when the gaps were told.
    """

    fleet: Fleet
    site: Site
    chores: Chores
    wake: Callable[[], None]
    _states: Question = field(default_factory=Question)
    _plan: Question = field(default_factory=Question)
    _gaps: tuple[Gap, ...] = ()
    _unended: set[str] = field(default_factory=set)
    _try_again_at: float = 0.0
    _interval_s: float = 0.0

    def look_at_jobs(
        self, pending: Iterable[Pilot], tell: Callable[[Mapping[str, JobNews]], None]
    ) -> None:
        """Ask for news of waiting jobs, if it is time; what comes is told.

        The batch system may take its time, and nobody waits for it.
        """
        waiting = list(pending)
        self._interval_s = self._interval_for(waiting)
        if waiting and self._states.due(self._interval_s):
            job_ids = [pilot.record.job_id for pilot in waiting]

            async def ask() -> None:
                tell(await self.fleet.news(job_ids))

            self._ask(self._states, ask)

    def _interval_for(self, waiting: Iterable[Pilot]) -> float:
        now = time.monotonic()
        usual_s = self.site.limits.status_interval_s
        fresh = any(now - pilot.since < EARLY_S for pilot in waiting)
        return min(usual_s, EARLY_INTERVAL_S) if fresh else usual_s

    def outlook(
        self, again_at: Mapping[Shape, float], held: Mapping[Shape, int], spent_h: float
    ) -> Outlook:
        """What holds around the pilots; the arguments are what others know of it."""
        return Outlook(
            site=self.site,
            submit_s=probe.COMMAND_TIMEOUT_S,
            look_at=self._states.due_at(self._interval_s),
            trouble=self._states.trouble,
            again_at=again_at,
            held=held,
            spent_h=spent_h,
            told_at=time.time(),
            offset_s=time.time() - time.monotonic(),
        )

    def look_for_gaps(self) -> None:
        """Ask where jobs would start now, if it is time."""
        if self._plan.due(GAPS_INTERVAL_S):

            async def ask() -> None:
                try:
                    self._gaps = tuple(await self.fleet.gaps())
                finally:
                    self.wake()

            self._ask(self._plan, ask)

    @property
    def gaps_awaited(self) -> bool:
        """Whether the gaps will be told in a moment: what is asked for then may be a better fit."""
        return self._plan.open and time.monotonic() - self._plan.asked_at < GAPS_PATIENCE_S

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps of the schedule; none when nobody asked lately."""
        fresh = time.monotonic() - self._plan.asked_at < 2 * GAPS_INTERVAL_S
        return self._gaps if fresh else ()

    async def release(self, pilots: Sequence[Pilot]) -> None:
        """End these pilots and their jobs; what cannot be ended now is tried again."""
        try:
            await self.fleet.release(pilots)
        except SiteError as error:
            logger.warning("jobs could not be ended, it is tried again: %s", error)
            self._end_later({p.record.job_id for p in pilots if p.record.job_id})

    def end_again(self) -> None:
        """End jobs that could not be ended while the batch system did not answer."""
        if self._unended and time.monotonic() >= self._try_again_at:
            job_ids, self._unended = self._unended, set()
            self.chores.see_through(self._cancel(job_ids))

    async def _cancel(self, job_ids: set[str]) -> None:
        try:
            await self.fleet.cancel(sorted(job_ids))
        except SiteError:
            self._end_later(job_ids)

    def _end_later(self, job_ids: set[str]) -> None:
        self._unended |= job_ids
        self._try_again_at = time.monotonic() + self.site.limits.status_interval_s

    def _ask(self, question: Question, ask: Callable[[], Awaitable[None]]) -> None:
        question.ask()
        self.chores.begin(self._hear(question, ask))

    @staticmethod
    async def _hear(question: Question, ask: Callable[[], Awaitable[None]]) -> None:
        well, trouble = False, ""
        try:
            await ask()
            well = True
        except SiteError as error:
            logger.warning("the batch system does not answer: %s", error)
            trouble = str(error)
        finally:
            question.answered(well=well, trouble=trouble)
