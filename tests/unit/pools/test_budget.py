"""The budget is counted at the queues' prices, and told before it is spent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools.budget import WARN_AT, Budget
from hpcburst.pools.record import PilotRecord
from hpcburst.tasks import START_S, Shape

QUEUES = (Queue("batch", 8, 64_000), Queue("burst", 8, 64_000, price=2.0))
SHAPE = Shape(cores=4, memory_mb=4000, walltime_s=3600)
DEAR = Shape(cores=4, memory_mb=4000, walltime_s=3600, queue="burst")


def _budget(core_hours=None):
    limits = Limits(max_core_hours=core_hours)
    return Budget(Site("slurm", QUEUES, SHAPE, limits, Paths(Path("/s"), Path("/n"))))


def _job(shape, hours, *, running=False):
    now = time.time()
    begun = now - hours * 3600 + START_S
    return PilotRecord("p", shape, up_at=begun, gone_at=0.0 if running else now)


@pytest.mark.parametrize("running", [False, True])
def test_jobs_cost_cores_times_time_times_price(running):
    """Two hours of four cores are eight core-hours, sixteen where a queue costs twice as much."""
    budget = _budget()
    plain, dear = (_job(shape, 2, running=running) for shape in (SHAPE, DEAR))
    assert budget.spent_core_s([plain]) == pytest.approx(8 * 3600, abs=10)
    assert budget.spent_core_s([plain, dear]) == pytest.approx(24 * 3600, abs=10)


def test_jobs_that_never_ran_cost_nothing():
    """Who waits in the queue is charged for nothing."""
    assert _budget().spent_core_s([PilotRecord("p", SHAPE, asked_at=1.0)]) == 0


def test_the_user_is_told_once_and_in_time(caplog):
    """The warning comes at four fifths, not at the end, and not again and again."""
    budget = _budget(core_hours=10)
    budget.spent_core_s([_job(SHAPE, 10 * (WARN_AT - 0.1) / 4)])
    assert not caplog.records
    for _ in range(3):
        budget.spent_core_s([_job(SHAPE, 10 * (WARN_AT + 0.05) / 4)])
    assert len(caplog.records) == 1
    assert "budget of 10 core-hours" in caplog.text
