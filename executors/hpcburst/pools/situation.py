"""What the planner is told and what it answers: frozen data, no behaviour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hpcburst.tasks import Shape


class Phase(StrEnum):
    """Where a pilot is in its life."""

    ASKED = "asked"  # its job is being submitted
    PENDING = "pending"  # its job waits, or runs and the pilot has not said hello
    UP = "up"  # it takes tasks
    DRAINING = "draining"  # it finishes what it has and takes no more


@dataclass(frozen=True, slots=True)
class Room:
    """Cores, MB of memory and GPUs."""

    cores: float
    memory_mb: float
    gpus: float = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """Equal tasks that have not ended.

    Attributes:
        shape: What they were granted: a pilot that holds at least one of them.
        waiting: Tasks that no pilot has.
        running: Tasks that a pilot has.
        cores: Cores of each.
        memory_mb: Memory of each; 0 is whatever comes with a core.
        gpus: GPUs of each.
        queue: Queue they must run in; None is any.
        expected_s: Seconds each is expected to take; None when nothing is known.
        needed_s: Seconds of a pilot's walltime that each must find left; 0 when nothing is known.
        shapes: Shapes of pilot that may be asked for; () leaves the choice to the planner, which
            takes `shape` for its measure.
    """

    shape: Shape
    waiting: int
    running: int = 0
    cores: int = 1
    memory_mb: int = 0
    gpus: int = 0
    queue: str | None = None
    expected_s: float | None = None
    needed_s: float = 0.0
    shapes: tuple[Shape, ...] = ()

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU" if self.gpus else ""
        memory = f", {self.memory_mb} MB" if self.memory_mb else ""
        each_s = "" if self.expected_s is None else f", about {self.expected_s:.3g} s each"
        return f"{self.waiting} tasks of {self.cores} core{memory}{gpus}{each_s}"


@dataclass(frozen=True, slots=True)
class PilotView:
    """A pilot as the planner sees it.

    Attributes:
        name: Its name, never used twice.
        shape: Its shape.
        phase: Where it is in its life.
        busy: Tasks it has.
        since_s: Seconds it has been in this phase; for an idle pilot, seconds it has been idle.
        left_s: Seconds until its walltime ends; its whole walltime while its job waits.
        free: What its tasks leave; None when that is not told. Then no pilot's room is known, and
            running tasks are packed along with the waiting ones as if none had begun.
    """

    name: str
    shape: Shape
    phase: Phase
    busy: int = 0
    since_s: float = 0.0
    left_s: float = math.inf
    free: Room | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """What earlier tasks and jobs taught.

    Attributes:
        start_delay_s: Seconds from a job's submission to its pilot's hello, by shape.
        paused: Shapes whose jobs fail to start, with the reason; none as large or larger are asked
            for in their queue, whatever the walltime.
        floor: Pilots to hold by shape even when nothing is to do (`cluster.scale`).
        spent_core_s: Core-seconds of the budget that are gone, each at its queue's price: jobs
            that ended, and what those that run have used so far.
    """

    start_delay_s: Mapping[Shape, float] = field(default_factory=dict)
    paused: Mapping[Shape, str] = field(default_factory=dict)
    floor: Mapping[Shape, int] = field(default_factory=dict)
    spent_core_s: float = 0.0


NOTHING_LEARNED = Learned()
"""What is known before anything ran."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        submit: How many jobs of which shape to submit, the most important first.
        retire: Names of pilots to let go, with the reason.
        why: For each shape that tasks were granted or that is held or asked for, in words, what
            there is of it and why there is not more.
        waits: For each row of the demand, in words, what its waiting tasks wait for.
    """

    submit: Mapping[Shape, int]
    retire: Mapping[str, str]
    why: Mapping[Shape, str]
    waits: Mapping[Demand, str] = field(default_factory=dict)
