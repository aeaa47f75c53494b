"""What a run says it is doing is true, has a reason for everything, and can be read by others."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.placement import Placement
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools import telling
from hpcburst.pools.pilots import Pilot
from hpcburst.pools.record import PilotRecord, RunRecord
from hpcburst.pools.saying import answer, counts_words, duration, job_words, stages_words
from hpcburst.pools.situation import Demand, Phase, Plan
from hpcburst.pools.state import (
    JobNow,
    Outlook,
    RunNow,
    ShapeNow,
    Stage,
    TasksNow,
    jobs_now,
    run_now,
)
from hpcburst.pools.telling import Teller, read_state
from hpcburst.tasks import Shape

SHAPE = Shape(cores=2, memory_mb=4000, walltime_s=1800)
LIMITS = Limits(connect_s=120.0, idle_s=10.0)
SITE = Site("slurm", (Queue("main", 8, 64_000),), SHAPE, LIMITS, Paths(Path("/s"), Path("/n")))
NOW = 1000.0
"""The keeper's clock; others read 1,000,000 s more."""

OUTLOOK = Outlook(SITE, submit_s=60.0, look_at=NOW + 40, offset_s=1e6, told_at=NOW + 1e6)


def _pilot(phase, *, since=NOW - 30, **more):
    pilot = Pilot("pilot-1", SHAPE, PilotRecord("pilot-1", SHAPE, "4711"), phase, since)
    for name, value in more.items():
        setattr(pilot, name, value)
    return pilot


def _now(pilot, **outlook):
    (job,) = jobs_now([pilot], replace(OUTLOOK, **outlook))
    return job


@pytest.mark.parametrize(
    ("pilot", "stage", "why", "due"),
    [
        (_pilot(Phase.ASKED), Stage.SUBMITTING, "submit command", NOW + 30),
        (_pilot(Phase.PENDING, waits_for="Priority"), Stage.PENDING, "Priority", NOW + 40),
        (_pilot(Phase.PENDING, job_seen_running=NOW - 20), Stage.STARTING, "hello", NOW + 100),
        (_pilot(Phase.UP, deadline=NOW + 900), Stage.IDLE, "no task", NOW - 20),
        (_pilot(Phase.UP, foreign=1, deadline=NOW + 900), Stage.BUSY, "works", NOW + 885),
        (_pilot(Phase.DRAINING, deadline=NOW + 9), Stage.DRAINING, "walltime", NOW + 9),
    ],
)
def test_every_job_has_a_reason_and_a_time_out(pilot, stage, why, due):
    """At each stage of its life a job says why it is there and when something happens next."""
    job = _now(pilot)
    assert job.stage is stage
    assert why in job.why
    assert job.then
    assert job.due_at == due + 1e6
    words = job_words(job, NOW + 1e6)
    assert job.why in words
    assert job.then in words


def test_a_job_nobody_was_asked_about_has_no_date():
    """What nobody can know is not made up, and is no number that JSON does not have."""
    job = _now(_pilot(Phase.PENDING), look_at=-math.inf)
    assert job.due_at is None
    assert job.why


def test_a_held_pilot_stays():
    """Who asked for pilots to be held does not read that they leave."""
    job = _now(_pilot(Phase.UP, deadline=NOW + 900), held={SHAPE: 1})
    assert "held" in job.why
    assert job.due_at is None


def _run(**more):
    row = Demand(SHAPE, waiting=3, running=1, cores=2, expected_s=30.0)
    plan = Plan({}, {}, {SHAPE: "no more"}, {row: "a limit is reached"})
    pilot = _pilot(Phase.PENDING, waits_for="Resources")
    run = run_now("r1", RunRecord(started_at=5.0), 3, [pilot], plan, OUTLOOK)
    return replace(run, **more)


def test_waiting_tasks_and_shapes_have_their_reasons():
    """Every shape and every group of waiting tasks comes with the planner's reason."""
    run = _run()
    assert [(row.waiting, row.why) for row in run.tasks] == [(3, "a limit is reached")]
    assert "2 cores" in run.tasks[0].what
    assert "30 s" in run.tasks[0].what
    assert [(row.shape, row.why) for row in run.shapes] == [(SHAPE, "no more")]
    assert run.shapes[0].stages == {"pending": 1}


def test_a_shape_that_does_not_start_says_when_it_is_tried_again():
    """A pause after failed starts has an end, and it is told."""
    plan = Plan({}, {}, {SHAPE: "the last job did not start"})
    outlook = replace(OUTLOOK, again_at={SHAPE: NOW + 7})
    run = run_now("r1", RunRecord(), 0, [], plan, outlook)
    assert run.shapes[0].due_at == NOW + 7 + 1e6


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (_run(), "1 job pending in the batch system (Resources)."),
        (_run(trouble="no answer within 60 s"), "The batch system does not answer."),
        (_run(jobs=()), "No job is asked for: a limit is reached; no more."),
        (_run(waiting=0), "Nothing is waiting"),
    ],
)
def test_the_short_answer_names_the_cause(run, words):
    """ "Why is nothing running?" is answered in one sentence."""
    assert words in answer(run)


def test_an_answer_while_tasks_run_says_so():
    """Who asks why nothing runs though something does is told what does."""
    job = replace(_run().jobs[0], stage=Stage.BUSY, tasks=2)
    assert answer(_run(jobs=(job,))) == "2 tasks running in 1 job."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (59.6, "60 s"), (150, "2 min"), (9000, "2 h"), (5 * 86400, "5 d")],
)
def test_times_are_short(seconds, words):
    """A length of time is a number and a unit."""
    assert duration(seconds) == words


def test_stages_come_in_the_order_of_a_jobs_life():
    """Counts of jobs read from the queue to the end."""
    assert stages_words([Stage.BUSY, Stage.PENDING, Stage.BUSY]) == "1 pending, 2 busy"
    assert counts_words({"busy": 2, "pending": 1}) == "1 pending, 2 busy"
    assert stages_words([]) == "none"


# -- told to other processes ------------------------------------------------------------------

texts = st.text(max_size=20)
counts = st.integers(0, 10**6)
times = st.floats(0, 1e10)
shapes = st.builds(
    Shape,
    cores=st.integers(1, 256),
    memory_mb=st.integers(1, 10**6),
    walltime_s=st.floats(1, 1e6),
    queue=st.none() | texts,
    placement=st.builds(Placement, account=st.none() | st.just("physics")),
)
jobs = st.builds(
    JobNow,
    *(texts, texts, shapes, st.sampled_from(Stage), times, texts, counts, texts, texts),
    due_at=st.none() | times,
)
stages = st.dictionaries(st.sampled_from([stage.value for stage in Stage]), counts)
shape_rows = st.builds(ShapeNow, shapes, stages, texts)
task_rows = st.builds(TasksNow, texts, counts, counts, texts)
runs = st.builds(
    RunNow,
    *(texts, texts, times),
    waiting=counts,
    tasks=st.lists(task_rows, max_size=3).map(tuple),
    shapes=st.lists(shape_rows, max_size=3).map(tuple),
    jobs=st.lists(jobs, max_size=3).map(tuple),
    budget=st.none() | times,
    trouble=texts,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run's folder."""
    return tmp_path_factory.mktemp("run")


@given(run=runs)
def test_what_is_told_is_what_others_read(folder, run):
    """Another process reads exactly what the run said, whatever is in it."""
    Teller(folder, lambda: run).tell(run)
    assert read_state(folder) == run


def test_what_is_told_is_private(tmp_path):
    """Nobody else reads what a run is doing."""
    Teller(tmp_path, _run).tell(_run())
    assert stat.S_IMODE((tmp_path / telling.FILE).stat().st_mode) == 0o600


def test_only_news_is_told(tmp_path):
    """The file system is left alone while nothing changes, but for a sign of life."""
    teller, run = Teller(tmp_path, _run), _run()
    assert teller.is_news(run)
    teller.tell(run)
    later = run.told_at + telling.INTERVAL_S
    assert not teller.is_news(replace(run, told_at=later, core_hours=3.0))
    assert teller.is_news(replace(run, told_at=later, waiting=2))
    assert teller.is_news(replace(run, told_at=run.told_at + telling.ALIVE_S))


def test_a_full_disk_does_not_end_the_run(tmp_path):
    """What cannot be written is not told, and that is all."""
    Teller(tmp_path / "gone", _run).tell(_run())
    assert read_state(tmp_path / "gone") is None


def _without_jobs(document):
    del document["jobs"]


@pytest.mark.parametrize("spoil", [_without_jobs, lambda d: d.update(jobs=[1]), dict.clear])
def test_what_cannot_be_read_is_nothing(tmp_path, spoil):
    """A spoilt file, or one of another version, is no answer and no failure."""
    Teller(tmp_path, _run).tell(_run())
    document = json.loads((tmp_path / telling.FILE).read_text())
    spoil(document)
    (tmp_path / telling.FILE).write_text(json.dumps(document))
    assert read_state(tmp_path) is None
    (tmp_path / telling.FILE).write_text("{half")
    assert read_state(tmp_path) is None
