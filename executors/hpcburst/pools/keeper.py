"""The keeper: holds the backlog, hands tasks to pilots, and does what the planner decides.

It lives in the cluster's event loop, one thread, so its state needs no locks. A pilot gets as many
tasks as it has room for, never more: what waits, waits here, where a late pilot can still take it.
What is lost with a pilot is sent again, within a limit, without costing the user a retry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hpcburst.errors import BurstError
from hpcburst.jobs.dialect import JobNews
from hpcburst.policy.model import Site
from hpcburst.pools import refusals
from hpcburst.pools.backlog import Backlog
from hpcburst.pools.budget import Budget
from hpcburst.pools.choosing import paused
from hpcburst.pools.chores import Chores
from hpcburst.pools.history import History
from hpcburst.pools.line import LineBroken
from hpcburst.pools.matching import matches
from hpcburst.pools.pilots import LAST_S, Fleet, Pilot
from hpcburst.pools.planner import Demand, Learned, Phase, Plan, plan
from hpcburst.pools.record import PilotRecord, RunRecord
from hpcburst.pools.starts import Starts, start_error
from hpcburst.pools.state import RunNow, run_now
from hpcburst.pools.tickets import Ticket, demand_of_kinds
from hpcburst.pools.watch import Watch, loss_of
from hpcburst.results import Outcome
from hpcburst.tasks import Shape

logger = logging.getLogger("hpcburst")

TICK_S = 1.0
"""How often the planner looks again when nothing happens; idle patience has such steps."""

GATHER_S = 0.02
"""A burst of submissions is seen as one: the planner waits this long for the rest of it."""


@dataclass(slots=True)
class Keeper:
    """Keeps one run's tasks and pilots.

    Attributes:
        site: What the site allows.
        fleet: Where jobs are submitted and ended.
        record: What happened.
        default_shape: What plain Dask's tasks get.
        floor: Pilots to hold by shape even when nothing is to do.
        shapes: Shapes that the user configured; () leaves the choice to the planner.
        history: What earlier runs taught.
    """

    site: Site
    fleet: Fleet
    record: RunRecord
    default_shape: Shape
    floor: dict[Shape, int] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    history: History = field(default_factory=History)
    _waiting: Backlog = field(default_factory=Backlog)
    _pilots: dict[str, Pilot] = field(default_factory=dict)
    _starts: Starts = field(default_factory=Starts)
    _decided: Plan = field(default_factory=lambda: Plan({}, {}, {}))
    _foreign_waiting: int = 0
    _names: int = 0
    _awake: asyncio.Event = field(default_factory=asyncio.Event)
    _chores: Chores = field(default_factory=Chores)
    _closed: bool = False
    _watch: Watch = field(init=False)
    _budget: Budget = field(init=False)

    def __post_init__(self) -> None:
        self._watch = Watch(self.fleet, self.site, self._chores, self.wake)
        self._budget = Budget(self.site)

    # -- what callers say -------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look after tasks and pilots."""
        self._chores.begin(self._look_after())

    def enqueue(self, ticket: Ticket) -> None:
        """Take a task."""
        if self._closed:
            ticket.refuse(refusals.closed(ticket, "the cluster is closed"))
            return
        ticket.learned_s = self.history.task_s(ticket.history_name, ticket.env_key)
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
        return [f"{shape}: {words}" for shape, words in self._decided.why.items()]

    def now(self, run: str) -> RunNow:
        """What the run of that name is doing; callable from any thread."""
        outlook = self._watch.outlook(self._starts.again_at(), self.floor, self._budget.spent_h)
        pilots = list(self._pilots.values())
        waiting = len(self._waiting) + self._foreign_waiting
        return run_now(run, self.record, waiting, pilots, self._decided, outlook)

    @property
    def pilots(self) -> Iterable[Pilot]:
        """Every pilot that is asked for, pending, up or draining."""
        return self._pilots.values()

    async def close(self) -> None:
        """Withdraw all tasks and end all pilots. Idempotent."""
        self._closed = True
        waiting, self._waiting = list(self._waiting), Backlog()
        running = [ticket for pilot in self.pilots for ticket in pilot.tickets]
        for ticket in waiting + running:
            ticket.refuse(refusals.closed(ticket, "the run was closed"))
        await self._chores.stop()
        await self._let_go(list(self.pilots), "the run ended")
        self.history.save()

    # -- what pilots say --------------------------------------------------------------------

    def pilot_up(self, name: str, address: str) -> None:
        """A pilot said hello."""
        pilot = self._pilots.get(name)
        if self._closed:
            return
        if pilot is None:  # given up while the batch system was mute, and started all the same
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
            pilot.line = await self.fleet.open_line(
                address, lambda left_s: self._ends(pilot, left_s)
            )
        except OSError as error:
            logger.warning("pilot %s said hello and does not answer: %s", pilot.name, error)
            return
        if pilot.name not in self._pilots:
            if pilot.line is not None:
                pilot.line.close()
            return
        pilot.address = address
        pilot.deadline = time.monotonic() + pilot.shape.walltime_s - pilot.spent_s()
        pilot.record.up_at = time.time()
        pilot.record.host = address.rsplit("//", maxsplit=1)[-1].rsplit(":", 1)[0]
        pilot.enter(Phase.UP)
        self._starts.succeeded(pilot.shape, pilot.record.node)
        self.history.note_start(pilot.shape, pilot.record.up_at - pilot.record.asked_at)
        self._dispatch()
        self._awake.set()

    def _ends(self, pilot: Pilot, left_s: float) -> None:
        """The pilot told when its job ends, which it knows better."""
        pilot.deadline = time.monotonic() + left_s
        self._drain_ending()
        self._awake.set()

    def _lose(self, pilot: Pilot) -> None:
        """A pilot went away by itself; its tasks come back through their broken calls."""
        self._forget(pilot, "lost")
        if pilot.line is not None:
            pilot.line.close()
        self._chores.see_through(self._watch.release([pilot]))  # its job may still hold the node
        self._awake.set()

    # -- handing tasks to pilots ------------------------------------------------------------

    def _dispatch(self) -> None:
        """Hand waiting tasks to pilots with room."""
        up = [pilot for pilot in self.pilots if pilot.phase is Phase.UP]
        foreign = {pilot.name: self.fleet.foreign_tasks(pilot.address) for pilot in up}
        for ticket, pilot in matches(self._waiting, up, foreign):
            ticket.sends += 1
            ticket.sent_at = time.monotonic()
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
            self._learn(ticket, outcome)
            log = self.fleet.log_of(pilot.record.job_id)
            ticket.settle(self.record.note(ticket.burst, pilot.record, outcome, log, ticket.sends))
        finally:
            ticket.withdraw_call = None
            pilot.tickets.discard(ticket)
            if not pilot.tickets:
                pilot.since = time.monotonic()
            self._dispatch()
            self._awake.set()

    def _learn(self, ticket: Ticket, outcome: Outcome) -> None:
        if outcome.ok:
            name, env_key = ticket.history_name, ticket.env_key
            self.history.note_task(name, env_key, outcome.usage.wall_s)
            self._waiting.teach(ticket, self.history.task_s(name, env_key) or 0.0)

    def _send_again(self, ticket: Ticket, pilot: Pilot) -> None:
        """The pilot went away with the task: queue it first, or give up on it."""
        ticket.cut_off_s = max(ticket.cut_off_s, time.monotonic() - ticket.sent_at)
        if pilot.name in self._pilots and pilot.phase is not Phase.DRAINING:
            self._lose(pilot)
        if self._closed or ticket.future.done():
            return
        limit = self.site.limits.max_sends
        if ticket.sends < limit:
            logger.info(
                "task %s was lost with pilot %s; it is sent again", ticket.burst.name, pilot.name
            )
            self._waiting.appendleft(ticket)
            return
        log = self.fleet.log_of(pilot.record.job_id)
        ticket.refuse(refusals.lost_too_often(ticket, limit, pilot.record, log))

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
                self._look()
                self._drain_ending()
                if not self._watch.gaps_awaited:
                    self._act(self._plan())
            except Exception:  # the edge of the keeper: without it, tasks would wait for ever
                logger.exception("the keeper stumbled; it looks again in %g s", TICK_S)
                await asyncio.sleep(TICK_S)

    def _look(self) -> None:
        """See to what the batch system knows and we do not."""
        pending = [pilot for pilot in self.pilots if pilot.phase is Phase.PENDING]
        self._watch.look_at_jobs(pending, self._note_news)
        self._watch.end_again()
        for pilot in self.pilots:
            pilot.look(self.fleet.foreign_tasks(pilot.address))
        if self._waiting:
            self._watch.look_for_gaps()

    def _plan(self) -> Plan:
        learned = Learned(
            start_delay_s=self.history.start_delay_s(),
            paused=self._starts.paused(),
            floor=self.floor,
            spent_core_s=self._budget.spent_core_s(self.record.pilots.values()),
        )
        views = [pilot.view() for pilot in self.pilots]
        return plan(self._demand(), views, self.site, self._watch.gaps, learned)

    def _demand(self) -> list[Demand]:
        up = [pilot for pilot in self.pilots if pilot.phase is Phase.UP]
        running = Counter(ticket.kind for pilot in up for ticket in pilot.tickets)
        rows = demand_of_kinds(self._waiting.counts(), running, self.shapes)
        foreign = self.fleet.foreign_demand()
        if foreign:
            begun = min(foreign, sum(pilot.foreign for pilot in up))
            shape = self.default_shape
            rows.append(Demand(shape, waiting=foreign - begun, running=begun, shapes=(shape,)))
        self._foreign_waiting = rows[-1].waiting if foreign else 0
        return rows

    def _act(self, decided: Plan) -> None:
        self._decided = decided
        for reason in set(decided.retire.values()):  # one order for all who leave for one reason
            names = [name for name, why in decided.retire.items() if why == reason]
            logger.info("%s leave: %s", ", ".join(names), reason)
            self._chores.see_through(self._let_go([self._pilots[n] for n in names], reason))
        for shape, count in decided.submit.items():
            for _ in range(count):
                self._chores.see_through(self._ask(shape))
        if self._waiting and not (self._pilots or decided.submit or self._starts.paused()):
            for ticket in list(self._waiting):
                self._waiting.remove(ticket)
                ticket.refuse(refusals.never_allowed(ticket, decided))

    def _drain_ending(self) -> None:
        """Pilots near their walltime take no more tasks, and leave when they have none."""
        for pilot in list(self.pilots):
            if pilot.phase is Phase.UP and time.monotonic() > pilot.drains_at:
                pilot.enter(Phase.DRAINING)
                self._chores.begin(self.fleet.drain(pilot.address))
            if pilot.phase is Phase.DRAINING and self._may_leave(pilot):
                self._chores.see_through(self._let_go([pilot], "its walltime is nearly over"))

    def _may_leave(self, pilot: Pilot) -> bool:
        """Whether a draining pilot has no task left, and others have its results."""
        pilot.look(self.fleet.foreign_tasks(pilot.address))
        kept = pilot.left_s > LAST_S and self.fleet.holds_alone(pilot.address)
        return not (pilot.busy or kept)

    async def _ask(self, shape: Shape) -> None:
        """Submit one job."""
        self._names += 1
        name = f"pilot-{self._names}"
        pilot = Pilot(name, shape, PilotRecord(name, shape, asked_at=time.time()))
        self._pilots[name] = pilot
        self.record.pilots[name] = pilot.record
        try:
            pilot.record.job_id = await self.fleet.submit(name, shape, self._starts.avoided())
        except BurstError as error:
            self._forget(pilot, "not submitted")
            self._failed_start(shape, error)
            return
        if pilot.phase is Phase.ASKED:
            pilot.enter(Phase.PENDING)
        if name not in self._pilots:  # it came and went before we knew which job it was
            await self._watch.release([pilot])

    def _note_news(self, told: Mapping[str, JobNews]) -> None:
        for pilot in [pilot for pilot in self.pilots if pilot.phase is Phase.PENDING]:
            news = told.get(pilot.record.job_id)
            loss = news and loss_of(pilot, news, self.site.limits.connect_s)
            if not loss:
                continue
            if loss.release:
                self._chores.see_through(self._let_go([pilot], loss.end))
            else:
                self._forget(pilot, loss.end)
            job_id = pilot.record.job_id
            error = start_error(pilot.shape, loss.found, job_id, self.fleet.log_of(job_id))
            self._failed_start(pilot.shape, error, pilot.record.node)

    def _failed_start(self, shape: Shape, error: BurstError, node: str = "") -> None:
        """Wait a little longer each time; after some failures in a row, tell the tasks."""
        if not self._starts.failed(shape, error, self.site.limits.max_failed_starts, node):
            return
        up = [pilot.shape for pilot in self.pilots if pilot.phase is Phase.UP]
        learned = Learned(paused={shape: str(error)})
        for ticket in list(self._waiting):
            needs = ticket.burst.needs
            hopeless = shape.holds(needs) or paused(ticket.shape, self.site, learned)
            if hopeless and not any(other.holds(needs) for other in up):
                self._waiting.remove(ticket)
                ticket.refuse(error)

    # -- ends -------------------------------------------------------------------------------

    def let_idle_go(self) -> None:
        """End the pilots that have nothing to do, without patience."""
        idle = [p for p in self.pilots if p.phase is Phase.UP and not p.busy]
        self._chores.see_through(self._let_go(idle, "idle, and asked to leave"))

    async def _let_go(self, pilots: Sequence[Pilot], reason: str) -> None:
        for pilot in pilots:
            self._forget(pilot, reason)
            pilot.enter(Phase.DRAINING)
            if pilot.line is not None:
                pilot.line.close()
        await self._watch.release(pilots)

    def _forget(self, pilot: Pilot, end: str) -> None:
        if self._pilots.pop(pilot.name, None) is not None:
            pilot.record.gone_at = time.time()
            pilot.record.end = end
