"""What the UI shows of a burst, and what its cancel button does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun
from prefect.states import Cancelling

from prefect_hpcburst import BurstTaskRunner
from support.processes import wait_until


@task
def work(number):
    return number


def run_id():
    return FlowRunContext.get().flow_run.id


def artifacts(flow_run_id):
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        return {row.key: row for row in client.read_artifacts(flow_run_filter=chosen)}


def progress(flow_run_id):
    wait_until(lambda: "hpcburst-progress" in artifacts(flow_run_id), "the first progress")
    return artifacts(flow_run_id)["hpcburst-progress"]


def state_of(flow_run_id):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id).state


def test_a_burst_is_shown_with_progress_and_report(prefect_api, shared_root):
    """A flow run has a progress artifact while it runs, complete at its end, and a report."""

    @task
    def wait_for(path):
        while not Path(path).exists():
            time.sleep(0.02)

    @flow(task_runner=BurstTaskRunner(max_jobs=1, site={"shared-root": str(shared_root)}))
    def pipeline(go):
        assert work.map(range(3)).result() == [0, 1, 2]
        held = wait_for.submit(go)
        wait_until(lambda: "3 of 4" in progress(run_id()).description, "the progress")
        shown = progress(run_id())
        Path(go).touch()
        held.wait()
        return run_id(), shown.data, shown.description

    flow_run_id, percent, text = pipeline(str(shared_root.parent / "go"))
    assert 0 <= float(percent) <= 75
    assert "of 4 task runs done" in text
    assert "core-hours" in text
    last = artifacts(flow_run_id)
    assert float(last["hpcburst-progress"].data) == 100
    assert "4 tasks (0 failed)" in last["hpcburst-report"].data
    assert "pilot-1: job" in last["hpcburst-report"].data


def test_cancelling_a_run_stops_its_bodies(prefect_api, shared_root, tmp_path):
    """A run cancelled in the UI ends as Cancelled; its bodies stop within 5 s, its pilots go."""

    @task(retries=3, retry_delay_seconds=60)
    def block(number):
        (tmp_path / f"begun-{number}").write_text(str(os.getpid()))
        time.sleep(600)

    seen = {}

    @flow(task_runner=BurstTaskRunner(max_jobs=1, site={"shared-root": str(shared_root)}))
    def pipeline():
        seen["run"] = run_id()
        futures = block.map(range(5))
        wait_until(lambda: list(tmp_path.glob("begun-*")), "the start of a body", within_s=60)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(seen["run"], Cancelling(), force=True)
        wait_until(lambda: not alive(tmp_path), "the end of the bodies", within_s=5)
        futures.result()

    with pytest.raises(CancelledRun):
        pipeline()
    assert state_of(seen["run"]).name == "Cancelled"
    (run,) = (shared_root / "runs").iterdir()
    assert not (run / "secret").exists()
    assert not alive(tmp_path)
    assert len(list(tmp_path.glob("begun-*"))) < 5, "bodies began after the cancel"


def alive(folder):
    """Processes of the bodies that began there."""
    pids = [path.read_text() for path in folder.glob("begun-*")]
    return [pid for pid in pids if pid and Path(f"/proc/{pid}").exists()]


def test_an_api_that_does_not_answer_does_not_disturb_the_run(burst, monkeypatch):
    """Artifacts are for looking: a run goes on and ends well when the API takes none."""
    from prefect.client.orchestration import SyncPrefectClient

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(SyncPrefectClient, "create_artifact", refuse)

    @flow
    def pipeline():
        return work.map(range(3)).result()

    assert burst(pipeline) == [0, 1, 2]
