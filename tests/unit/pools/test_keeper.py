"""The keeper loses no task, sends no pilot too much, and leaves no job behind."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from hpcburst.errors import BurstError, Cancelled, PilotLost, SiteError, SubmitError
from hpcburst.jobs.dialect import JobNews, JobState
from hpcburst.placement import Placement
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools import keeper as keeper_module
from hpcburst.pools import starts, watch
from hpcburst.pools.keeper import Keeper
from hpcburst.pools.line import LineBroken
from hpcburst.pools.record import RunRecord
from hpcburst.pools.tickets import Ticket
from hpcburst.results import Failure, Fault, Outcome
from hpcburst.tasks import START_S, Burst, Command, Needs, Shape

QUEUE = Queue("local", 8, 64_000, 1, 86_400)
PATHS = Paths(Path("/shared"), Path("/node"))
SHAPE = Shape(cores=2, memory_mb=4000, walltime_s=1800)
LARGE = Shape(cores=4, memory_mb=4000, walltime_s=1800)
QUICK = {
    "idle_s": 0.1,
    "pending_min_age_s": 0.1,
    "status_interval_s": 0.01,
    "connect_s": 0.3,
}


class Line:
    """A pilot that holds its tasks until the test lets them end."""

    def __init__(self):
        self.running, self.cancelled, self.closed = {}, [], False
        self._numbers = count(1)

    async def run(self, _burst, _on_lines, on_number):
        if self.closed:
            raise LineBroken
        number = next(self._numbers)
        ended = self.running[number] = asyncio.get_running_loop().create_future()
        on_number(number)
        try:
            return await ended
        finally:
            del self.running[number]

    def cancel(self, number):
        self.cancelled.append(number)
        self.running[number].set_result(Outcome(failure=Failure(Fault.CANCELLED, "", "withdrawn")))

    def finish(self):
        for ended in list(self.running.values()):
            if not ended.done():
                ended.set_result(Outcome(returncode=0))

    def close(self):
        self.closed = True
        for ended in self.running.values():
            if not ended.done():
                ended.set_exception(LineBroken())


class Fleet:
    """A batch system in memory. Jobs start at once, unless the test says how they do not."""

    def __init__(self, logs):
        self.logs, self.keeper = logs, None
        self.jobs, self.lines, self.released = {}, {}, []
        self.most_jobs = 0
        self.refusal = None
        self.start: Callable[[str, str], None] = self.say_hello
        self.gate, self.release_gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.release_gate.set()
        self.foreign = {}
        self.mute = False

    async def submit(self, name, _shape, _avoid):
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        job_id = str(4000 + len(self.jobs) + len(self.released))
        self.jobs[job_id] = JobState.PENDING
        self.most_jobs = max(self.most_jobs, len(self.jobs))
        await self.gate.wait()
        asyncio.get_running_loop().call_soon(self.start, name, job_id)
        return job_id

    def say_hello(self, name, job_id):
        self.jobs[job_id] = JobState.RUNNING
        self.keeper.pilot_up(name, f"tls://node:{job_id}")

    def die(self, _name, job_id):
        self.jobs[job_id] = JobState.ENDED
        (self.logs / f"{job_id}.log").write_text("no such python\n")

    async def news(self, job_ids):
        if self.mute:
            raise SiteError("squeue was run", "no answer")
        return {job_id: JobNews(self.jobs.get(job_id, JobState.UNKNOWN)) for job_id in job_ids}

    async def gaps(self):
        return ()

    async def drain(self, _address):
        pass

    def holds_alone(self, _address):
        return False

    async def release(self, pilots):
        await self.release_gate.wait()
        for pilot in pilots:
            if pilot.record.job_id:
                self.jobs.pop(pilot.record.job_id, None)
                self.released.append(pilot.record.job_id)

    async def open_line(self, address, _on_left):
        line = self.lines[address] = Line()
        return line

    def log_of(self, job_id):
        return str(self.logs / f"{job_id}.log")

    def foreign_tasks(self, address):
        return self.foreign.get(address, 0)

    def foreign_demand(self):
        return sum(self.foreign.values())

    @property
    def busy_lines(self):
        return [line for line in self.lines.values() if line.running and not line.closed]

    def kill_busy_pilots(self):
        for address, line in list(self.lines.items()):
            if line.running and not line.closed:
                self.keeper.pilot_gone(address)


def eventually(test):
    """Run an asynchronous test, within a minute."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The keeper's pauses, made short."""
    monkeypatch.setattr(keeper_module, "TICK_S", 0.02)
    monkeypatch.setattr(keeper_module, "GATHER_S", 0.001)
    monkeypatch.setattr(watch, "UNKNOWN_GRACE_S", 0.1)
    monkeypatch.setattr(starts, "RETRY_S", (0.01,))


@asynccontextmanager
async def _keeping(logs, shapes=(SHAPE,), **limits):
    site = Site("local", (QUEUE,), SHAPE, Limits(**{**QUICK, **limits}), PATHS)
    fleet = Fleet(logs)
    keeper = fleet.keeper = Keeper(site, fleet, RunRecord(), SHAPE, shapes=shapes)
    keeper.start()
    try:
        yield keeper, fleet
    finally:
        fleet.gate.set()
        fleet.release_gate.set()
        await keeper.close()


def _ticket(shape=SHAPE, *, timeout_s=None, **asks):
    work = Command(("true",), "/", {})
    return Ticket(Burst("fit", work, Needs(**asks), timeout_s=timeout_s), shape)


async def _until(condition, what, within_s=20.0):
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {within_s:g} s")
        await asyncio.sleep(0.005)


async def _end(fleet, tickets, within_s=20.0):
    """Let tasks end as they are handed out, until all have."""

    def ended():
        for line in fleet.busy_lines:
            line.finish()
        return all(ticket.future.done() for ticket in tickets)

    await _until(ended, "the end of all tasks", within_s)


@eventually
async def test_every_task_ends_and_says_where_it_ran(tmp_path):
    """Each task's outcome names its pilot, job, host and log."""
    async with _keeping(tmp_path) as (keeper, fleet):
        tickets = [_ticket() for _ in range(20)]
        for ticket in tickets:
            keeper.enqueue(ticket)
        await _end(fleet, tickets)
        for ticket in tickets:
            outcome = ticket.future.result()
            assert outcome.ok
            assert outcome.sends == 1
            assert outcome.where.host == "node"
            assert outcome.where.log == fleet.log_of(outcome.where.job_id)
        assert len(keeper.record.tasks) == 20


@eventually
async def test_no_more_jobs_than_the_site_allows(tmp_path):
    """However large a burst, there are never more jobs than `max_jobs`."""
    async with _keeping(tmp_path, max_jobs=3) as (keeper, fleet):
        tickets = [_ticket() for _ in range(50)]
        for ticket in tickets:
            keeper.enqueue(ticket)
        await _end(fleet, tickets)
        assert fleet.most_jobs == 3


@pytest.mark.parametrize(
    ("asks", "at_once"),
    [({}, 2), ({"cores": 2}, 1), ({"memory_mb": 3000}, 1), ({"memory_mb": 2000}, 2)],
)
@eventually
async def test_a_pilot_gets_no_more_than_it_holds(tmp_path, asks, at_once):
    """A pilot runs as many tasks as its cores and memory hold; the rest wait with the keeper."""
    async with _keeping(tmp_path, max_jobs=1) as (keeper, fleet):
        tickets = [_ticket(**asks) for _ in range(5)]
        for ticket in tickets:
            keeper.enqueue(ticket)
        most = 0

        def ended():
            nonlocal most
            for line in fleet.busy_lines:
                most = max(most, len(line.running))
                line.finish()
            return all(ticket.future.done() for ticket in tickets)

        await _until(ended, "the end of all tasks")
        assert most == at_once


@eventually
async def test_two_shapes_serve_their_own_tasks(tmp_path):
    """Tasks of two sizes run side by side, each on a pilot that holds it."""
    async with _keeping(tmp_path, (SHAPE, LARGE)) as (keeper, fleet):
        small, large = _ticket(cores=1), _ticket(LARGE, cores=4)
        keeper.enqueue(small)
        keeper.enqueue(large)
        await _until(lambda: len(fleet.busy_lines) == 2, "both shapes at work")
        shapes = {pilot.shape for pilot in keeper.pilots}
        assert shapes == {SHAPE, LARGE}
        await _end(fleet, [small, large])
        assert small.future.result().where.pilot != large.future.result().where.pilot


@eventually
@pytest.mark.parametrize("shapes", [(), (SHAPE,)])
async def test_tasks_of_two_accounts_share_no_pilot(tmp_path, shapes):
    """What one project pays for does the work of that project only."""
    async with _keeping(tmp_path, shapes) as (keeper, fleet):
        places = [Placement(account=account) for account in ("genes", "stars")]
        tickets = [
            _ticket(replace(SHAPE, placement=place), cores=1, placement=place)
            for place in places * 4
        ]
        for ticket in tickets:
            keeper.enqueue(ticket)
        await _end(fleet, tickets)
        for ticket in tickets:
            pilot = keeper.record.pilots[ticket.future.result().where.pilot]
            assert pilot.shape.placement == ticket.burst.needs.placement


@eventually
async def test_a_small_task_leaves_a_large_pilot_to_a_large_task(tmp_path):
    """A pilot goes to the task it was asked for, though another that would fit came first."""
    async with _keeping(tmp_path, (SHAPE, LARGE)) as (keeper, fleet):
        held = []
        fleet.start = lambda name, job_id: held.append((name, job_id))
        small, large = _ticket(cores=1), _ticket(LARGE, cores=4)
        keeper.enqueue(small)
        keeper.enqueue(large)
        await _until(lambda: len(held) == 2, "both jobs")
        held.sort(key=lambda job: keeper._pilots[job[0]].shape == SHAPE)  # the large one first
        for job in held:
            fleet.say_hello(*job)
        await _until(lambda: len(fleet.busy_lines) == 2, "both tasks at work")
        await _end(fleet, [small, large])


@eventually
async def test_a_task_lost_with_its_pilot_is_sent_again(tmp_path):
    """A pilot that dies costs its tasks a second way, not the user a retry; its job is ended."""
    async with _keeping(tmp_path) as (keeper, fleet):
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _until(lambda: fleet.busy_lines, "the task at work")
        first = next(iter(keeper.pilots)).record.job_id
        fleet.kill_busy_pilots()
        await _until(lambda: first in fleet.released, "the end of the lost pilot's job")
        await _end(fleet, [ticket])
        outcome = ticket.future.result()
        assert outcome.ok
        assert outcome.sends == 2
        assert outcome.where.job_id != first


@eventually
async def test_a_broken_line_is_a_lost_pilot(tmp_path):
    """That the connection breaks is enough to know that the pilot is gone."""
    async with _keeping(tmp_path) as (keeper, fleet):
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _until(lambda: fleet.busy_lines, "the task at work")
        fleet.busy_lines[0].close()
        await _end(fleet, [ticket])
        assert ticket.future.result().sends == 2


@eventually
async def test_a_task_that_loses_every_pilot_is_given_up(tmp_path):
    """A task that takes its pilots down ends with PilotLost, which says what job to look at."""
    async with _keeping(tmp_path, max_sends=3) as (keeper, fleet):
        ticket = _ticket()
        keeper.enqueue(ticket)

        def lost():
            fleet.kill_busy_pilots()
            return ticket.future.done()

        await _until(lost, "the end of the task")
        error = ticket.future.exception()
        assert isinstance(error, PilotLost)
        assert error.job_id in fleet.released
        assert error.log == fleet.log_of(error.job_id)
        assert ticket.sends == 3


@eventually
async def test_jobs_that_die_at_once_are_an_answer(tmp_path):
    """After three jobs that ended before their pilot's hello, the tasks fail with the job's log."""
    async with _keeping(tmp_path, max_failed_starts=3, max_jobs=1) as (keeper, fleet):
        fleet.start = fleet.die
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _until(ticket.future.done, "the end of the task")
        error = ticket.future.exception()
        assert isinstance(error, SubmitError)
        assert "no such python" in str(error)
        assert error.job_id in str(error)
        await _until(lambda: "no such python" in str(keeper.why()) or not keeper.why(), "a reason")


@eventually
async def test_jobs_that_start_and_stay_mute_are_an_answer(tmp_path):
    """Jobs that run while their pilots never say hello are ended, and the tasks told."""
    async with _keeping(tmp_path, max_failed_starts=2, max_jobs=1) as (keeper, fleet):
        fleet.start = lambda _, job_id: fleet.jobs.update({job_id: JobState.RUNNING})
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _until(ticket.future.done, "the end of the task")
        assert isinstance(ticket.future.exception(), SubmitError)
        await _until(lambda: not fleet.jobs, "the end of the mute jobs")


@eventually
async def test_a_refusal_of_the_batch_system_is_told_as_it_is(tmp_path):
    """When the batch system refuses jobs, the tasks fail with its own words."""
    async with _keeping(tmp_path, max_failed_starts=3) as (keeper, fleet):
        fleet.refusal = SubmitError("A job was submitted", tail="sbatch: invalid account")
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _until(ticket.future.done, "the end of the task")
        assert "invalid account" in str(ticket.future.exception())


@eventually
async def test_one_failed_start_is_not_the_end(tmp_path):
    """A job that dies at once is replaced; the task never notices."""
    async with _keeping(tmp_path, max_jobs=1) as (keeper, fleet):

        def die_once(name, job_id):
            fleet.die(name, job_id)
            fleet.start = fleet.say_hello

        fleet.start = die_once
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _end(fleet, [ticket])
        assert ticket.future.result().sends == 1


@eventually
async def test_a_batch_system_that_does_not_answer_is_waited_for(tmp_path):
    """A status command that fails costs nothing: pilots say hello themselves."""
    async with _keeping(tmp_path) as (keeper, fleet):
        fleet.mute = True
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _end(fleet, [ticket])
        assert ticket.future.result().ok


@eventually
async def test_a_job_unknown_at_first_is_not_taken_for_dead(tmp_path):
    """Batch systems forget a new job for a moment: it is not submitted a second time."""
    async with _keeping(tmp_path, max_jobs=1) as (keeper, fleet):
        watch.UNKNOWN_GRACE_S = 60.0
        names = []
        fleet.start = lambda name, job_id: names.append((name, job_id, fleet.jobs.pop(job_id)))
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _until(lambda: names, "the job")
        looks = keeper._watch._states.asked_at
        await _until(lambda: keeper._watch._states.asked_at > looks + 0.05, "some looks at the job")
        assert len(names) == 1
        fleet.say_hello(*names[0][:2])
        await _end(fleet, [ticket])


@eventually
async def test_idle_pilots_leave(tmp_path):
    """When there is nothing to do, all pilots leave and no job is left."""
    async with _keeping(tmp_path) as (keeper, fleet):
        tickets = [_ticket() for _ in range(8)]
        for ticket in tickets:
            keeper.enqueue(ticket)
        await _end(fleet, tickets)
        await _until(lambda: not fleet.jobs and not list(keeper.pilots), "the end of all jobs")
        assert all(pilot.end.startswith("idle") for pilot in keeper.record.pilots.values())


@eventually
async def test_a_floor_stays(tmp_path):
    """Pilots the user holds with `scale` stay without work, and leave when they are let go."""
    async with _keeping(tmp_path) as (keeper, fleet):
        keeper.floor = {SHAPE: 2}
        keeper.wake()
        await _until(lambda: len(fleet.lines) == 2, "two pilots")
        await asyncio.sleep(3 * QUICK["idle_s"])
        assert len(fleet.jobs) == 2
        keeper.floor = {}
        keeper.wake()
        await _until(lambda: not fleet.jobs, "the end of both")


@eventually
async def test_a_pilot_that_works_for_plain_dask_is_not_idle(tmp_path):
    """A pilot with a task of plain Dask stays, however long ago it had one of ours."""
    async with _keeping(tmp_path) as (keeper, fleet):
        keeper.floor = {SHAPE: 2}
        keeper.wake()
        await _until(lambda: len(fleet.lines) == 2, "two pilots")
        busy = next(iter(fleet.lines))  # the one that idles longest
        fleet.foreign[busy] = 1
        keeper.floor = {}
        keeper.wake()
        await _until(lambda: len(fleet.jobs) == 1, "the other one's end")
        assert not fleet.lines[busy].closed
        await asyncio.sleep(3 * QUICK["idle_s"])
        assert not fleet.lines[busy].closed


@eventually
async def test_a_waiting_task_is_withdrawn(tmp_path):
    """A task given up while it waits is never handed to a pilot."""
    async with _keeping(tmp_path, max_jobs=1) as (keeper, fleet):
        first, second = _ticket(cores=2), _ticket(cores=2)
        keeper.enqueue(first)
        keeper.enqueue(second)
        await _until(lambda: fleet.busy_lines, "the first task at work")
        second.future.cancel()
        keeper.withdraw(second)
        await _end(fleet, [first])
        assert second.sends == 0
        await _until(lambda: not fleet.jobs, "the end of all jobs")


@eventually
async def test_a_running_task_is_stopped(tmp_path):
    """A task given up while it runs is stopped on its pilot, which goes on with the next."""
    async with _keeping(tmp_path, max_jobs=1) as (keeper, fleet):
        first, second = _ticket(cores=2), _ticket(cores=2)
        keeper.enqueue(first)
        keeper.enqueue(second)
        await _until(lambda: fleet.busy_lines, "the first task at work")
        (line,) = fleet.busy_lines
        first.future.cancel()
        keeper.withdraw(first)
        assert line.cancelled == [1]
        await _end(fleet, [second])
        assert second.future.result().ok


@eventually
async def test_a_task_given_up_at_once_never_runs(tmp_path):
    """A task given up in the moment it is handed to a pilot does not run there unwanted."""
    async with _keeping(tmp_path, max_jobs=1) as (keeper, fleet):
        first, second, third = (_ticket(cores=2) for _ in range(3))
        keeper.enqueue(first)
        await _end(fleet, [first])
        keeper.enqueue(second)
        second.future.cancel()
        keeper.withdraw(second)
        keeper.enqueue(third)
        await _until(lambda: third.sends, "the next task's turn")
        (line,) = fleet.busy_lines
        assert list(line.running) == [2]
        await _end(fleet, [third])


@eventually
async def test_closing_settles_every_task_and_ends_every_job(tmp_path):
    """A closed run leaves no future open and no job, and closing again is harmless."""
    async with _keeping(tmp_path, max_jobs=2) as (keeper, fleet):
        tickets = [_ticket() for _ in range(9)]
        for ticket in tickets:
            keeper.enqueue(ticket)
        await _until(lambda: len(fleet.busy_lines) == 2, "tasks at work")
        await keeper.close()
        await keeper.close()
        assert all(isinstance(ticket.future.exception(), Cancelled) for ticket in tickets)
        assert not fleet.jobs
        late = _ticket()
        keeper.enqueue(late)
        assert isinstance(late.future.exception(), Cancelled)


@eventually
async def test_a_job_submitted_while_closing_is_ended(tmp_path):
    """A job whose submission had begun when the run was closed does not stay in the queue."""
    async with _keeping(tmp_path) as (keeper, fleet):
        fleet.gate.clear()
        keeper.enqueue(_ticket())
        await _until(lambda: fleet.jobs, "the submission")
        closing = asyncio.create_task(keeper.close())
        await asyncio.sleep(0.05)
        fleet.gate.set()
        await closing
        assert not fleet.jobs


@eventually
async def test_a_pilot_that_was_leaving_while_closing_is_ended(tmp_path):
    """A job that was being ended when the run was closed is ended all the same."""
    async with _keeping(tmp_path) as (keeper, fleet):
        fleet.release_gate.clear()
        ticket = _ticket()
        keeper.enqueue(ticket)
        await _end(fleet, [ticket])
        await _until(lambda: not list(keeper.pilots), "the pilot's leave")
        closing = asyncio.create_task(keeper.close())
        await asyncio.sleep(0.05)
        fleet.release_gate.set()
        await closing
        assert not fleet.jobs


@eventually
async def test_a_pilot_near_its_walltime_finishes_and_takes_no_more(tmp_path):
    """Before a pilot's time is over it takes no new task, its successor is there, none is lost."""
    short = Shape(cores=1, memory_mb=1000, walltime_s=2.0)
    async with _keeping(tmp_path, (short,)) as (keeper, fleet):
        first = _ticket(short)
        keeper.enqueue(first)
        await _until(lambda: fleet.busy_lines, "the first task at work")
        (pilot,) = keeper.pilots
        pilot.deadline = time.monotonic() + 0.3
        second = _ticket(short)
        keeper.enqueue(second)
        await _until(lambda: len(fleet.lines) == 2, "its successor")
        await _end(fleet, [first, second])
        assert [first.sends, second.sends] == [1, 1]
        assert first.future.result().where.pilot != second.future.result().where.pilot


@eventually
async def test_a_task_longer_than_what_is_left_gets_a_fresh_pilot(tmp_path):
    """An old pilot without the time for a task does not keep the task from a new one."""
    async with _keeping(tmp_path, idle_s=60.0) as (keeper, fleet):
        first, long = _ticket(), _ticket(walltime_s=1200.0)
        keeper.enqueue(first)
        await _end(fleet, [first])
        (old,) = keeper.pilots
        old.deadline = time.monotonic() + 600
        keeper.enqueue(long)
        await _end(fleet, [long])
        assert long.future.result().where.pilot != old.name


@eventually
async def test_a_time_out_longer_than_any_pilot_does_not_hold_a_task_back(tmp_path):
    """A generous time-out is a bound, not a need: the task runs on an ordinary pilot."""
    async with _keeping(tmp_path) as (keeper, fleet):
        ticket = _ticket(timeout_s=10 * SHAPE.walltime_s)
        keeper.enqueue(ticket)
        await _end(fleet, [ticket])
        assert ticket.future.result().sends == 1


@eventually
async def test_a_slow_start_does_not_keep_a_task_from_its_pilot(tmp_path):
    """A pilot that took long to come still takes the task it came for: no job after job for it."""
    async with _keeping(tmp_path, connect_s=600.0, max_jobs=1) as (keeper, fleet):
        ticket = _ticket(walltime_s=SHAPE.walltime_s - START_S)

        def come_late(name, job_id):
            keeper._pilots[name].job_seen_running = time.monotonic() - 2 * START_S
            fleet.say_hello(name, job_id)

        fleet.start = come_late
        keeper.enqueue(ticket)
        await _end(fleet, [ticket])
        assert len(keeper.record.pilots) == 1


@eventually
async def test_a_caller_that_gives_up_at_the_last_moment_breaks_nothing(tmp_path):
    """A future cancelled just as its task ends neither stops the keeper nor loses a pilot."""
    async with _keeping(tmp_path, max_jobs=1) as (keeper, fleet):
        first, second = _ticket(cores=2), _ticket(cores=2)
        keeper.enqueue(first)
        keeper.enqueue(second)
        await _until(lambda: fleet.busy_lines, "the first task at work")
        first.future.cancel()  # and its withdrawal comes too late
        await _end(fleet, [second])
        assert second.future.result().ok


@eventually
async def test_every_error_of_a_start_is_a_burst_error(tmp_path):
    """Whatever goes wrong before a task begins, its future holds one of our errors."""
    async with _keeping(tmp_path, (SHAPE, LARGE), max_failed_starts=1) as (keeper, fleet):
        fleet.start = fleet.die
        tickets = [_ticket(), _ticket(LARGE, cores=4)]
        for ticket in tickets:
            keeper.enqueue(ticket)
        await _until(lambda: all(t.future.done() for t in tickets), "the end of both tasks")
        assert all(isinstance(t.future.exception(), BurstError) for t in tickets)
