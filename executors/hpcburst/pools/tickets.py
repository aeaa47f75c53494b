"""A ticket: one task from the moment it is queued to the moment its future is set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from hpcburst.errors import BurstError
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
    def needed_s(self) -> float:
        """Seconds of a pilot's walltime this task must find left."""
        return self.burst.timeout_s or self.burst.needs.walltime_s or 0.0

    def settle(self, outcome: Outcome) -> None:
        """Set the future, unless the caller gave up on it."""
        if not self.future.done():
            self.future.set_result(outcome)

    def refuse(self, error: BurstError) -> None:
        """Set the future's exception, unless the caller gave up on it."""
        if not self.future.done():
            self.future.set_exception(error)
