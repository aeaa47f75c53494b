"""Jobs that do not start are tried again, ever more slowly, elsewhere, and given up in the end."""

from __future__ import annotations

import pytest

from hpcburst.errors import SubmitError
from hpcburst.pools import starts
from hpcburst.pools.starts import MOST_AVOIDED, RETRY_S, STRIKES, Starts
from hpcburst.tasks import Shape

SHAPE = Shape(cores=2, memory_mb=4000, walltime_s=1800)
ERROR = SubmitError("A job was submitted", "it was refused")


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The ledger's clock."""
    clock = Clock()
    monkeypatch.setattr(starts, "time", clock)
    return clock


def test_pauses_grow_until_it_is_given_up(clock):
    """Each failure in a row is waited for longer, and the fourth is the last."""
    ledger = Starts()
    for pause_s in RETRY_S:
        assert not ledger.failed(SHAPE, ERROR, limit=4)
        clock.now += pause_s - 0.1
        assert ledger.paused()
        clock.now += 0.2
        assert not ledger.paused()
    assert ledger.failed(SHAPE, ERROR, limit=4)


def test_jobs_that_fail_together_count_once(clock):
    """A round of ten refused jobs is one failure, not ten."""
    ledger = Starts()
    assert not any(ledger.failed(SHAPE, ERROR, limit=2) for _ in range(10))
    clock.now += RETRY_S[0] + 0.1
    assert ledger.failed(SHAPE, ERROR, limit=2)


def test_another_walltime_is_no_new_try(clock):
    """What fails for 30 minutes fails for 10: the failures count together."""
    ledger = Starts()
    assert not ledger.failed(SHAPE, ERROR, limit=2)
    clock.now += RETRY_S[0] + 0.1
    shorter = Shape(cores=2, memory_mb=4000, walltime_s=600)
    assert ledger.failed(shorter, ERROR, limit=2)


def test_a_start_forgets_failures(clock):
    """One pilot that came up makes good what failed before."""
    ledger = Starts()
    ledger.failed(SHAPE, ERROR, limit=2)
    ledger.succeeded(SHAPE)
    assert not ledger.paused()
    assert not ledger.failed(SHAPE, ERROR, limit=2)
    assert clock.now


def test_a_node_that_lets_jobs_die_is_avoided():
    """Two jobs that die on one node make it one to keep away from, until one comes up there."""
    ledger = Starts()
    for _ in range(STRIKES):
        assert ledger.avoided() == []
        ledger.failed(SHAPE, ERROR, 9, "n3")
    assert ledger.avoided() == ["n3"]
    ledger.succeeded(SHAPE, "n3")
    assert ledger.avoided() == []


def test_when_all_nodes_seem_bad_none_is_avoided():
    """Failures everywhere are not the nodes' fault, and jobs must go somewhere."""
    ledger = Starts()
    for number in range(MOST_AVOIDED + 1):
        for _ in range(STRIKES):
            ledger.failed(SHAPE, ERROR, 9, f"n{number}")
    assert ledger.avoided() == []
