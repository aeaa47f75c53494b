"""What Prefect's UI shows of a burst, in words."""

from __future__ import annotations

from hpcburst.pools.record import PilotRecord, RunRecord
from hpcburst.tasks import Shape
from prefect_hpcburst.progress import Pilots, Tally, described, reported


def record():
    shape = Shape(cores=2)
    pilots = {
        "up": PilotRecord("up", shape, "1", "node1", asked_at=1, up_at=1000, gone_at=0),
        "queued": PilotRecord("queued", shape, "2", asked_at=1),
        "gone": PilotRecord("gone", shape, "3", asked_at=1, up_at=1000, gone_at=4600),
    }
    return RunRecord(pilots=pilots)


def test_pilots_are_running_queued_or_gone():
    """Who has said hello runs, who has not is queued, and who left counts for its time alone."""
    pilots = Pilots.of(record(), ["2 core: 1 pilot waits (Priority)"])
    assert (pilots.running, pilots.queued) == (1, 1)
    assert pilots.core_hours > 2  # two cores for an hour, and what still runs


def test_the_progress_says_what_a_person_asks():
    """Task runs done and in all, pilots there and awaited, time so far, and why not more."""
    text = described(Tally(200, 50, 2), Pilots(1, 3, 0.25, ("2 core: waits for Priority",)))
    assert "**50 of 200 task runs done** (2 failed)" in text
    assert "1 pilot running, 3 queued; 0.25 core-hours" in text
    assert "- 2 core: waits for Priority" in text
    assert Tally(200, 50, 2).percent == 25
    assert Tally().percent == 0


def test_the_report_has_every_pilot():
    """The report names each pilot with its job, and where the logs are."""
    text = reported(Tally(3, 3, 1), record(), "/shared/runs/1")
    assert all(f"{name}: job" in text for name in ("up", "queued", "gone"))
    assert "3 task runs ended, 1 of them not well" in text
    assert "/shared/runs/1/logs" in text
