"""The planner keeps to every limit, serves all demand, and holds nothing idle."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools.planner import (
    PATIENT_S,
    Demand,
    Gap,
    Learned,
    Phase,
    PilotView,
    Room,
    plan,
)
from hpcburst.tasks import START_S, Shape

PATHS = Paths(Path("/shared"), Path("/node"))
SMALL = Shape(cores=1, memory_mb=1000, walltime_s=600)
LARGE = Shape(cores=4, memory_mb=8000, walltime_s=600)
FAR = Shape(cores=2, memory_mb=2000, gpus=1, walltime_s=600, queue="far")
SHAPES = (SMALL, LARGE, FAR)
WAITING = (Phase.ASKED, Phase.PENDING)


def _site(near=None, far=None, memory_mb=None, **limits):
    queues = (
        Queue("near", 8, 16_000, 0, 3600, total_cores=near, total_memory_mb=memory_mb),
        Queue("far", 8, 16_000, 2, 3600, total_cores=far),
    )
    return Site(
        "local", queues, SMALL, Limits(**{"max_jobs": 10, "max_pending": 10, **limits}), PATHS
    )


def _tasks(waiting, expected_s=None, *, shape=SMALL, running=0, **asks):
    """Tasks as they come: the planner may choose; what is expected doubled is what is needed."""
    needed_s = 2 * expected_s if expected_s else 0.0
    fields = {"expected_s": expected_s, "needed_s": needed_s, "gpus": shape.gpus, **asks}
    return Demand(shape, waiting, running, **fields)


def _only(shape, tasks, **asks):
    """Tasks for which the user configured one shape."""
    return _tasks(tasks, shape=shape, shapes=(shape,), **asks)


def _up(name, shape=SMALL, *, busy=0, since_s=0.0, left_s=600.0):
    free = Room(shape.cores - busy, shape.memory_mb * (1 - busy / shape.cores), shape.gpus)
    return PilotView(name, shape, Phase.UP, busy, since_s, left_s, free)


def _pending(name, shape=SMALL, *, since_s=0.0):
    return PilotView(name, shape, Phase.PENDING, since_s=since_s, left_s=shape.walltime_s)


# -- what it does, by example -------------------------------------------------------------------


def test_a_first_burst_gets_a_place_for_each_task_as_far_as_it_may():
    """66 tasks of which nothing is known, eight jobs allowed: eight are asked for, in one plan."""
    decided = plan([_only(SMALL, 66)], [], _site(max_jobs=8))
    assert decided.submit == {SMALL: 8}
    assert "max-jobs" in decided.why[SMALL]


def test_a_burst_of_short_tasks_shares_few_pilots():
    """66 tasks of 0.3 s are 20 s of work: two pilots do it, not 66."""
    decided = plan([_tasks(66, 0.3)], [], _site(max_jobs=100, max_pending=100))
    assert sum(decided.submit.values()) == 2


def test_tasks_that_take_no_time_get_a_pilot_too():
    """History says 0 s: that is too short to need many pilots, not too short to need one."""
    assert sum(plan([_tasks(5, 0.0)], [], _site()).submit.values()) == 1


def test_many_kinds_of_short_tasks_share_pilots_too():
    """66 rules with one task of 0.3 s each cost no more pilots than one rule with 66 tasks."""
    rows = [_tasks(1, 0.3, memory_mb=number) for number in range(1, 67)]
    assert sum(plan(rows, [], _site(max_jobs=100, max_pending=100)).submit.values()) <= 3


def test_tasks_of_minutes_get_a_place_each():
    """Twelve tasks of five minutes do not wait for one another, if jobs enough are allowed."""
    decided = plan([_tasks(12, 300)], [], _site(max_jobs=12, max_pending=12))
    assert sum(decided.submit.values()) == 12


def test_pilots_grow_when_jobs_are_few_and_work_is_much():
    """With two jobs allowed, sixteen one-core tasks of a minute get two pilots of eight cores."""
    decided = plan([_tasks(16, 60)], [], _site(max_jobs=2))
    [(shape, count)] = decided.submit.items()
    assert (shape.cores, count) == (8, 2)
    assert shape.memory_mb == 8 * SMALL.memory_mb


def test_a_job_is_as_long_as_its_work():
    """History says ten minutes: the job has time for twice that, and not for an hour."""
    granted = replace(SMALL, walltime_s=1800)
    [shape] = plan([_tasks(1, 600, shape=granted)], [], _site()).submit
    assert 2 * 600 + START_S <= shape.walltime_s <= 1800


def test_a_task_that_takes_longer_than_a_usual_pilot_gets_a_longer_one():
    """History says 25 minutes where pilots last ten: the job lasts for it."""
    [shape] = plan([_tasks(1, 1500)], [], _site()).submit
    assert shape.walltime_s == 3600


def test_a_task_of_unknown_length_gets_the_usual_walltime():
    """Nothing is cut off because nobody knew how long it takes."""
    assert plan([_tasks(1)], [], _site()).submit == {SMALL: 1}


@pytest.mark.parametrize("hole_s", [65, 130, 200, 250])
def test_holes_of_minutes_are_used(hole_s):
    """A hole before somebody's large job: the pilots' walltime fits it, and so they start now."""
    decided = plan([_tasks(6, 2)], [], _site(), [Gap("near", 4, 8000, hole_s)])
    assert decided.submit
    assert all(START_S + 4 <= shape.walltime_s <= hole_s for shape in decided.submit)


def test_a_hole_is_used_for_as_many_pilots_as_it_holds():
    """Long work and a short hole: what fits is asked for the hole, what does not is not cut."""
    rows = [_tasks(6, 100, shape=replace(SMALL, walltime_s=1800))]
    decided = plan(rows, [], _site(), [Gap("near", 2, 8000, 300)])
    in_hole = sum(n * s.cores for s, n in decided.submit.items() if s.walltime_s <= 300)
    assert in_hole >= 2
    assert sum(n * s.cores for s, n in decided.submit.items()) == 6


def test_tasks_of_unknown_length_try_a_hole():
    """The very first burst starts now where it can; its first results tell how long others take."""
    decided = plan([_tasks(4)], [], _site(), [Gap("near", 2, 8000, 200)])
    assert min(shape.walltime_s for shape in decided.submit) <= 200


def test_one_task_of_many_is_sent_ahead():
    """Nothing is known of 66 tasks: one short job goes ahead, the others last as usual."""
    usual = replace(SMALL, walltime_s=1800)
    decided = plan([_tasks(66, shape=usual)], [], _site(max_jobs=8))
    assert decided.submit[replace(usual, walltime_s=120)] == 1
    assert sum(decided.submit.values()) == 8


def test_a_long_job_that_waits_gives_way_to_a_short_one_that_does():
    """Once it is known how short the tasks are, waiting jobs of half an hour are replaced."""
    waits = [_pending(f"p{n}", replace(SMALL, walltime_s=1800), since_s=40) for n in range(3)]
    decided = plan([_tasks(12, 2.5)], waits, _site(max_jobs=3))
    assert set(decided.retire) == {"p0", "p1", "p2"}
    assert all(shape.walltime_s <= 120 for shape in decided.submit)
    assert decided.submit


def test_a_long_job_is_not_given_up_for_a_short_one_beside_it():
    """A long and a short task wait, each with its job: both jobs are kept, however long it is."""
    long, short = replace(SMALL, walltime_s=1800), replace(SMALL, walltime_s=120)
    waits = [_pending("long", long, since_s=40), _pending("short", short, since_s=40)]
    rows = [_tasks(1, 0.3), _tasks(1, 800)]
    decided = plan(rows, waits, _site(max_jobs=2))
    assert not decided.submit
    assert not decided.retire


def test_a_place_in_the_queue_is_not_given_up_for_nothing():
    """A waiting job stays when what would be asked for in its place is hardly shorter."""
    waits = [_pending("p", replace(SMALL, walltime_s=600), since_s=4000)]
    assert not plan([_tasks(1, 200)], waits, _site()).retire


def test_a_hole_too_short_for_the_work_is_left():
    """No job is sent where its task would be cut off."""
    [shape] = plan([_tasks(1, 200)], [], _site(), [Gap("near", 8, 8000, 120)]).submit
    assert shape.walltime_s >= 2 * 200 + START_S


def test_a_queue_with_a_hole_is_preferred_when_no_queue_was_named():
    """The default queue is full and another has room now: the other is used."""
    queues = (Queue("day", 8, 16_000, 0, 3600), Queue("burst", 8, 16_000, 0, 600))
    site = replace(_site(), queues=queues)
    [shape] = plan([_tasks(2, 5)], [], site, [Gap("burst", 8, 16_000, 600)]).submit
    assert shape.queue == "burst"
    [shape] = plan([_tasks(2, 5)], [], site).submit
    assert shape.queue is None


def test_what_earlier_jobs_taught_says_which_queue_is_sooner():
    """Where no gap is known, the queue whose jobs started sooner is used."""
    queues = (Queue("day", 8, 16_000, 0, 3600), Queue("burst", 8, 16_000, 0, 600))
    day = replace(SMALL, walltime_s=120)
    learned = Learned(start_delay_s={day: 900.0, replace(day, queue="burst"): 20.0})
    [shape] = plan([_tasks(2, 5)], [], replace(_site(), queues=queues), (), learned).submit
    assert shape.queue == "burst"


def test_gpu_and_cpu_tasks_side_by_side():
    """Each kind gets pilots that hold it; no GPU is asked for by who needs none."""
    rows = [_tasks(3, 60), _tasks(2, 60, shape=FAR, cores=2)]
    decided = plan(rows, [], _site(far=4))
    gpus = {s: n for s, n in decided.submit.items() if s.gpus}
    assert sum(n * s.gpus for s, n in gpus.items()) == 2
    assert sum(n * s.cores for s, n in decided.submit.items() if s not in gpus) == 3


def test_a_pilot_is_kept_for_tasks_that_it_lasts_for():
    """An idle pilot with a minute left is no place for a task of five: another is asked for."""
    row = _tasks(1, 300)
    assert plan([row], [_up("p", left_s=60)], _site()).submit
    assert not plan([row], [_up("p", left_s=620)], _site()).submit


def test_short_tasks_wait_for_busy_pilots():
    """Eight pilots run tasks of 0.3 s, 60 more wait: nothing is asked for, they are soon done."""
    pilots = [_up(f"p{n}", busy=1) for n in range(8)]
    decided = plan([_tasks(60, 0.3, running=8)], pilots, _site(max_jobs=20))
    assert not decided.submit
    assert not decided.retire


def test_long_tasks_do_not_wait_for_busy_pilots():
    """Two pilots are busy for minutes and two tasks wait: two more pilots are asked for."""
    pilots = [_up(f"p{n}", busy=1) for n in range(2)]
    assert sum(plan([_tasks(2, 200, running=2)], pilots, _site()).submit.values()) == 2


def test_the_scarcest_resource_says_how_many_pilots():
    """Cores, memory or GPUs: whatever runs out first decides."""
    assert plan([_only(LARGE, 4, cores=2)], [], _site()).submit == {LARGE: 2}
    assert plan([_only(LARGE, 4, memory_mb=8000)], [], _site()).submit == {LARGE: 4}
    assert plan([_only(FAR, 3)], [], _site()).submit == {FAR: 3}
    assert plan([_only(LARGE, 50)], [], _site(max_jobs=50, max_pending=50)).submit == {LARGE: 13}


def test_only_configured_shapes_are_asked_for():
    """A user who configured shapes gets the one that does it soonest, and never another."""
    row = _tasks(8, 60, shapes=(SMALL, LARGE))
    assert plan([row], [], _site(max_jobs=2)).submit == {LARGE: 2}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_jobs": 2}, "max-jobs"),
        ({"max_pending": 2}, "max-pending"),
        ({"near": 2}, "'near'"),
        ({"max_cores": 2}, "2 cores"),
        ({"max_core_hours": 0.4}, "0.4 core-hours"),
    ],
)
def test_a_limit_that_bites_is_named(limits, words):
    """Who asks why there are not more pilots reads which limit it is."""
    row = _only(SMALL, 9)
    decided = plan([row], [], _site(**limits))
    assert decided.submit == {SMALL: 2}
    assert words in decided.why[SMALL]
    assert words in decided.waits[row]


def test_what_was_spent_counts_in_the_budget():
    """The budget is kept before it is spent: no job is asked for that could overrun it."""
    site, learned = _site(max_core_hours=1), Learned(spent_core_s=3600 - 599)
    assert not plan([_only(SMALL, 1)], [], site, learned=learned).submit
    assert plan([_only(SMALL, 1)], [], site, learned=Learned(spent_core_s=3000)).submit


def test_the_cheapest_queue_is_used_by_who_prefers_it():
    """With `prefer: cheapest` the price of a queue counts before the time until it starts."""
    queues = (Queue("fast", 8, 16_000, 0, 600, price=4), Queue("slow", 8, 16_000, 0, 3600))
    gaps = [Gap("fast", 8, 16_000, 600)]
    site = replace(_site(), queues=queues)
    [shape] = plan([_tasks(2, 5)], [], site, gaps).submit
    assert shape.queue is None
    [shape] = plan([_tasks(2, 5)], [], replace(site, prefer="cheapest"), gaps).submit
    assert shape.queue == "slow"


def test_a_queue_for_bursts_is_used_for_bursts():
    """Among queues that do as well, the one that the centre made for bursts is used."""
    queues = (Queue("day", 8, 16_000, 0, 3600), Queue("quick", 8, 16_000, 0, 600, burst=True))
    [shape] = plan([_tasks(2, 5)], [], replace(_site(), queues=queues)).submit
    assert shape.queue == "quick"


def test_who_has_nothing_comes_first():
    """With two places in the queue, two kinds of task get one pilot each, however many they are."""
    rows = [_only(SMALL, 1000), _only(LARGE, 1, cores=4)]
    assert plan(rows, [], _site(max_pending=2)).submit == {SMALL: 1, LARGE: 1}


def test_a_paused_shape_is_left_alone_and_says_why():
    """Jobs that fail to start are not submitted in a loop, in no walltime; the reason is shown."""
    learned = Learned(paused={replace(SMALL, walltime_s=60): "refused: account"})
    decided = plan([_only(SMALL, 9)], [], _site(), learned=learned)
    assert not decided.submit
    assert decided.why[SMALL] == "refused: account"


def test_a_paused_shape_does_not_drive_others_away():
    """A shape that cannot start anyway does not cost another shape its idle pilots."""
    learned = Learned(paused={LARGE: "the log: No module named 'distributed'"})
    decided = plan([_only(SMALL, 1)], [], _site(), learned=learned)
    assert decided.submit == {SMALL: 1}
    decided = plan([_only(LARGE, 1, cores=4)], [_up("p")], _site(), learned=learned)
    assert not decided.retire


def test_idle_pilots_give_way_to_tasks_that_cannot_start():
    """The last job slot is not held by an idle pilot that other tasks wait for."""
    decided = plan([_only(LARGE, 1, cores=4)], [_up("p")], _site(max_jobs=1))
    assert list(decided.retire) == ["p"]


def test_an_idle_pilot_is_kept_half_as_long_as_a_new_one_takes():
    """Where pilots start in 4 s, an idle one is let go after 2; after 10 where they never do."""
    learned = Learned(start_delay_s={SMALL: 4.0})
    assert plan([], [_up("p", since_s=2.5)], _site(), learned=learned).retire
    assert not plan([], [_up("p", since_s=2.5)], _site()).retire
    slow = Learned(start_delay_s={SMALL: 500.0})
    assert plan([], [_up("p", since_s=11)], _site(), learned=slow).retire


def test_a_floor_is_held_without_demand():
    """`cluster.scale(2)` holds two pilots even when nothing is to do."""
    learned = Learned(floor={SMALL: 2})
    assert plan([], [], _site(), learned=learned).submit == {SMALL: 2}
    idle = [_up(name, since_s=99) for name in "abc"]
    assert len(plan([], idle, _site(), learned=learned).retire) == 1


def test_a_draining_pilot_is_replaced_before_it_ends():
    """Tasks do not wait for a pilot that takes no more: its successor is asked for at once."""
    draining = PilotView("p", SMALL, Phase.DRAINING, busy=1)
    assert plan([_only(SMALL, 1)], [draining], _site()).submit == {SMALL: 1}


def test_waiting_jobs_are_kept_for_a_while():
    """A place in the queue is not thrown away the moment nothing needs it."""
    assert not plan([], [_pending("p", since_s=5)], _site()).retire
    assert plan([], [_pending("p", since_s=31)], _site()).retire


# -- what holds whatever comes ------------------------------------------------------------------

durations = st.none() | st.sampled_from([0.0, 0.05, 0.3, 2, 15, 60, 200, 900])


@st.composite
def demands(draw):
    """Rows of up to 40 tasks; every task fits its shape, and what it needs fits a pilot."""
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        shape = draw(st.sampled_from(SHAPES))
        waiting, running = draw(st.integers(0, 40)), draw(st.integers(0, 10))
        configured = draw(st.sampled_from([(), (shape,), SHAPES]))
        expected_s = draw(durations)
        longest_s = (600 if configured else 3600) - START_S
        row = Demand(
            shape,
            waiting,
            running,
            cores=draw(st.integers(1, shape.cores)),
            memory_mb=draw(st.integers(0, shape.memory_mb)),
            gpus=draw(st.integers(0, shape.gpus)),
            queue=shape.queue,
            expected_s=expected_s,
            needed_s=min(2 * (expected_s or 0.0), longest_s),
            shapes=configured,
        )
        assume(waiting + running)
        if row not in rows:
            rows.append(row)
    return rows


@st.composite
def fleets(draw):
    """Any pilots at all, also more than the site allows (its limits may have been lowered)."""
    views = []
    for number in range(draw(st.integers(0, 14))):
        shape, phase = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(Phase))
        busy = draw(st.integers(0, shape.cores)) if phase in (Phase.UP, Phase.DRAINING) else 0
        views.append(
            PilotView(
                f"pilot-{number}",
                shape,
                phase,
                busy,
                since_s=draw(st.floats(0, 1000)),
                left_s=draw(st.floats(0, 600)) if phase is Phase.UP else shape.walltime_s,
                free=Room(shape.cores - busy, shape.memory_mb * (1 - busy / shape.cores), 0)
                if busy
                else Room(shape.cores, shape.memory_mb, shape.gpus),
            )
        )
    return views


sites = st.builds(
    _site,
    near=st.none() | st.integers(4, 32),
    far=st.none() | st.integers(2, 16),
    memory_mb=st.none() | st.integers(8000, 64_000),
    max_jobs=st.integers(1, 12),
    max_pending=st.integers(1, 12),
    max_cores=st.none() | st.integers(4, 40),
    max_core_hours=st.none() | st.floats(1, 20),
)
gap_maps = st.lists(
    st.builds(
        Gap,
        queue=st.sampled_from(["near", "far"]),
        cores=st.integers(1, 16),
        memory_mb=st.integers(500, 32_000),
        length_s=st.floats(30, 4000) | st.just(float("inf")),
    ),
    max_size=4,
)
learnings = st.builds(
    Learned,
    start_delay_s=st.dictionaries(
        st.sampled_from([*SHAPES, replace(SMALL, walltime_s=60)]),
        st.floats(1, 1000),
        max_size=3,
    ),
    paused=st.dictionaries(st.sampled_from(SHAPES), st.just("refused"), max_size=2),
    floor=st.dictionaries(st.sampled_from(SHAPES), st.integers(1, 4), max_size=1),
    spent_core_s=st.floats(0, 10_000),
)
situations = st.tuples(demands(), fleets(), sites, gap_maps, learnings)


def _kept(pilots, decided):
    return [view for view in pilots if view.name not in decided.retire]


def _asked(decided):
    return [shape for shape, number in decided.submit.items() for _ in range(number)]


def _as_asked(decided):
    """The decided jobs, as the planner sees them a moment later."""
    return [
        PilotView(f"new-{number}", shape, Phase.ASKED, left_s=shape.walltime_s)
        for number, shape in enumerate(_asked(decided))
    ]


@given(situations)
def test_no_limit_is_ever_exceeded(situation):
    """Jobs, waiting jobs, cores, core-hours and the queues' totals: no plan goes beyond any."""
    _, pilots, site, _, learned = situation
    decided = plan(*situation)
    if not decided.submit:
        return
    limits = site.limits
    views = _kept(pilots, decided) + _as_asked(decided)
    assert len(views) <= limits.max_jobs
    assert sum(view.phase in WAITING for view in views) <= limits.max_pending
    cores = sum(view.shape.cores for view in views)
    assert limits.max_cores is None or cores <= limits.max_cores
    core_s = sum(view.shape.cores * min(view.left_s, view.shape.walltime_s) for view in views)
    budget_s = (limits.max_core_hours or float("inf")) * 3600
    assert core_s + learned.spent_core_s <= budget_s + 1e-6
    for shape in decided.submit:
        queue = site.queue(shape.queue)
        inside = [view.shape for view in views if site.queue(view.shape.queue) is queue]
        assert queue.total_cores is None or sum(s.cores for s in inside) <= queue.total_cores
        memory_mb = sum(s.memory_mb for s in inside)
        assert queue.total_memory_mb is None or memory_mb <= queue.total_memory_mb
        assert shape.cores <= queue.max_cores
        assert shape.memory_mb <= queue.max_memory_mb
        assert shape.gpus <= queue.max_gpus
        assert shape.walltime_s <= queue.max_walltime_s


@given(situations)
def test_every_shape_asked_for_holds_some_task(situation):
    """No job is asked for that cannot run a task that waits, or that the user did not want held."""
    rows, _, _, _, learned = situation
    for shape in plan(*situation).submit:
        holders = [
            row
            for row in rows
            if row.waiting
            and row.cores <= shape.cores
            and row.memory_mb <= shape.memory_mb
            and row.gpus <= shape.gpus
            and row.queue in (None, shape.queue)
            and row.needed_s + START_S * bool(row.needed_s) <= shape.walltime_s
            and (not row.shapes or shape in row.shapes)
        ]
        assert holders or shape in learned.floor


@given(situations)
def test_a_decided_plan_needs_no_other(situation):
    """Planning again while the decided jobs are being submitted asks for nothing more."""
    rows, pilots, site, gaps, learned = situation
    decided = plan(*situation)
    assume(not any("other tasks" in words for words in decided.retire.values()))
    pilots = _kept(pilots, decided) + _as_asked(decided)
    assert not plan(rows, pilots, site, gaps, learned).submit


@given(demands(), sites, gap_maps)
def test_waiting_tasks_get_a_pilot(rows, site, gaps):
    """With tasks waiting and no pilots at least one job is asked for, if the budget allows it."""
    rows = [replace(row, running=0) for row in rows]
    decided = plan(rows, [], site, gaps)
    waiting = [row for row in rows if row.waiting]
    if waiting and not decided.submit:
        assert all("core-hours" in decided.waits[row] for row in waiting)
    assert waiting or not decided.submit


@given(situations)
def test_no_kind_of_task_is_starved(situation):
    """Who lacks pilots is told the limit, or the failure, that keeps them from being asked for."""
    decided = plan(*situation)
    for row in situation[0]:
        if "would be used" in decided.waits.get(row, ""):
            words = decided.waits[row]
            assert any(
                reason in words
                for reason in (
                    "max-jobs",
                    "max-pending",
                    "cores is",
                    "core-hours",
                    "queue",
                    "refused",
                )
            )


@given(situations)
def test_only_idle_pilots_and_waiting_jobs_are_let_go(situation):
    """A pilot that runs a task is never retired, nor a job that is just being submitted."""
    _, pilots, *_ = situation
    decided = plan(*situation)
    views = {view.name: view for view in pilots}
    for name, words in decided.retire.items():
        assert views[name].phase in (Phase.UP, Phase.PENDING)
        assert not views[name].busy
        assert words


@given(situations)
def test_what_is_let_go_is_not_asked_for_again(situation):
    """No pilot goes that the tasks need: without those let go, no more are asked for."""
    rows, pilots, site, gaps, learned = situation
    decided = plan(*situation)
    assume(not any("shorter" in words for words in decided.retire.values()))
    free = replace(site, limits=replace(site.limits, max_jobs=10**6, max_pending=10**6))
    everything = plan(rows, pilots, free, gaps, learned).submit
    after = plan(rows, _kept(pilots, decided), free, gaps, learned).submit
    assert sum(after.values()) <= sum(everything.values())
    have = Counter(view.shape for view in _kept(pilots, decided))
    before = Counter(view.shape for view in pilots)
    for shape, floor in learned.floor.items():
        assert have[shape] >= min(before[shape], floor)


@given(fleets(), sites)
def test_idle_pilots_past_their_patience_go(pilots, site):
    """Without demand, every pilot idle for long goes, and every job waiting for long."""
    decided = plan([], pilots, site)
    limits = site.limits
    for view in pilots:
        patience_s = PATIENT_S if limits.idle_s is None else limits.idle_s
        idle = view.phase is Phase.UP and not view.busy and view.since_s >= patience_s
        stale = view.phase is Phase.PENDING and view.since_s >= limits.pending_min_age_s
        assert (view.name in decided.retire) == (idle or stale)
    assert not decided.submit


@given(situations)
def test_the_same_facts_give_the_same_plan(situation):
    """A plan depends on nothing but what the planner was told."""
    rows, pilots, *rest = situation
    copies = [replace(row) for row in rows], [replace(view) for view in pilots]
    assert plan(rows, pilots, *rest) == plan(*copies, *rest)


@given(demands(), fleets(), sites)
def test_pilots_whose_room_is_not_told_still_serve(rows, pilots, site):
    """A caller that does not tell what its pilots have free gets plans that keep to the limits."""
    blind = [replace(view, free=None) for view in pilots]
    decided = plan(rows, blind, site)
    if decided.submit:
        assert len(_kept(pilots, decided)) + len(_asked(decided)) <= site.limits.max_jobs
