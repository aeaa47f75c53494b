"""What one run wishes for itself, as far as the site goes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hpcburst.errors import RequestError
from hpcburst.policy.model import Limits, Site

PREFERENCES = ("soonest", "cheapest")
"""What may count among queues that hold a task."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Wishes of a run; None is what the site says.

    Attributes:
        max_jobs: Jobs at once.
        prefer: What counts among queues that hold a task, one of `PREFERENCES`.
        budget: Core-hours that it may spend, at the queues' prices.

    Raises:
        RequestError: A wish is none that can be meant.
    """

    max_jobs: int | None = None
    prefer: str | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.max_jobs is not None and self.max_jobs < 1:
            raise RequestError(
                f"max_jobs={self.max_jobs} was asked for", "at least one job is needed"
            )
        if self.prefer not in (None, *PREFERENCES):
            raise RequestError(
                f"prefer={self.prefer!r} was asked for",
                f"it is one of {', '.join(PREFERENCES)}",
            )
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise RequestError(
                f"budget={self.budget!r} was asked for",
                "it is a number of core-hours above 0",
                "leave it out for no budget of the run's own",
            )


def granted(wishes: Wishes, site: Site) -> Site:
    """The site as this run sees it: never more than it gives to everybody."""
    return replace(site, limits=_capped(wishes, site.limits), prefer=wishes.prefer or site.prefer)


def _capped(wishes: Wishes, limits: Limits) -> Limits:
    jobs = min(wishes.max_jobs or limits.jobs, limits.max_jobs)
    budgets = [hours for hours in (wishes.budget, limits.max_core_hours) if hours is not None]
    return replace(
        limits,
        max_jobs=jobs,
        max_pending=min(jobs, limits.max_pending),
        max_core_hours=min(budgets, default=None),
    )
