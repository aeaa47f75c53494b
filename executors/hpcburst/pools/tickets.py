"""A ticket: one task from the moment it is queued to the moment its future is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from hpcburst.errors import BurstError
from hpcburst.pools.planner import Demand
from hpcburst.results import Line, Outcome
from hpcburst.tasks import Burst, Shape


def ignore_lines(_: Sequence[Line]) -> None:
    """The listener of a task nobody listens to."""


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
    """

    burst: Burst
    shape: Shape
    on_lines: Callable[[Sequence[Line]], None] = ignore_lines
    future: Future[Outcome] = field(default_factory=Future)
    sends: int = 0
    withdraw_call: Callable[[], None] | None = None

    @property
    def env_key(self) -> str:
        """Key of the env it runs in; "" for the driver's own Python."""
        return self.burst.env.key if self.burst.env else ""

    @property
    def needed_s(self) -> float:
        """Seconds of a pilot's walltime this task must find left.

        A time-out alone is a bound, not a need: it may be longer than any pilot lasts.
        """
        walltime_s = self.burst.needs.walltime_s or 0.0
        return min(walltime_s, self.burst.timeout_s or walltime_s)

    def settle(self, outcome: Outcome) -> None:
        """Set the future, unless the caller gave up on it."""
        with suppress(InvalidStateError):
            self.future.set_result(outcome)

    def refuse(self, error: BurstError) -> None:
        """Set the future's exception, unless the caller gave up on it."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


def demand_of(waiting: Iterable[Ticket], running: Iterable[Ticket]) -> list[Demand]:
    """What these tasks ask for together, a row for each shape they were granted."""
    waiting, running = list(waiting), list(running)
    rows = []
    for shape in dict.fromkeys(ticket.shape for ticket in (*waiting, *running)):
        queued = [ticket.burst.needs for ticket in waiting if ticket.shape == shape]
        begun = [ticket.burst.needs for ticket in running if ticket.shape == shape]
        asks = queued + begun
        rows.append(
            Demand(
                shape,
                waiting=len(queued),
                running=len(begun),
                cores=sum(ask.cores for ask in asks),
                memory_mb=sum(ask.memory_mb or 0 for ask in asks),
                gpus=sum(ask.gpus for ask in asks),
            )
        )
    return rows
