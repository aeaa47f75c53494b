"""What may still be asked for under the limits of site and user, and in the known gaps. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hpcburst.jobs.dialect import Gap
from hpcburst.policy.model import Queue, Site
from hpcburst.pools.situation import Learned, Phase, PilotView
from hpcburst.tasks import Shape

HOUR_S = 3600.0
WAITING = (Phase.ASKED, Phase.PENDING)


@dataclass(slots=True)
class Caps:
    """What is left of every limit; shrinks while a plan is made.

    Attributes:
        site: What the site allows.
        jobs: Jobs.
        pending: Jobs that may wait.
        cores: Cores.
        core_s: Core-seconds at the queues' prices; a job counts with its whole walltime, for it
            might use it.
        queue_cores: Cores, by queue.
        queue_memory_mb: Memory, by queue.
    """

    site: Site
    jobs: int
    pending: int
    cores: float
    core_s: float
    queue_cores: dict[str, float] = field(default_factory=dict)
    queue_memory_mb: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, site: Site, pilots: Iterable[PilotView], spent_core_s: float = 0.0) -> Caps:
        """What these pilots leave."""
        limits, queues = site.limits, site.queues
        budget_h = limits.max_core_hours
        caps = cls(
            site,
            jobs=limits.max_jobs,
            pending=limits.max_pending,
            cores=math.inf if limits.max_cores is None else limits.max_cores,
            core_s=(math.inf if budget_h is None else budget_h * HOUR_S) - spent_core_s,
            queue_cores={queue.name: queue.total_cores or math.inf for queue in queues},
            queue_memory_mb={queue.name: queue.total_memory_mb or math.inf for queue in queues},
        )
        for view in pilots:
            left_s = min(view.left_s, view.shape.walltime_s)
            caps.take(view.shape, 1, waits=view.phase in WAITING, left_s=left_s)
        return caps

    def fits(self, shape: Shape) -> int:
        """How many more jobs of this shape may be asked for."""
        return max(0, int(min(most for most, _ in self._rows(shape))))

    def take(
        self, shape: Shape, count: int, *, waits: bool = True, left_s: float | None = None
    ) -> None:
        """Count so many jobs of this shape."""
        queue = queue_of(shape, self.site)
        self.jobs -= count
        self.pending -= count if waits else 0
        self.cores -= count * shape.cores
        lasts_s = shape.walltime_s if left_s is None else max(0.0, left_s)
        self.core_s -= count * shape.cores * lasts_s * queue.price
        self.queue_cores[queue.name] -= count * shape.cores
        self.queue_memory_mb[queue.name] -= count * shape.memory_mb

    def limit(self, shape: Shape) -> str:
        """The limit that allows the fewest jobs of this shape, in words."""
        return min(self._rows(shape), key=lambda row: row[0])[1]

    def _rows(self, shape: Shape) -> list[tuple[float, str]]:
        limits = self.site.limits
        queue = queue_of(shape, self.site)
        full = f"queue {queue.name!r} has no more room for it"
        return [
            (self.jobs, f"the limit of {limits.max_jobs} jobs (max-jobs) is reached"),
            (self.pending, f"{limits.max_pending} jobs wait in the queue already (max-pending)"),
            (_times(self.cores, shape.cores), f"the limit of {limits.max_cores} cores is reached"),
            (
                _times(self.core_s, shape.cores * shape.walltime_s * queue.price),
                f"the budget of {limits.max_core_hours} core-hours would be spent",
            ),
            (_times(self.queue_cores[queue.name], shape.cores), full),
            (_times(self.queue_memory_mb[queue.name], shape.memory_mb), full),
        ]


@dataclass(slots=True)
class GapMap:
    """The gaps that jobs already asked for leave.

    Attributes:
        site: Says which queue is meant when a shape names none.
        gaps: What is left of each gap.
    """

    site: Site
    gaps: list[Gap]

    @classmethod
    def of(cls, site: Site, gaps: Sequence[Gap], asked: Mapping[Shape, int]) -> GapMap:
        """These gaps without what waiting jobs will take: each the shortest gap that does."""
        left = cls(site, sorted(gaps, key=lambda gap: gap.length_s))
        for shape in sorted(asked, key=lambda shape: -shape.walltime_s):
            left._take(shape, asked[shape])
        return left

    def lengths(self, shape: Shape) -> list[tuple[float, int]]:
        """For each gap with room for it: how long the gap is, and how many such pilots it holds."""
        queue = queue_of(shape, self.site).name
        rows = [
            (gap.length_s, _holds(gap, shape))
            for gap in self.gaps
            if gap.queue == queue and not shape.gpus  # a gap says nothing of GPUs
        ]
        return [row for row in rows if row[1]]

    def _take(self, shape: Shape, count: int) -> None:
        queue = queue_of(shape, self.site).name
        for number, gap in enumerate(self.gaps):
            if count and gap.queue == queue and gap.length_s >= shape.walltime_s:
                used = min(count, _holds(gap, shape))
                self.gaps[number] = Gap(
                    queue,
                    gap.cores - used * shape.cores,
                    gap.memory_mb - used * shape.memory_mb,
                    gap.length_s,
                )
                count -= used


def queue_of(shape: Shape, site: Site) -> Queue:
    """The queue that a job of this shape goes to."""
    return site.queue(shape.queue) or site.queues[0]


def known_wait_s(shape: Shape, site: Site, learned: Learned) -> float | None:
    """What a job of this shape waits, as the job most like it in its queue did; None if none did.

    Who asks for twice the time waits for more than twice as long, so what a shorter job taught
    counts with the square of the factor.
    """
    queue = queue_of(shape, site)
    known = [other for other in learned.start_delay_s if queue_of(other, site) is queue]
    if not known:
        return None
    nearest = min(known, key=lambda other: _difference(shape, other))
    return learned.start_delay_s[nearest] * max(1.0, shape.walltime_s / nearest.walltime_s) ** 2


def _difference(shape: Shape, other: Shape) -> float:
    return (
        abs(math.log(other.walltime_s / shape.walltime_s))
        + abs(math.log(other.cores / shape.cores))
        + (shape.gpus != other.gpus)
    )


def _holds(gap: Gap, shape: Shape) -> int:
    return int(min(_times(gap.cores, shape.cores), _times(gap.memory_mb, shape.memory_mb)))


def _times(total: float, each: float) -> float:
    """How often a part goes into the whole; infinity stays what it is."""
    return total // each if math.isfinite(total) and each else math.inf
