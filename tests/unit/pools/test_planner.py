"""The planner keeps to the site's limits, serves all demand, and holds nothing idle."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools.planner import Demand, Learned, Phase, PilotView, plan
from hpcburst.tasks import Shape

PATHS = Paths(Path("/shared"), Path("/node"))
SMALL = Shape(cores=1, memory_mb=1000, walltime_s=600)
LARGE = Shape(cores=4, memory_mb=8000, walltime_s=600)
FAR = Shape(cores=2, memory_mb=2000, gpus=1, walltime_s=600, queue="far")
SHAPES = (SMALL, LARGE, FAR)
WAITING = (Phase.ASKED, Phase.PENDING)


def _site(max_jobs=10, max_pending=10, near=None, far=None, memory_mb=None):
    queues = (
        Queue("near", 8, 16_000, 0, 3600, total_cores=near, total_memory_mb=memory_mb),
        Queue("far", 8, 16_000, 2, 3600, total_cores=far),
    )
    return Site("local", queues, SMALL, Limits(max_jobs=max_jobs, max_pending=max_pending), PATHS)


def _demand(shape, tasks, *, cores=1, memory_mb=0, gpus=0):
    total = (tasks * cores, tasks * memory_mb, tasks * gpus)
    return Demand(shape, tasks, 0, *total)


def _up(name, shape=SMALL, *, busy=0, since_s=0.0):
    return PilotView(name, shape, Phase.UP, busy, since_s)


sites = st.builds(
    _site,
    max_jobs=st.integers(1, 12),
    max_pending=st.integers(1, 12),
    near=st.none() | st.integers(4, 32),
    far=st.none() | st.integers(2, 16),
    memory_mb=st.none() | st.integers(8000, 64_000),
)


@st.composite
def demands(draw):
    """Demand of up to 40 tasks for each of some shapes; every task fits its shape."""
    rows = []
    for shape in draw(st.lists(st.sampled_from(SHAPES), unique=True)):
        waiting, running = draw(st.integers(0, 40)), draw(st.integers(0, 10))
        assume(waiting + running)
        cores = draw(st.integers(1, shape.cores))
        memory_mb = draw(st.integers(0, shape.memory_mb))
        total = waiting + running
        gpus = draw(st.integers(0, shape.gpus))
        rows.append(Demand(shape, waiting, running, total * cores, total * memory_mb, total * gpus))
    return rows


@st.composite
def fleets(draw):
    """Any pilots at all, also more than the site allows (its limits may have been lowered)."""
    views = []
    for number in range(draw(st.integers(0, 14))):
        phase = draw(st.sampled_from(Phase))
        busy = draw(st.integers(0, 4)) if phase in (Phase.UP, Phase.DRAINING) else 0
        since_s = draw(st.floats(0, 1000))
        views.append(
            PilotView(f"pilot-{number}", draw(st.sampled_from(SHAPES)), phase, busy, since_s)
        )
    return views


learnings = st.builds(
    Learned,
    paused=st.dictionaries(
        st.sampled_from(SHAPES), st.just("distributed did not start"), max_size=2
    ),
    floor=st.dictionaries(st.sampled_from(SHAPES), st.integers(1, 4), max_size=1),
)


def _free(site, pilots, decided):
    """What a plan leaves: jobs, pending places, and cores and memory by queue."""
    kept = [view.shape for view in pilots if view.name not in decided.retire]
    asked = [shape for shape, number in decided.submit.items() for _ in range(number)]
    waits = sum(v.phase in WAITING for v in pilots if v.name not in decided.retire)
    free = {"jobs": site.limits.max_jobs, "pending": site.limits.max_pending - waits - len(asked)}
    for queue in site.queues:
        free[queue.name] = queue.total_cores or 10**9
        free[queue.name, "memory"] = queue.total_memory_mb or 10**9
    for shape in kept + asked:
        queue = site.queue(shape.queue).name
        free["jobs"] -= 1
        free[queue] -= shape.cores
        free[queue, "memory"] -= shape.memory_mb
    return free


@given(demands(), fleets(), sites, learnings)
def test_the_sites_limits_are_kept(wanted, pilots, site, learned):
    """Nothing is submitted beyond the limits on jobs, on waiting jobs and on the queue's totals."""
    decided = plan(wanted, pilots, site, learned=learned)
    free = _free(site, pilots, decided)
    assert all(number > 0 for number in decided.submit.values())
    for shape in decided.submit:
        queue = site.queue(shape.queue).name
        assert min(free["jobs"], free["pending"], free[queue], free[queue, "memory"]) >= 0


@given(demands(), fleets(), sites, learnings)
def test_what_is_needed_and_allowed_is_asked_for(wanted, pilots, site, learned):
    """A shape that tasks wait for is short of pilots only if it is paused or there is no room."""
    decided = plan(wanted, pilots, site, learned=learned)
    free = _free(site, pilots, decided)
    have = Counter(v.shape for v in pilots if v.phase is not Phase.DRAINING) + Counter(
        decided.submit
    )
    for shape in {row.shape for row in wanted} - set(learned.paused):
        queue = site.queue(shape.queue).name
        no_room = (
            free["jobs"] < 1
            or free["pending"] < 1
            or free[queue] < shape.cores
            or free[queue, "memory"] < shape.memory_mb
        )
        made_room = any("another shape" in words for words in decided.retire.values())
        assert have[shape] or no_room or made_room
        assert shape in decided.why


@given(demands(), sites)
def test_an_empty_pool_with_demand_asks_for_something(wanted, site):
    """With tasks waiting, no pilots and nothing paused, at least one job is submitted."""
    assert bool(plan(wanted, [], site).submit) == bool(wanted)


@given(demands(), fleets(), sites, learnings)
def test_only_idle_pilots_and_waiting_jobs_are_let_go(wanted, pilots, site, learned):
    """A pilot that runs a task is never retired, nor a job that is just being submitted."""
    decided = plan(wanted, pilots, site, learned=learned)
    views = {view.name: view for view in pilots}
    for name, words in decided.retire.items():
        assert views[name].phase in (Phase.UP, Phase.PENDING)
        assert not views[name].busy
        assert words


@given(demands(), fleets(), sites, learnings)
def test_no_pilot_goes_that_tasks_or_the_user_need(wanted, pilots, site, learned):
    """What is let go leaves as many pilots of each shape as its tasks, or `scale`, call for."""
    decided = plan(wanted, pilots, site, learned=learned)
    views = {view.name: view for view in pilots}
    gone = Counter(views[name].shape for name in decided.retire)
    have = Counter(v.shape for v in pilots if v.phase is not Phase.DRAINING)
    needed = {row.shape: 1 for row in wanted} | dict(learned.floor)
    for shape, least in needed.items():
        assert have[shape] - gone[shape] >= min(have[shape], least)


@given(fleets(), sites)
def test_idle_pilots_past_their_patience_go(pilots, site):
    """Without demand, every pilot idle for long goes, and every job waiting for long."""
    decided = plan([], pilots, site)
    limits = site.limits
    for view in pilots:
        idle = view.phase is Phase.UP and not view.busy and view.since_s >= limits.idle_s
        stale = view.phase is Phase.PENDING and view.since_s >= limits.pending_min_age_s
        assert (view.name in decided.retire) == (idle or stale)
    assert not decided.submit


@given(demands(), fleets(), sites, learnings)
def test_the_same_facts_give_the_same_plan(wanted, pilots, site, learned):
    """A plan depends on nothing but what the planner was told."""
    copies = [replace(row) for row in wanted], [replace(view) for view in pilots]
    assert plan(wanted, pilots, site, learned=learned) == plan(*copies, site, learned=learned)


def test_a_burst_asks_for_all_its_pilots_at_once():
    """Fifty one-core tasks on pilots of four cores ask for thirteen jobs in one plan."""
    decided = plan([_demand(LARGE, 50)], [], _site(max_jobs=50, max_pending=50))
    assert decided.submit == {LARGE: 13}


@pytest.mark.parametrize(
    ("row", "pilots"),
    [
        (_demand(LARGE, 4, cores=2), 2),
        (_demand(LARGE, 4, memory_mb=8000), 4),
        (_demand(FAR, 3, gpus=1), 3),
        (_demand(LARGE, 1), 1),
    ],
)
def test_the_scarcest_resource_says_how_many_pilots(row, pilots):
    """Cores, memory or GPUs: whatever runs out first decides, and never more than one a task."""
    assert sum(plan([row], [], _site()).submit.values()) == pilots


def test_a_limit_that_bites_is_named():
    """Who asks why there are not more pilots reads which limit it is."""
    assert "max-jobs" in plan([_demand(SMALL, 9)], [], _site(max_jobs=2)).why[SMALL]
    assert "max-pending" in plan([_demand(SMALL, 9)], [], _site(max_pending=2)).why[SMALL]
    assert "'near'" in plan([_demand(SMALL, 9)], [], _site(near=2)).why[SMALL]


def test_a_paused_shape_is_left_alone_and_says_why():
    """Jobs that fail to start are not submitted in a loop; the reason is shown."""
    decided = plan(
        [_demand(SMALL, 9)], [], _site(), learned=Learned(paused={SMALL: "refused: account"})
    )
    assert not decided.submit
    assert decided.why[SMALL] == "refused: account"


def test_a_paused_shape_does_not_drive_others_away():
    """A shape that cannot start anyway does not cost another shape its idle pilots."""
    error = "the pilot's log: No module named 'distributed'; but it was there"
    decided = plan([_demand(LARGE, 1)], [_up("p")], _site(), learned=Learned(paused={LARGE: error}))
    assert not decided.retire


def test_idle_pilots_give_way_to_a_shape_that_cannot_start():
    """The last job slot is not held by an idle pilot that another shape's tasks wait for."""
    decided = plan([_demand(LARGE, 1)], [_up("p", SMALL)], _site(max_jobs=1))
    assert list(decided.retire) == ["p"]


def test_a_floor_is_held_without_demand():
    """`cluster.scale(2)` holds two pilots even when nothing is to do."""
    learned = Learned(floor={SMALL: 2})
    assert plan([], [], _site(), learned=learned).submit == {SMALL: 2}
    idle = [_up("a", since_s=99), _up("b", since_s=99), _up("c", since_s=99)]
    assert len(plan([], idle, _site(), learned=learned).retire) == 1


def test_a_draining_pilot_is_replaced_before_it_ends():
    """Tasks do not wait for a pilot that takes no more: its successor is asked for at once."""
    draining = PilotView("p", SMALL, Phase.DRAINING, busy=1)
    assert plan([_demand(SMALL, 1)], [draining], _site()).submit == {SMALL: 1}


# -- the whole way, on a simulated clock ------------------------------------------------------

STEP_S = 1.0
DRAIN_S = 15.0


@dataclass(eq=False)
class _Task:
    shape: Shape
    cores: int
    length_s: float
    arrives_s: float
    left_s: float = 0.0


@dataclass(eq=False)
class _SimulatedPilot:
    name: str
    shape: Shape
    delay_s: float
    phase: Phase = Phase.PENDING
    since_s: float = 0.0
    age_s: float = 0.0
    tasks: list[_Task] = field(default_factory=list)

    @property
    def free(self):
        return self.shape.cores - sum(task.cores for task in self.tasks)

    def view(self):
        return PilotView(self.name, self.shape, self.phase, len(self.tasks), self.since_s)

    def step(self):
        self.since_s += STEP_S
        if self.phase is Phase.PENDING and self.since_s >= self.delay_s:
            self.phase, self.since_s = Phase.UP, 0.0
        if self.phase is Phase.PENDING:
            return
        self.age_s += STEP_S
        for task in self.tasks:
            task.left_s -= STEP_S
        if done := [task for task in self.tasks if task.left_s <= 0]:
            self.tasks = [task for task in self.tasks if task not in done]
            self.since_s = 0.0
        if self.shape.walltime_s - self.age_s < DRAIN_S:
            self.phase = Phase.DRAINING


class _Simulation:
    """A batch system and a keeper of the simplest kind around the real planner."""

    def __init__(self, site, tasks, delays):
        self.site, self.delays = site, delays
        self.coming = sorted(tasks, key=lambda task: task.arrives_s)
        self.waiting, self.pilots, self.now_s = [], [], 0.0
        self.names = count()

    def busy(self):
        return bool(self.coming or self.waiting or self.pilots)

    def step(self):
        while self.coming and self.coming[0].arrives_s <= self.now_s:
            self.waiting.append(self.coming.pop(0))
        for pilot in self.pilots:
            pilot.step()
        self.pilots = [p for p in self.pilots if p.phase is not Phase.DRAINING or p.tasks]
        self.hand_out()
        self.follow(plan(self.demand(), [p.view() for p in self.pilots], self.site))
        self.now_s += STEP_S

    def hand_out(self):
        for task in list(self.waiting):
            for pilot in self.pilots:
                same = pilot.phase is Phase.UP and pilot.shape == task.shape
                if same and pilot.free >= task.cores:
                    task.left_s = task.length_s
                    pilot.tasks.append(task)
                    self.waiting.remove(task)
                    break

    def demand(self):
        running = [task for pilot in self.pilots for task in pilot.tasks]
        rows = []
        for shape in SHAPES:
            waits = sum(task.shape == shape for task in self.waiting)
            runs = sum(task.shape == shape for task in running)
            cores = sum(task.cores for task in self.waiting + running if task.shape == shape)
            if waits + runs:
                rows.append(Demand(shape, waits, runs, cores))
        return rows

    def follow(self, decided):
        self.pilots = [pilot for pilot in self.pilots if pilot.name not in decided.retire]
        for shape, number in decided.submit.items():
            for _ in range(number):
                turn = next(self.names)
                delay_s = self.delays[turn % len(self.delays)]
                self.pilots.append(_SimulatedPilot(f"pilot-{turn}", shape, delay_s))
        assert len(self.pilots) <= self.site.limits.max_jobs


@st.composite
def _workloads(draw):
    tasks = []
    for _ in range(draw(st.integers(1, 25))):
        shape = draw(st.sampled_from(SHAPES))
        cores = draw(st.integers(1, shape.cores))
        tasks.append(_Task(shape, cores, draw(st.integers(1, 60)), draw(st.integers(0, 300))))
    return tasks


@settings(max_examples=50, deadline=None)
@given(_workloads(), sites, st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_every_workload_is_served_and_then_nothing_is_left(tasks, site, delays):
    """Whatever comes, when and in which shapes: all of it runs, and then there are no pilots."""
    simulation = _Simulation(site, tasks, delays)
    limit_s = 600 + len(tasks) * (max(delays) + 60 + 30 + 10)
    while simulation.busy():
        simulation.step()
        assert simulation.now_s < limit_s, "the work is not served, or pilots do not leave"
