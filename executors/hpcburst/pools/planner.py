"""How many pilots of which shape to ask for, and which to let go. Pure: facts in, a plan out.

The same function drives the running system, the tests and any simulation; it has no clock, no
memory and no effect.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hpcburst.policy.model import Site
from hpcburst.tasks import Shape


class Phase(StrEnum):
    """Where a pilot is in its life."""

    ASKED = "asked"  # its job is being submitted
    PENDING = "pending"  # its job waits, or runs and the pilot has not said hello
    UP = "up"  # it takes tasks
    DRAINING = "draining"  # it finishes what it has and takes no more


@dataclass(frozen=True, slots=True)
class Demand:
    """Tasks that were granted a shape and have not ended.

    Attributes:
        shape: What they were granted.
        waiting: Tasks that no pilot has.
        running: Tasks that a pilot has.
        cores: Cores that all of them use together.
        memory_mb: Memory that all of them use together.
        gpus: GPUs that all of them use together.
    """

    shape: Shape
    waiting: int
    running: int = 0
    cores: int = 0
    memory_mb: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class PilotView:
    """A pilot as the planner sees it.

    Attributes:
        name: Its name, never used twice.
        shape: Its shape.
        phase: Where it is in its life.
        busy: Tasks it has.
        since_s: Seconds it has been in this phase; for an idle pilot, seconds it has been idle.
        left_s: Seconds until its walltime ends; its whole walltime while it is not up.
    """

    name: str
    shape: Shape
    phase: Phase
    busy: int = 0
    since_s: float = 0.0
    left_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Gap:
    """Room in the schedule where a job starts now.

    Attributes:
        queue: The queue it is in.
        cores: Free cores.
        memory_mb: Free memory.
        length_s: Seconds until something reserved begins.
    """

    queue: str
    cores: int
    memory_mb: int
    length_s: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What earlier tasks and jobs taught.

    Attributes:
        start_delay_s: Seconds from a job's submission to its pilot's hello, by queue.
        task_s: Seconds a task takes, by its name.
        paused: Shapes whose jobs fail to start, with the reason; none are asked for.
        floor: Pilots to hold by shape even when nothing is to do (`cluster.scale`).
    """

    start_delay_s: Mapping[str, float] = field(default_factory=dict)
    task_s: Mapping[str, float] = field(default_factory=dict)
    paused: Mapping[Shape, str] = field(default_factory=dict)
    floor: Mapping[Shape, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        submit: How many jobs of which shape to submit, largest need first.
        retire: Names of pilots to let go, with the reason.
        why: For each shape with demand, why it has what it has.
    """

    submit: Mapping[Shape, int]
    retire: Mapping[str, str]
    why: Mapping[Shape, str]


def plan(
    demand: Sequence[Demand],
    pilots: Sequence[PilotView],
    site: Site,
    gaps: Sequence[Gap] = (),  # noqa: ARG001 - the signature is final; gap shaping uses it
    learned: Learned = Learned(),
) -> Plan:
    """What to submit and what to let go.

    Args:
        demand: Tasks waiting and running, by granted shape.
        pilots: Every pilot that is asked for, pending, up or draining.
        site: What the site allows.
        gaps: Room in the schedule, when it is known.
        learned: What earlier tasks and jobs taught.
    """
    wanted = {row.shape: _pilots_for(row) for row in demand}
    for shape, floor in learned.floor.items():
        wanted[shape] = max(wanted.get(shape, 0), floor)
    have = Counter(view.shape for view in pilots if view.phase is not Phase.DRAINING)
    retire = _retire(pilots, wanted, have, site)
    room = _Room.of(site, [view for view in pilots if view.name not in retire])
    submit: dict[Shape, int] = {}
    why: dict[Shape, str] = {}
    for shape in sorted(wanted, key=lambda shape: have[shape] - wanted[shape]):
        missing = wanted[shape] - have[shape]
        count, why[shape] = _ask(shape, missing, have[shape], room, learned)
        if count:
            submit[shape] = count
            room.take(shape, count)
    starved = [
        s for s in wanted if wanted[s] and not have[s] and s not in {*submit, *learned.paused}
    ]
    if starved and room.pending > 0:
        retire |= _make_room(pilots, retire, wanted)
    return Plan(submit, retire, why)


def _pilots_for(row: Demand) -> int:
    """Pilots that would run all of a demand at once, never more than it has tasks."""
    tasks = row.waiting + row.running
    by_size = max(
        math.ceil(row.cores / row.shape.cores),
        math.ceil(row.memory_mb / row.shape.memory_mb),
        math.ceil(row.gpus / row.shape.gpus) if row.shape.gpus else 0,
    )
    return min(tasks, max(by_size, 1 if tasks else 0))


def _retire(
    pilots: Sequence[PilotView], wanted: Mapping[Shape, int], have: Counter[Shape], site: Site
) -> dict[str, str]:
    """Idle pilots past their patience, and waiting jobs that nothing needs any more."""
    limits = site.limits
    surplus = {shape: count - wanted.get(shape, 0) for shape, count in have.items()}
    retire = {}
    for view in sorted(pilots, key=lambda view: -view.since_s):
        if surplus.get(view.shape, 0) <= 0:
            continue
        if view.phase is Phase.UP and not view.busy and view.since_s >= limits.idle_s:
            retire[view.name] = f"idle for {view.since_s:.0f} s"
        elif view.phase is Phase.PENDING and view.since_s >= limits.pending_min_age_s:
            retire[view.name] = f"waited {view.since_s:.0f} s and is not needed any more"
        else:
            continue
        surplus[view.shape] -= 1
    return retire


@dataclass(slots=True)
class _Room:
    """What may still be asked for; shrinks while the plan is made."""

    site: Site
    jobs: int
    pending: int
    cores: dict[str, float]
    memory_mb: dict[str, float]

    @classmethod
    def of(cls, site: Site, pilots: Sequence[PilotView]) -> _Room:
        limits = site.limits
        waiting = sum(view.phase in (Phase.ASKED, Phase.PENDING) for view in pilots)
        room = cls(
            site,
            jobs=limits.max_jobs,
            pending=limits.max_pending - waiting,
            cores={queue.name: queue.total_cores or math.inf for queue in site.queues},
            memory_mb={queue.name: queue.total_memory_mb or math.inf for queue in site.queues},
        )
        for view in pilots:
            room.take(view.shape, 1, waiting=False)
        return room

    def fits(self, shape: Shape) -> int:
        """How many more jobs of this shape may be asked for."""
        queue = self._queue(shape)
        rows = (
            self.jobs,
            self.pending,
            self.cores[queue] // shape.cores,
            self.memory_mb[queue] // shape.memory_mb,
        )
        return int(max(0, min(rows)))

    def take(self, shape: Shape, count: int, *, waiting: bool = True) -> None:
        queue = self._queue(shape)
        self.jobs -= count
        self.pending -= count if waiting else 0
        self.cores[queue] -= count * shape.cores
        self.memory_mb[queue] -= count * shape.memory_mb

    def limit(self, shape: Shape, count: int) -> str:
        """The limit that stops more than so many jobs of this shape, in words."""
        limits = self.site.limits
        queue = self._queue(shape)
        if self.jobs <= count:
            return f"the limit of {limits.max_jobs} jobs (max-jobs) is reached"
        if self.pending <= count:
            return f"{limits.max_pending} jobs wait in the queue already (max-pending)"
        return f"queue {queue!r} has no more room for it"

    def _queue(self, shape: Shape) -> str:
        queue = self.site.queue(shape.queue)
        return queue.name if queue else self.site.queues[0].name


def _ask(shape: Shape, missing: int, have: int, room: _Room, learned: Learned) -> tuple[int, str]:
    if missing <= 0:
        return 0, f"{have} pilots are enough"
    if shape in learned.paused:
        return 0, learned.paused[shape]
    count = min(missing, room.fits(shape))
    if count == missing:
        return count, f"{count} jobs asked for"
    return count, f"{missing - count} more would be used, but {room.limit(shape, count)}"


def _make_room(
    pilots: Sequence[PilotView], retire: Mapping[str, str], wanted: Mapping[Shape, int]
) -> dict[str, str]:
    """Idle pilots that nothing needs go at once: they keep another shape from starting at all."""
    return {
        view.name: "idle, and it holds what another shape waits for"
        for view in pilots
        if view.phase is Phase.UP
        and not view.busy
        and view.name not in retire
        and view.shape not in wanted
    }
