"""The keeper: holds the backlog, hands tasks to pilots, and does what the planner decides.

It lives in the cluster's event loop, one thread, so its state needs no locks. A pilot gets as many
tasks as it has room for, never more: what waits, waits here, where a late pilot can still take it.
What is lost with a pilot is sent again, within a limit, without costing the user a retry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hpcburst.errors import BurstError, Cancelled, PilotLost, SiteError
from hpcburst.jobs.dialect import JobNews, JobState
from hpcburst.policy.model import Site
from hpcburst.pools.chores import Chores
from hpcburst.pools.line import LineBroken
from hpcburst.pools.matching import matches
from hpcburst.pools.pilots import Fleet, Pilot
from hpcburst.pools.planner import Demand, Learned, Phase, Plan, plan
from hpcburst.pools.record import PilotRecord, RunRecord
from hpcburst.pools.starts import Starts, start_error
from hpcburst.pools.tickets import Ticket, demand_of
from hpcburst.tasks import Shape

logger = logging.getLogger("hpcburst")

TICK_S = 1.0
"""How often the planner looks again when nothing happens; idle patience has such steps."""

GATHER_S = 0.02
"""A burst of submissions is seen as one: the planner waits this long for the rest of it."""

DRAIN_S = 15.0
"""A pilot with less of its walltime left takes no more tasks, and its successor is asked for."""

EARLY_S = 60.0
"""A job is looked at more often so long after its submission: then it starts, or it is refused."""

EARLY_INTERVAL_S = 10.0
"""How often then."""

UNKNOWN_GRACE_S = 10.0
"""A batch system may not know a job for some seconds after it took it."""


@dataclass(slots=True)
class Keeper:
    """Keeps one run's tasks and pilots.

    Attributes:
        site: What the site allows.
        fleet: Where jobs are submitted and ended.
        record: What happened.
        default_shape: What plain Dask's tasks get.
        floor: Pilots to hold by shape even when nothing is to do.
    """

    site: Site
    fleet: Fleet
    record: RunRecord
    default_shape: Shape
    floor: dict[Shape, int] = field(default_factory=dict)
    _waiting: deque[Ticket] = field(default_factory=deque)
    _pilots: dict[str, Pilot] = field(default_factory=dict)
    _starts: Starts = field(default_factory=Starts)
    _why: Mapping[Shape, str] = field(default_factory=dict)
    _names: int = 0
    _looked_at: float = 0.0
    _looking: bool = False
    _unended: set[str] = field(default_factory=set)
    _try_again_at: float = 0.0
    _awake: asyncio.Event = field(default_factory=asyncio.Event)
    _chores: Chores = field(default_factory=Chores)
    _closed: bool = False

    # -- what callers say -------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look after tasks and pilots."""
        self._chores.begin(self._look_after())

    def enqueue(self, ticket: Ticket) -> None:
        """Take a task."""
        if self._closed:
            ticket.refuse(
                Cancelled(f"Task {ticket.burst.name!r} was queued", "the cluster is closed")
            )
            return
        self._waiting.append(ticket)
        self._dispatch()
        self._awake.set()

    def withdraw(self, ticket: Ticket) -> None:
        """Forget a waiting task, or stop a running one on its pilot."""
        with suppress(ValueError):
            self._waiting.remove(ticket)
        if ticket.withdraw_call is not None:
            ticket.withdraw_call()

    def wake(self) -> None:
        """Look at the plan again soon."""
        self._awake.set()

    def why(self) -> list[str]:
        """In words, what every shape has and why it has not more."""
        return [f"{shape}: {words}" for shape, words in self._why.items()]

    @property
    def pilots(self) -> Iterable[Pilot]:
        """Every pilot that is asked for, pending, up or draining."""
        return self._pilots.values()

    async def close(self) -> None:
        """Withdraw all tasks and end all pilots. Idempotent."""
        self._closed = True
        waiting, self._waiting = list(self._waiting), deque()
        running = [ticket for pilot in self.pilots for ticket in pilot.tickets]
        for ticket in waiting + running:
            ticket.refuse(Cancelled(f"Task {ticket.burst.name!r} was queued", "the run was closed"))
        await self._chores.stop()
        await self._let_go(list(self.pilots), "the run ended")

    # -- what pilots say --------------------------------------------------------------------

    def pilot_up(self, name: str, address: str) -> None:
        """A pilot said hello."""
        pilot = self._pilots.get(name)
        if self._closed:
            return
        if (
            pilot is None
        ):  # given up while the batch system did not answer, and started all the same
            self._chores.begin(self.fleet.dismiss(address))
        else:
            self._chores.begin(self._welcome(pilot, address))

    def pilot_gone(self, address: str) -> None:
        """A pilot's worker left the Dask scheduler."""
        pilot = next((p for p in self.pilots if p.address == address), None)
        if pilot is not None and pilot.phase is not Phase.DRAINING:
            self._lose(pilot)

    async def _welcome(self, pilot: Pilot, address: str) -> None:
        try:
            pilot.line = await self.fleet.open_line(address)
        except OSError as error:
            logger.warning("pilot %s said hello and does not answer: %s", pilot.name, error)
            return
        if pilot.name not in self._pilots:
            pilot.line.close()
            return
        pilot.address = address
        pilot.deadline = time.monotonic() + pilot.shape.walltime_s - pilot.spent_s()
        pilot.record.up_at = time.time()
        pilot.record.host = address.rsplit("//", maxsplit=1)[-1].rsplit(":", 1)[0]
        pilot.enter(Phase.UP)
        self._starts.succeeded(pilot.shape)
        self._dispatch()
        self._awake.set()

    def _lose(self, pilot: Pilot) -> None:
        """A pilot went away by itself; its tasks come back through their broken calls."""
        self._forget(pilot, "lost")
        if pilot.line is not None:
            pilot.line.close()
        self._chores.see_through(self._release([pilot]))  # its job may still hold the node
        self._awake.set()

    # -- handing tasks to pilots ------------------------------------------------------------

    def _dispatch(self) -> None:
        """Hand waiting tasks to pilots with room."""
        up = [pilot for pilot in self.pilots if pilot.phase is Phase.UP]
        foreign = {pilot.name: self.fleet.foreign_tasks(pilot.address) for pilot in up}
        for ticket, pilot in matches(self._waiting, up, foreign):
            ticket.sends += 1
            pilot.tickets.add(ticket)
            pilot.warm.add(ticket.env_key)
            self._chores.begin(self._run(ticket, pilot))

    async def _run(self, ticket: Ticket, pilot: Pilot) -> None:
        line = pilot.line
        if line is None:
            raise AssertionError("only a pilot that is up gets tasks")

        def remember(number: int) -> None:
            ticket.withdraw_call = lambda: line.cancel(number)

        try:
            if ticket.future.done():  # given up since it was handed out: nothing to withdraw yet
                return
            outcome = await line.run(ticket.burst, ticket.on_lines, remember)
        except LineBroken:
            self._send_again(ticket, pilot)
        else:
            log = self.fleet.log_of(pilot.record.job_id)
            ticket.settle(self.record.note(ticket.burst, pilot.record, outcome, log, ticket.sends))
        finally:
            ticket.withdraw_call = None
            pilot.tickets.discard(ticket)
            if not pilot.tickets:
                pilot.since = time.monotonic()
            self._dispatch()
            self._awake.set()

    def _send_again(self, ticket: Ticket, pilot: Pilot) -> None:
        """The pilot went away with the task: queue it first, or give up on it."""
        self._lose_if_known(pilot)
        if self._closed or ticket.future.done():
            return
        limit = self.site.limits.max_sends
        if ticket.sends < limit:
            logger.info(
                "task %s was lost with pilot %s; it is sent again", ticket.burst.name, pilot.name
            )
            self._waiting.appendleft(ticket)
            return
        ticket.refuse(
            PilotLost(
                f"Task {ticket.burst.name!r} was handed to {limit} pilots",
                "each went away with it (ended by the batch system, its walltime or the task)",
                "ask for more memory or walltime; the log of the last job may tell more",
                job_id=pilot.record.job_id,
                host=pilot.record.host,
                log=self.fleet.log_of(pilot.record.job_id),
            )
        )

    def _lose_if_known(self, pilot: Pilot) -> None:
        if pilot.name in self._pilots and pilot.phase is not Phase.DRAINING:
            self._lose(pilot)

    # -- looking after pilots ---------------------------------------------------------------

    async def _look_after(self) -> None:
        """Plan whenever something happened, and once in a while."""
        while not self._closed:
            # Not `wait_for`: in Python 3.11 it swallows a cancellation that comes with the wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._awake.wait()
            await asyncio.sleep(GATHER_S)
            self._awake.clear()
            try:
                self._look_at_jobs()
                self._end_again()
                self._drain_ending()
                self._act(self._plan())
            except Exception:  # the edge of the keeper: without it, tasks would wait for ever
                logger.exception("the keeper stumbled; it looks again in %g s", TICK_S)
                await asyncio.sleep(TICK_S)

    def _plan(self) -> Plan:
        for pilot in self.pilots:
            pilot.look(self.fleet.foreign_tasks(pilot.address))
        learned = Learned(paused=self._starts.paused(), floor=self.floor)
        return plan(self._demand(), [p.view() for p in self.pilots], self.site, (), learned)

    def _demand(self) -> list[Demand]:
        running = [ticket for pilot in self.pilots for ticket in pilot.tickets]
        rows = demand_of(self._waiting, running)
        foreign = self.fleet.foreign_demand()
        if foreign:
            rows.append(Demand(self.default_shape, waiting=foreign, cores=foreign))
        return rows

    def _act(self, decided: Plan) -> None:
        self._why = decided.why
        leaving = [self._pilots[name] for name in decided.retire]
        for pilot in leaving:
            logger.info("pilot %s leaves: %s", pilot.name, decided.retire[pilot.name])
            self._chores.see_through(self._let_go([pilot], decided.retire[pilot.name]))
        for shape, count in decided.submit.items():
            for _ in range(count):
                self._chores.see_through(self._ask(shape))

    def _drain_ending(self) -> None:
        """Pilots near their walltime take no more tasks, and leave when they have none.

        So do those whose time is too short for every task that waits for their shape: the planner
        would count them, and the tasks would wait for a successor that nobody asks for.
        """
        shortest_s: dict[Shape, float] = {}
        for ticket in self._waiting:
            known_s = shortest_s.get(ticket.shape, ticket.needed_s)
            shortest_s[ticket.shape] = min(known_s, ticket.needed_s)
        for pilot in list(self.pilots):
            margin_s = min(DRAIN_S, pilot.shape.walltime_s / 4)
            useless = not pilot.lasts(shortest_s.get(pilot.shape, 0.0))
            if pilot.phase is Phase.UP and (useless or pilot.left_s < margin_s):
                pilot.enter(Phase.DRAINING)
            if pilot.phase is Phase.DRAINING and not pilot.tickets:
                self._chores.see_through(self._let_go([pilot], "its walltime is nearly over"))

    async def _ask(self, shape: Shape) -> None:
        """Submit one job."""
        self._names += 1
        name = f"pilot-{self._names}"
        pilot = Pilot(name, shape, PilotRecord(name, shape, asked_at=time.time()))
        self._pilots[name] = pilot
        self.record.pilots[name] = pilot.record
        try:
            pilot.record.job_id = await self.fleet.submit(name, shape)
        except BurstError as error:
            self._forget(pilot, "not submitted")
            self._failed_start(shape, error)
            return
        if pilot.phase is Phase.ASKED:
            pilot.enter(Phase.PENDING)
        if name not in self._pilots:  # it came and went before we knew which job it was
            await self._release([pilot])

    def _look_at_jobs(self) -> None:
        """One status call for all jobs whose pilots have not said hello, if there are any.

        The batch system may take its time, and planning does not wait for it; the next call does.
        """
        pending = {p.record.job_id: p for p in self.pilots if p.phase is Phase.PENDING}
        now = time.monotonic()
        fresh = any(now - pilot.since < EARLY_S for pilot in pending.values())
        usual_s = self.site.limits.status_interval_s
        interval_s = min(usual_s, EARLY_INTERVAL_S) if fresh else usual_s
        if pending and not self._looking and now - self._looked_at >= interval_s:
            self._looking = True
            self._chores.begin(self._note_states(pending))

    async def _note_states(self, pending: Mapping[str, Pilot]) -> None:
        try:
            told = await self.fleet.news(list(pending))
        except SiteError as error:
            logger.warning("the batch system does not answer: %s", error)
            return
        finally:
            self._looked_at = time.monotonic()
            self._looking = False
        for job_id, news in told.items():
            if pending[job_id].phase is Phase.PENDING:
                self._note_news(pending[job_id], news)

    def _note_news(self, pilot: Pilot, news: JobNews) -> None:
        now, state = time.monotonic(), news.state
        pilot.waits_for = news.reason
        if state is JobState.RUNNING and pilot.job_seen_running is None:
            pilot.job_seen_running = now
        mute_s = now - (pilot.job_seen_running or now)
        if state is JobState.ENDED or (
            state is JobState.UNKNOWN and now - pilot.since > UNKNOWN_GRACE_S
        ):
            self._forget(pilot, "ended before it said hello")
            self._never_up(pilot, f"it ended ({news.reason})" if news.reason else "it ended")
        elif news.held:
            self._chores.see_through(self._let_go([pilot], "held by the batch system"))
            self._never_up(pilot, f"it would wait for ever ({news.reason})")
        elif mute_s > self.site.limits.connect_s:
            self._chores.see_through(self._let_go([pilot], "never said hello"))
            self._never_up(pilot, f"it ran for {mute_s:.0f} s")

    def _never_up(self, pilot: Pilot, found: str) -> None:
        job_id = pilot.record.job_id
        error = start_error(pilot.shape, found, job_id, self.fleet.log_of(job_id))
        self._failed_start(pilot.shape, error)

    def _failed_start(self, shape: Shape, error: BurstError) -> None:
        """Wait a little longer each time; after some failures in a row, tell the tasks."""
        if not self._starts.failed(shape, error, self.site.limits.max_failed_starts):
            return
        alive = any(p.shape == shape and p.phase is Phase.UP for p in self.pilots)
        if not alive:
            self._refuse_waiting(shape, error)

    def _refuse_waiting(self, shape: Shape, error: BurstError) -> None:
        for ticket in [ticket for ticket in self._waiting if ticket.shape == shape]:
            self._waiting.remove(ticket)
            ticket.refuse(error)

    # -- ends -------------------------------------------------------------------------------

    async def _let_go(self, pilots: Sequence[Pilot], reason: str) -> None:
        for pilot in pilots:
            self._forget(pilot, reason)
            pilot.enter(Phase.DRAINING)
            if pilot.line is not None:
                pilot.line.close()
        await self._release(pilots)

    async def _release(self, pilots: Sequence[Pilot]) -> None:
        try:
            await self.fleet.release(pilots)
        except SiteError as error:
            logger.warning("jobs could not be ended, it is tried again: %s", error)
            self._unended |= {p.record.job_id for p in pilots if p.record.job_id}
            self._try_again_at = time.monotonic() + self.site.limits.status_interval_s

    def _end_again(self) -> None:
        """End jobs that could not be ended while the batch system did not answer."""
        if self._unended and time.monotonic() >= self._try_again_at:
            job_ids, self._unended = self._unended, set()
            self._chores.see_through(self._cancel(job_ids))

    async def _cancel(self, job_ids: set[str]) -> None:
        try:
            await self.fleet.cancel(sorted(job_ids))
        except SiteError:
            self._unended |= job_ids
            self._try_again_at = time.monotonic() + self.site.limits.status_interval_s

    def _forget(self, pilot: Pilot, end: str) -> None:
        if self._pilots.pop(pilot.name, None) is not None:
            pilot.record.gone_at = time.time()
            pilot.record.end = end
