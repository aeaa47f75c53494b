"""Logs go where they are said to go, and leave when they are old."""

from __future__ import annotations

import os
import time

from snakemake_executor_plugin_hpcburst.logs import TABLE, RunLogs

DAY_S = 86400


def aged(path, days):
    at = time.time() - days * DAY_S
    os.utime(path, (at, at))


def run_of(root, name, days):
    """What a run of so many days ago left."""
    folder = root / name
    log = folder / "rule" / "job1-attempt1.log"
    log.parent.mkdir(parents=True)
    log.write_text("x")
    for path in (log, log.parent, folder):
        aged(path, days)
    return folder


def test_old_runs_are_swept_and_nothing_else(tmp_path):
    """After so many days a run's logs go; younger ones, other folders and links stay."""
    old, young = run_of(tmp_path, "20240101-000000-7", 11), run_of(tmp_path, "20240101-000000-8", 9)
    other = run_of(tmp_path, "my-own-results", 50)
    link = tmp_path / "20240101-000000-9"
    link.symlink_to(other)
    RunLogs.of_this_process(tmp_path, keep=False).sweep(10)
    assert not old.exists()
    assert young.exists()
    assert (other / "rule").exists()
    assert link.is_symlink()


def test_a_run_that_still_writes_is_not_old(tmp_path):
    """A workflow of many days keeps its logs as long as it adds to them."""
    folder = run_of(tmp_path, "20240101-000000-7", 30)
    (folder / "rule" / "job2-attempt1.log").write_text("now")
    RunLogs.of_this_process(tmp_path, keep=False).sweep(10)
    assert (folder / "rule" / "job1-attempt1.log").exists()


def test_the_table_stays_beside_the_logs(tmp_path):
    """The run's folder is kept for its table, and is nobody else's to read."""
    logs = RunLogs.of_this_process(tmp_path, keep=False)
    log = logs.begin("rule", "job1")
    log.write_text("x")
    logs.end_well(log)
    assert logs.keep_table("a,b\n") == logs.folder / TABLE
    logs.close()
    assert [path.name for path in logs.folder.iterdir()] == [TABLE]
    assert logs.folder.stat().st_mode & 0o077 == 0
