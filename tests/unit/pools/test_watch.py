"""The batch system is asked seldom, less while it is slow or away, and never twice at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import SiteError
from hpcburst.jobs.dialect import Gap, JobNews, JobState
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools import watch
from hpcburst.pools.chores import Chores
from hpcburst.pools.pilots import Pilot
from hpcburst.pools.planner import Phase
from hpcburst.pools.record import PilotRecord
from hpcburst.pools.watch import GAPS_INTERVAL_S, LONGEST_PAUSE_S, SHARE, Question, Watch, loss_of
from hpcburst.tasks import Shape

SHAPE = Shape(cores=1, memory_mb=1000, walltime_s=600)
QUEUE = Queue("batch", 8, 64_000)
PATHS = Paths(Path("/shared"), Path("/node"))
SITE = Site("slurm", (QUEUE,), SHAPE, Limits(status_interval_s=60.0), PATHS)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of the watch and of its pilots."""
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


class Fleet:
    """A batch system that counts what it is asked."""

    def __init__(self, clock, takes_s=0.0):
        self.clock, self.takes_s = clock, takes_s
        self.asked, self.cancelled, self.away = [], [], False

    async def news(self, job_ids):
        self.asked.append(list(job_ids))
        return self._answer({job_id: JobNews(JobState.PENDING) for job_id in job_ids})

    async def gaps(self):
        return self._answer([Gap("batch", 4, 4000, 120.0)])

    async def release(self, _pilots):
        self._answer(None)

    async def cancel(self, job_ids):
        self.cancelled += self._answer(list(job_ids))

    def _answer(self, answer):
        self.clock.now += self.takes_s
        if self.away:
            raise SiteError("squeue was run", "no answer")
        return answer


def _watch(fleet):
    return Watch(fleet, SITE, Chores(), lambda: None)


def _pilot(clock, age_s=0.0, job_id="7"):
    pilot = Pilot("pilot-1", SHAPE, PilotRecord("pilot-1", SHAPE, job_id), Phase.PENDING)
    pilot.since = clock.now - age_s
    return pilot


def _look_for(fleet, pilots, clock, seconds, *, step_s=1.0):
    """Look every second for so long; returns what was told."""

    async def look():
        watcher, told = _watch(fleet), []
        for _ in range(int(seconds / step_s)):
            watcher.look_at_jobs(pilots, told.append)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            clock.now += step_s
        return told

    return asyncio.run(look())


def test_one_call_tells_of_all_jobs(clock):
    """However many jobs wait, one look asks for all of them at once."""
    fleet = Fleet(clock)
    pilots = [_pilot(clock, job_id=str(number)) for number in range(50)]
    _look_for(fleet, pilots, clock, 1)
    assert fleet.asked == [[str(number) for number in range(50)]]


def test_looks_are_seldom_once_jobs_are_old(clock):
    """In the first minute of a job every ten seconds, later every minute."""
    fleet = Fleet(clock)
    _look_for(fleet, [_pilot(clock)], clock, 60)
    assert len(fleet.asked) == 6
    fleet.asked.clear()
    _look_for(fleet, [_pilot(clock, age_s=600)], clock, 600)
    assert len(fleet.asked) == 10


def test_nobody_is_asked_when_no_job_waits(clock):
    """Without a waiting job there is no question."""
    fleet = Fleet(clock)
    _look_for(fleet, [], clock, 600)
    assert not fleet.asked


def test_a_batch_system_that_is_away_is_asked_less_and_less(clock):
    """While no answer comes the pause doubles, to five minutes at most; nothing is told."""
    fleet = Fleet(clock)
    fleet.away = True
    assert _look_for(fleet, [_pilot(clock, age_s=600)], clock, 3600) == []
    assert 12 <= len(fleet.asked) <= 15  # not sixty


@given(st.floats(0, 100), st.floats(1, 600))
def test_questions_take_a_small_part_of_the_time(took_s, interval_s):
    """A slow answer is waited for twenty times as long before the next question."""
    question = Question(took_s=took_s)
    question.asked_at = watch.time.monotonic() - took_s - max(interval_s, took_s / SHARE) + 0.1
    assert not question.due(interval_s)
    question.asked_at -= 0.2
    assert question.due(interval_s)


@given(st.integers(0, 100), st.floats(1, 600))
def test_no_pause_is_longer_than_five_minutes_or_what_was_asked_for(failures, interval_s):
    """However long the batch system is away, it is tried again."""
    question = Question(failures=failures)
    question.asked_at = watch.time.monotonic() - max(LONGEST_PAUSE_S, interval_s) - 0.1
    assert question.due(interval_s)


def test_an_open_question_is_not_asked_again():
    """While an answer is awaited nobody asks again."""
    question = Question()
    question.ask()
    question.asked_at -= 1e6
    assert not question.due(1.0)
    question.answered(well=True)
    assert not question.open


def test_gaps_are_forgotten_when_nobody_asks(clock):
    """What the schedule looked like a while ago is not believed."""

    async def ask():
        watcher = _watch(Fleet(clock))
        watcher.look_for_gaps()
        assert watcher.gaps_awaited
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not watcher.gaps_awaited
        assert watcher.gaps == (Gap("batch", 4, 4000, 120.0),)
        clock.now += 2 * GAPS_INTERVAL_S
        assert watcher.gaps == ()

    asyncio.run(ask())


def test_what_cannot_be_ended_is_ended_later(clock):
    """Jobs whose end the batch system did not hear of are ended when it answers again."""

    async def end():
        fleet = Fleet(clock)
        watcher = _watch(fleet)
        fleet.away = True
        await watcher.release([_pilot(clock)])
        watcher.end_again()
        assert not fleet.cancelled
        clock.now += SITE.limits.status_interval_s
        watcher.end_again()  # still away: once more
        await watcher.chores.stop()
        fleet.away = False
        clock.now += SITE.limits.status_interval_s
        watcher.end_again()
        await watcher.chores.stop()
        assert fleet.cancelled == ["7"]

    asyncio.run(end())


@pytest.mark.parametrize(
    ("news", "age_s", "end"),
    [
        (JobNews(JobState.PENDING, "Priority"), 9999, None),
        (JobNews(JobState.PENDING, "JobHeldUser", held=True), 1, "held"),
        (JobNews(JobState.ENDED, "FAILED"), 1, "ended before it said hello"),
        (JobNews(JobState.UNKNOWN), 1, None),
        (JobNews(JobState.UNKNOWN), 60, "ended before it said hello"),
        (JobNews(JobState.RUNNING), 9999, None),
    ],
)
def test_what_news_mean_for_a_job(clock, news, age_s, end):
    """Every state of a job has a time-out, or is waited for; a reason is kept for the user."""
    pilot = _pilot(clock, age_s)
    loss = loss_of(pilot, news, connect_s=120)
    assert (loss and loss.end) == end
    assert pilot.waits_for == news.reason


def test_a_job_that_runs_and_stays_mute_is_given_up(clock):
    """A running job has `connect_s` seconds for its pilot's hello, from when it is seen running."""
    pilot, running = _pilot(clock), JobNews(JobState.RUNNING, host="n7")
    assert loss_of(pilot, running, connect_s=120) is None
    clock.now += 121
    loss = loss_of(pilot, running, connect_s=120)
    assert loss is not None
    assert loss.release
    assert pilot.record.node == "n7"


def test_a_site_may_ask_for_fewer_looks():
    """The interval is the site's to state."""
    limits = replace(SITE.limits, status_interval_s=600.0)
    question = Question(asked_at=watch.time.monotonic() - 60)
    assert question.due(60.0 - 0.1)
    assert not question.due(limits.status_interval_s)
