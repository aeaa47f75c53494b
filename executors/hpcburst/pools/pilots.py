"""A pilot as the keeper knows it, and the seam through which pilots come and go (`Fleet`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpcburst.jobs.dialect import Gap, JobNews
from hpcburst.pools.line import Line
from hpcburst.pools.record import PilotRecord
from hpcburst.pools.situation import Phase, PilotView, Room
from hpcburst.pools.tickets import Ticket
from hpcburst.tasks import START_S, Shape

FRESH_S = 5.0
"""A pilot that said hello so lately takes what its shape was granted for, even if its start took
longer than `START_S`: else one slow start would be answered by job after job."""


DRAIN_S = 15.0
"""A pilot with less of its walltime left takes no more tasks, and its successor is asked for."""

LAST_S = 3.0
"""So long before its end a pilot leaves though nobody could take the results it holds: what ends it
then is we, and not the batch system in the middle of something."""

START_SLACK_S = 10.0
"""A job never seen running before its pilot's hello started at most this long ago: pilots say hello
within seconds, and a status call may be a minute old."""


@dataclass(slots=True, eq=False)
class Pilot:
    """One pilot, from the wish for it to its end.

    Attributes:
        name: Its name; never used twice.
        shape: Its shape.
        record: What the run's record will say of it.
        phase: Where it is in its life.
        since: When it entered the phase, or became idle (monotonic seconds).
        line: The open line to it.
        address: Its Dask address.
        deadline: When its walltime ends (monotonic seconds).
        tickets: The tasks it has.
        warm: Keys of envs it has a guest for.
        job_seen_running: When its job was first seen running (monotonic seconds).
        foreign: Tasks of plain Dask it had when last looked at.
        waits_for: Why its job waits, in the batch system's words.
    """

    name: str
    shape: Shape
    record: PilotRecord
    phase: Phase = Phase.ASKED
    since: float = field(default_factory=time.monotonic)
    line: Line | None = None
    address: str = ""
    deadline: float = math.inf
    tickets: set[Ticket] = field(default_factory=set)
    warm: set[str] = field(default_factory=set)
    job_seen_running: float | None = None
    foreign: int = 0
    waits_for: str = ""

    def enter(self, phase: Phase) -> None:
        """Go on to a phase of its life."""
        self.phase = phase
        self.since = time.monotonic()

    @property
    def left_s(self) -> float:
        """Seconds until its walltime ends."""
        return self.deadline - time.monotonic()

    @property
    def drains_at(self) -> float:
        """When it takes no more tasks (monotonic seconds)."""
        return self.deadline - min(DRAIN_S, self.shape.walltime_s / 4)

    def spent_s(self) -> float:
        """Seconds of its walltime that may be gone at its hello: its job ran at most so long."""
        now = time.monotonic()
        return now - (self.job_seen_running or max(self.since, now - START_SLACK_S))

    def free(self) -> tuple[int, int, int]:
        """Cores, MB of memory and GPUs that no task of ours uses."""
        asks = [ticket.burst.needs for ticket in self.tickets]
        return (
            self.shape.cores - sum(ask.cores for ask in asks),
            self.shape.memory_mb - sum(ask.memory_mb or 0 for ask in asks),
            self.shape.gpus - sum(ask.gpus for ask in asks),
        )

    def takes(self, ticket: Ticket, foreign: int) -> bool:
        """Whether it can run this task now, beside `foreign` tasks of plain Dask."""
        cores, memory_mb, gpus = self.free()
        needs = ticket.burst.needs
        return (
            needs.cores <= cores - foreign
            and (needs.memory_mb or 0) <= memory_mb
            and needs.gpus <= gpus
            and needs.queue in (None, self.shape.queue)
            and needs.placement == self.shape.placement
            and self.lasts(ticket.needed_s)
        )

    def lasts(self, needed_s: float) -> bool:
        """Whether its walltime lasts for a task that needs so long."""
        return needed_s <= self.lasting_s

    @property
    def lasting_s(self) -> float:
        """Seconds of work that it lasts for."""
        fresh = not (self.warm or self.foreign) and time.monotonic() - self.since < FRESH_S
        return max(self.left_s, self.shape.walltime_s - START_S if fresh else 0.0)

    @property
    def busy(self) -> int:
        """Tasks it has, ours and plain Dask's."""
        return len(self.tickets) + self.foreign

    def look(self, foreign: int) -> None:
        """Note its tasks of plain Dask: who has some is not idle."""
        self.foreign = foreign
        if foreign:
            self.since = time.monotonic()

    def view(self) -> PilotView:
        """What the planner sees of it."""
        cores, memory_mb, gpus = self.free()
        spent_s = self.spent_s() if self.job_seen_running else 0.0
        lasting_s = self.lasting_s if self.phase is Phase.UP else self.shape.walltime_s - spent_s
        return PilotView(
            name=self.name,
            shape=self.shape,
            phase=self.phase,
            busy=self.busy,
            since_s=time.monotonic() - self.since,
            left_s=lasting_s,
            free=Room(cores - self.foreign, memory_mb, gpus),
        )


class Fleet(Protocol):
    """What the keeper asks of the cluster. Jobs are submitted, looked at and ended here."""

    async def submit(self, name: str, shape: Shape, avoid: Sequence[str]) -> str:
        """Submit a job for such a pilot, away from some nodes; returns the job id."""

    async def news(self, job_ids: Sequence[str]) -> Mapping[str, JobNews]:
        """News of these jobs."""

    async def gaps(self) -> Sequence[Gap]:
        """Where jobs would start now, in any queue; none where the batch system does not tell."""

    async def drain(self, address: str) -> None:
        """Keep plain Dask's tasks away from this pilot from now on."""

    def holds_alone(self, address: str) -> bool:
        """Whether this pilot has results of plain Dask that no other pilot could take now."""

    async def release(self, pilots: Sequence[Pilot]) -> None:
        """End these pilots and their jobs."""

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """End these jobs, waiting or running."""

    async def dismiss(self, address: str) -> None:
        """Tell the pilot at this address to leave."""

    async def open_line(self, address: str, on_left: Callable[[float], None]) -> Line | None:
        """Open a line to the pilot at this address, which tells how long its job lasts.

        None: it takes no tasks of ours.
        """

    def log_of(self, job_id: str) -> str:
        """Path of a job's log."""

    def foreign_tasks(self, address: str) -> int:
        """Tasks of plain Dask that the pilot at this address has."""

    def foreign_demand(self) -> int:
        """Tasks of plain Dask that wait or run anywhere."""
