"""The budget: what a run's jobs have cost, told before it is spent."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from hpcburst.policy.model import Site
from hpcburst.pools.record import PilotRecord
from hpcburst.tasks import START_S

logger = logging.getLogger("hpcburst")

HOUR_S = 3600.0

WARN_AT = 0.8
"""The user is told when so much of the budget is spent: there is time left to decide."""


@dataclass(slots=True)
class Budget:
    """Counts core-seconds at the queues' prices.

    Attributes:
        site: Says what a core-hour costs in each queue, and how many may be spent.
        spent_h: Core-hours that were gone when they were counted last.
    """

    site: Site
    spent_h: float = 0.0
    _warned: bool = False

    def spent_core_s(self, jobs: Iterable[PilotRecord]) -> float:
        """Core-seconds that these jobs have cost until now; warns, once, when few are left."""
        now = time.time()
        spent_core_s = sum(self._cost_core_s(job, now) for job in jobs if job.up_at)
        self.spent_h = spent_core_s / HOUR_S
        self._warn(self.spent_h)
        return spent_core_s

    def _cost_core_s(self, job: PilotRecord, now: float) -> float:
        queue = self.site.queue(job.shape.queue)
        lasted_s = (job.gone_at or now) - job.up_at + START_S
        return lasted_s * job.shape.cores * (queue.price if queue else 1.0)

    def _warn(self, spent_h: float) -> None:
        budget_h = self.site.limits.max_core_hours
        if self._warned or budget_h is None or spent_h < WARN_AT * budget_h:
            return
        self._warned = True
        logger.warning(
            "%.3g of the budget of %g core-hours are spent; when it is, no more jobs are asked for "
            "and tasks wait. `budget` of the run or `hpcburst.budget` in the config changes it",
            spent_h,
            budget_h,
        )
