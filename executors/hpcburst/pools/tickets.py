"""A ticket: one task from the moment it is queued to the moment its future is set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hpcburst.errors import BurstError
from hpcburst.placement import Placement
from hpcburst.pools.situation import Demand
from hpcburst.results import Line, Outcome
from hpcburst.tasks import START_S, Burst, PythonCall, Shape

LONGER = 2.0
"""A task of which only earlier runs are known may take so many times as long; what it needs is
counted so, and what it is expected to take is not."""


def ignore_lines(_: Sequence[Line]) -> None:
    """The listener of a task nobody listens to."""


class Kind(NamedTuple):
    """What the planner knows of a task; the fields are those of `Demand`."""

    shape: Shape
    cores: int
    memory_mb: int
    gpus: int
    queue: str | None
    expected_s: float | None
    needed_s: float


@dataclass(slots=True, eq=False)
class Ticket:
    """One task in the keeper's hands.

    Attributes:
        burst: The task.
        shape: What it was granted.
        on_lines: Gets its output as it comes.
        future: Gets its Outcome, or a BurstError when it could not be run.
        sends: How often it was handed to a pilot.
        withdraw_call: Stops it on the pilot that has it; None while no pilot has it.
        learned_s: Seconds it is expected to take, as earlier runs of its like taught; None if none
            are known.
        cut_off_s: Seconds it had run when a pilot ended under it, the longest of them.
        longest_s: Walltime of the longest pilot it may get (`decide.longest_s`); None is that of
            the shape it was granted.
        overtaken: How often a younger task took room on a pilot that it could have had.
        sent_at: When it was last handed to a pilot (monotonic seconds).
    """

    burst: Burst
    shape: Shape
    on_lines: Callable[[Sequence[Line]], None] = ignore_lines
    future: Future[Outcome] = field(default_factory=Future)
    sends: int = 0
    withdraw_call: Callable[[], None] | None = None
    learned_s: float | None = None
    cut_off_s: float = 0.0
    longest_s: float | None = None
    overtaken: int = 0
    sent_at: float = 0.0

    @property
    def env_key(self) -> str:
        """Key of the env it runs in; "" for the driver's own Python."""
        return self.burst.env.key if self.burst.env else ""

    @property
    def history_name(self) -> str:
        """The name under which its duration is remembered: the function's, or the rule's."""
        work = self.burst.work
        return work.body.name if isinstance(work, PythonCall) else self.burst.name

    @property
    def expected_s(self) -> float | None:
        """Seconds it is expected to take: as its like took, else all that it asked for.

        Two digits of it, so that tasks which differ by little are planned for as equals.
        """
        known_s = self.learned_s if self.learned_s is not None else self._bound_s or None
        return None if known_s is None else float(f"{known_s:.1e}")

    @property
    def needed_s(self) -> float:
        """Seconds of a pilot's walltime this task must find left; 0 when nothing is known.

        What it asked for, else twice what it is expected to take; once a pilot ended under it, at
        least a whole pilot as long as it was granted. A time-out alone is a bound, not a need: it
        may be longer than any pilot lasts.
        """
        if self._bound_s:
            return self._bound_s
        longer_s = LONGER * max(self.expected_s or 0.0, self.cut_off_s)
        if self.cut_off_s:
            longer_s = max(longer_s, self.shape.walltime_s - START_S)
        longest_s = self.shape.walltime_s if self.longest_s is None else self.longest_s
        return max(0.0, min(longer_s, longest_s - START_S))

    @property
    def _bound_s(self) -> float:
        walltime_s = self.burst.needs.walltime_s or 0.0
        return min(walltime_s, self.burst.timeout_s or walltime_s)

    @property
    def kind(self) -> Kind:
        """What makes two tasks equal for the planner; nothing of it may change while they wait."""
        needs = self.burst.needs
        return Kind(
            self.shape,
            needs.cores,
            needs.memory_mb or 0,
            needs.gpus,
            needs.queue,
            self.expected_s,
            self.needed_s,
        )

    def settle(self, outcome: Outcome) -> None:
        """Set the future, unless the caller gave up on it."""
        with suppress(InvalidStateError):
            self.future.set_result(outcome)

    def refuse(self, error: BurstError) -> None:
        """Set the future's exception, unless the caller gave up on it."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


def demand_of(
    waiting: Iterable[Ticket], running: Iterable[Ticket], shapes: Sequence[Shape] | None = None
) -> list[Demand]:
    """What these tasks ask for: a row for each kind of task, in the order of the oldest.

    Args:
        waiting: Tasks that no pilot has.
        running: Tasks that pilots have which still take tasks.
        shapes: Shapes that pilots may have; () leaves the choice to the planner, and None asks for
            pilots of the shapes that the tasks were granted.
    """
    return demand_of_kinds(
        Counter(ticket.kind for ticket in waiting),
        Counter(ticket.kind for ticket in running),
        shapes,
    )


def demand_of_kinds(
    waiting: Mapping[Kind, int], running: Mapping[Kind, int], shapes: Sequence[Shape] | None = None
) -> list[Demand]:
    """The same from how many of each kind there are (`Backlog.counts`)."""
    return [
        Demand(
            **kind._asdict(),
            waiting=waiting.get(kind, 0),
            running=running.get(kind, 0),
            shapes=(kind.shape,) if shapes is None else _placed(shapes, kind.shape.placement),
        )
        for kind in dict.fromkeys([*waiting, *running])
    ]


def _placed(shapes: Sequence[Shape], placement: Placement) -> tuple[Shape, ...]:
    """The user's shapes, for the tasks' account and the like."""
    return tuple(replace(shape, placement=placement) for shape in shapes)
