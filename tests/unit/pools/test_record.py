"""After a run, its record says what was held, what was used, and what never came."""

from __future__ import annotations

import json

import pytest

from hpcburst.pools.record import PilotRecord, RunRecord, TaskRecord
from hpcburst.tasks import Shape

SHAPE = Shape(cores=2)


def _task(pilot="pilot-1", *, at=10.0, wall_s=3.0, cores=2, fault=""):
    return TaskRecord("fit", pilot, "key", cores, at, wall_s, wall_s, 50.0, 1, fault)


def _record():
    up = PilotRecord("pilot-1", SHAPE, "4711", "node7", 1.0, 5.0, 25.0, "idle for 10 s")
    lost = PilotRecord("pilot-2", SHAPE, asked_at=2.0, gone_at=3.0, end="not submitted")
    tasks = [_task(), _task(at=14.0, fault="raised")]
    return RunRecord(0.0, 30.0, {"pilot-1": up, "pilot-2": lost}, tasks)


def test_a_record_counts_cores_not_pilots():
    """Time held and time used are core-seconds, so that shapes can be compared."""
    assert _record().summary() == {
        "tasks": 2,
        "failed": 1,
        "pilots": 1,
        "used_core_s": 12.0,
        "held_core_s": 40.0,
        "first_result_s": 12.0,
    }


def test_the_report_reads_like_a_sentence():
    """A person reads the share of time used, and each pilot's story."""
    text = _record().text()
    assert "2 tasks (1 failed) on 1 pilots" in text
    assert "12.0 core-seconds used of 40.0 held (30 %)" in text
    assert "pilot-1: job 4711 on node7" in text
    assert "idle for 10 s" in text


def test_a_pilot_that_never_came_is_told_as_such():
    """A job that was refused appears with the reason, and no meaningless figures."""
    (line,) = [line for line in _record().text().splitlines() if "pilot-2" in line]
    assert "not submitted" in line
    assert "nan" not in _record().text()


def test_an_empty_run_has_a_report():
    """A run without tasks or pilots still ends with a report."""
    assert "0 tasks" in RunRecord().text()
    assert RunRecord().summary()["first_result_s"] == 0.0


def test_a_pilot_still_up_is_held_until_now():
    """A running pilot counts up to now, not as nothing."""
    assert PilotRecord("p", SHAPE, up_at=1.0).held_s > 1e6
    assert PilotRecord("p", SHAPE, asked_at=1.0).held_s == 0.0


def test_the_report_on_disk_is_json_with_everything(tmp_path):
    """`report.json` holds the summary and every task and pilot; `report.txt` the words."""
    record = _record()
    path = record.write(tmp_path)
    document = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert path.read_text() == record.text() + "\n"
    assert document["summary"] == record.summary()
    assert document["pilots"]["pilot-1"]["shape"]["cores"] == 2
    assert [task["fault"] for task in document["tasks"]] == ["", "raised"]
