"""A cluster full of other people's jobs, and one user's tasks: event by event, without a clock.

Nodes are taken most of the time and free in holes; jobs start at backfill passes, on nodes that
hold them for their whole walltime. Who decides about the pilots is handed in.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from hpcburst.jobs.dialect import Gap
from hpcburst.policy.model import Site
from hpcburst.pools.history import History
from hpcburst.pools.planner import Demand, Phase, PilotView, Plan, Room
from hpcburst.tasks import START_S, Shape

PASS_S = 30.0
"""Seconds between two backfill passes: Slurm's default."""

HELLO_S = 2.0
"""Seconds from a job's start to its pilot's hello."""

FRESH_S = 10.0
"""A pilot this young lasts for what its shape was granted for."""

TICK_S = 1.0
"""Seconds between two plans while there is something to plan for."""

UNTIL_S = 10_000.0
"""When the cluster becomes idle for good, so that whoever fits no hole gets done too."""

NODE_CORES = 8
NODE_MEMORY_MB = 32_000


Kind = tuple[int, str, bool]
"""Cores, name, and whether a pilot ended under it."""


@dataclass(eq=False, slots=True)
class Task:
    """A task: name, cores, length, when it came, began and ended, and whether it was cut off."""

    name: str
    length_s: float
    arrives_s: float = 0.0
    cores: int = 1
    begun_s: float = math.nan
    ended_s: float = math.nan
    cut_off: bool = False

    @property
    def kind(self) -> Kind:
        """What the planner knows of it."""
        return (self.cores, self.name, self.cut_off)


@dataclass(eq=False, slots=True)
class Pilot:
    """A job and its pilot."""

    name: str
    shape: Shape
    asked_s: float
    phase: Phase = Phase.PENDING
    since_s: float = 0.0
    started_s: float = math.inf
    node: int = -1
    tasks: set[Task] = field(default_factory=set)
    free: int = 0

    def view(self, now_s: float) -> PilotView:
        """What the planner sees of it."""
        left_s = self.shape.walltime_s
        if self.node >= 0:
            left_s += self.started_s - now_s
        room = Room(self.free, self.free * self.shape.memory_mb / self.shape.cores)
        return PilotView(
            self.name, self.shape, self.phase, len(self.tasks), now_s - self.since_s, left_s, room
        )


@dataclass(frozen=True, slots=True)
class Holes:
    """When each node is free of other people's jobs: ends of alternating taken and free spans."""

    spans: tuple[tuple[tuple[float, float], ...], ...]

    @classmethod
    def idle(cls, nodes: int) -> Holes:
        """Nodes that nobody else wants."""
        return cls((((0.0, math.inf),),) * nodes)

    @classmethod
    def of_minutes(cls, nodes: int, seed: int, until_s: float = UNTIL_S) -> Holes:
        """Nodes taken for 5 to 30 minutes and free for one to four, in turn."""
        chance = random.Random(seed)  # noqa: S311 - a simulation
        rows = []
        for _ in range(nodes):
            row, at_s = [], chance.uniform(0, 900)
            while at_s < until_s:
                length_s = chance.uniform(60, 240)
                row.append((at_s, at_s + length_s))
                at_s += length_s + chance.uniform(300, 1800)
            rows.append(tuple(row))
        return cls(tuple(rows))

    def left_s(self, node: int, now_s: float) -> float:
        """Seconds for which a node is free from now on; 0 when it is taken."""
        spans = self.spans[node]
        return max((end - now_s for begin, end in spans if begin <= now_s < end), default=0.0)


Policy = Callable[["Simulation"], Plan]
"""Who decides: what to submit and what to let go, at any moment."""


class Simulation:
    """A cluster, one user's tasks, and who decides about the pilots."""

    def __init__(
        self,
        site: Site,
        tasks: Sequence[Task],
        holes: Holes,
        policy: Policy,
        *,
        polite: bool = True,
    ) -> None:
        self.site, self.holes, self.policy, self.polite = site, holes, policy, polite
        self.now_s = 0.0
        self.pilots: dict[str, Pilot] = {}
        self.waiting: dict[Kind, deque[Task]] = {}
        self.history = History()
        self.tasks, self.undone = tasks, len(tasks)
        self.used_s = self.held_s = 0.0
        self.jobs = self.lost = 0
        self.plan_ms: list[float] = []
        self._free = [NODE_CORES] * len(holes.spans)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._planned = False
        for task in tasks:
            self._at(task.arrives_s, lambda task=task: self._arrive(task))
        self._at(PASS_S, self._pass)

    def run(self, until_s: float = 10**6) -> Simulation:
        """Go on until all tasks are done and all pilots gone."""
        while (self.undone or self.pilots) and self._events and self.now_s < until_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        return self

    def rows(self, shapes: tuple[Shape, ...] = ()) -> list[Demand]:
        """The demand, as the keeper would state it."""
        running: dict[Kind, int] = {}
        for pilot in self.pilots.values():
            for task in pilot.tasks:
                running[task.kind] = running.get(task.kind, 0) + 1
        keys = dict.fromkeys([*self.waiting, *running])
        return [
            self._row(key, len(self.waiting.get(key, ())), running.get(key, 0), shapes)
            for key in keys
        ]

    def gaps(self) -> list[Gap]:
        """What a scheduler that tells its plan would tell."""
        queue = self.site.queues[0].name
        return [
            Gap(queue, cores, cores * NODE_MEMORY_MB // NODE_CORES, left_s)
            for node, cores in enumerate(self._free)
            if cores and (left_s := self.holes.left_s(node, self.now_s))
        ]

    def views(self) -> list[PilotView]:
        """The pilots, as the planner sees them."""
        return [pilot.view(self.now_s) for pilot in self.pilots.values()]

    # -- what happens -------------------------------------------------------------------------

    def _arrive(self, task: Task) -> None:
        self.waiting.setdefault(task.kind, deque()).append(task)
        self._plan_soon()

    def _plan_soon(self) -> None:
        if not self._planned:
            self._planned = True
            self._at(self.now_s + TICK_S, self._plan)

    def _plan(self) -> None:
        self._planned = False
        for pilot in list(self.pilots.values()):
            if pilot.phase is Phase.UP and pilot.free:
                self._fill(pilot)
        begun = time.perf_counter()
        decided = self.policy(self)
        self.plan_ms.append(1000 * (time.perf_counter() - begun))
        for name in decided.retire:
            self._end(self.pilots[name])
        for shape, number in decided.submit.items():
            for _ in range(number):
                self.jobs += 1
                name = f"pilot-{self.jobs}"
                self.pilots[name] = Pilot(
                    name, shape, self.now_s, since_s=self.now_s, free=shape.cores
                )
        if self.undone or self.pilots:
            self._plan_soon()

    def _pass(self) -> None:
        """A backfill pass: each waiting job, in order, to the first node that holds it."""
        left = [self.holes.left_s(node, self.now_s) for node in range(len(self._free))]
        cursor: dict[Shape, int] = {}
        for pilot in self.pilots.values():
            if pilot.phase is Phase.PENDING and pilot.node < 0:
                shape = pilot.shape
                node = cursor.get(shape, 0)
                while node < len(left) and (
                    self._free[node] < shape.cores or left[node] < shape.walltime_s
                ):
                    node += 1
                cursor[shape] = node
                if node < len(left):
                    self._start(pilot, node)
        self._at(self.now_s + PASS_S, self._pass)

    def _start(self, pilot: Pilot, node: int) -> None:
        pilot.node, pilot.started_s = node, self.now_s
        self._free[node] -= pilot.shape.cores
        self._at(self.now_s + HELLO_S, lambda: self._hello(pilot))
        self._at(self.now_s + pilot.shape.walltime_s, lambda: self._end(pilot))

    def _hello(self, pilot: Pilot) -> None:
        if pilot.name in self.pilots:
            pilot.phase, pilot.since_s = Phase.UP, self.now_s
            self.history.note_start(pilot.shape, self.now_s - pilot.asked_s)
            self._fill(pilot)

    def _fill(self, pilot: Pilot) -> None:
        """Hand it what it has room and time for, the largest first."""
        spent_s = max(0.0, self.now_s - pilot.started_s - FRESH_S)  # a slow start does not count
        left_s = pilot.shape.walltime_s - spent_s - (START_S if spent_s <= 0 else FRESH_S)
        for key in sorted(self.waiting, reverse=True):
            needed_s = self._needed_s(key) if self.polite else 0.0
            lasts = needed_s <= left_s
            queue = self.waiting[key]
            while queue and key[0] <= pilot.free and lasts:
                self._begin(pilot, queue.popleft())
            if not queue:
                del self.waiting[key]

    def _begin(self, pilot: Pilot, task: Task) -> None:
        task.begun_s = self.now_s
        pilot.tasks.add(task)
        pilot.free -= task.cores
        self._at(self.now_s + task.length_s, lambda: self._done(pilot, task, task.begun_s))

    def _done(self, pilot: Pilot, task: Task, begun_s: float) -> None:
        if task not in pilot.tasks or task.begun_s != begun_s:
            return  # its pilot went away under it
        pilot.tasks.remove(task)
        pilot.free += task.cores
        pilot.since_s = self.now_s
        task.ended_s = self.now_s
        self.undone -= 1
        self.used_s += task.length_s * task.cores
        self.history.note_task(task.name, "", task.length_s)
        self._fill(pilot)

    def _end(self, pilot: Pilot) -> None:
        """Its walltime is over, or it is let go; what it had is queued again."""
        if self.pilots.pop(pilot.name, None) is None:
            return
        if pilot.node >= 0:
            self._free[pilot.node] += pilot.shape.cores
            self.held_s += pilot.shape.cores * (self.now_s - pilot.started_s)
        for task in pilot.tasks:
            self.lost += 1
            task.cut_off = True
            self.waiting.setdefault(task.kind, deque()).appendleft(task)
        pilot.tasks.clear()

    def _needed_s(self, kind: Kind) -> float:
        """As `Ticket.needed_s` has it."""
        _, name, cut_off = kind
        least_s = self.site.default_shape.walltime_s - START_S if cut_off else 0.0
        longest_s = self.site.queues[0].max_walltime_s - START_S
        known_s = self.history.task_s(name, "") or 0.0
        return min(max(2 * known_s, least_s), longest_s)

    def _row(self, key: Kind, waiting: int, running: int, shapes: tuple[Shape, ...]) -> Demand:
        base = self.site.default_shape
        granted = replace(base, cores=max(base.cores, key[0]))
        expected_s = self.history.task_s(key[1], "")
        return Demand(
            granted,
            waiting,
            running,
            cores=key[0],
            expected_s=expected_s,
            needed_s=self._needed_s(key),
            shapes=shapes,
        )

    def _at(self, when_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._numbers), act))
