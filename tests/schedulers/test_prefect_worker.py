"""Flow runs as jobs of a real Slurm: queued, cancelled, preempted, out of time, unwatched."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clusters.slurm import Slurm
from support.prefect_site import SECRET, PrefectSite
from support.processes import wait_until

STEPS = """
import os, time
from pathlib import Path
from prefect import flow, task
from prefect.cache_policies import INPUTS

@task(persist_result=True, cache_policy=INPUTS)
def step(i, place):
    with open(Path(place) / "executed", "a") as done:
        done.write(f"{i}\\n")
    return i

@flow
def steps(place: str, until: str = ""):
    total = [step(i, place) for i in range(3)]
    Path(place, "job").write_text(os.environ["SLURM_JOB_ID"])
    while until and not Path(place, until).exists():
        time.sleep(0.1)
    return sum(total)
"""

ROW = {"cores": 4, "memory": "7GB", "walltime": "1h"}
QUEUES = {"batch": ROW, "cancelme": ROW}
ALL_NODES = [f"n{number}" for number in range(1, 9)]


pytestmark = pytest.mark.timeout(600)  # three Pythons with Prefect start for each flow run


@pytest.fixture(scope="module")
def site(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectSite]:
    """A server, and a worker whose jobs are the private Slurm's."""
    variables = {
        "SLURM_CONF": slurm.environ["SLURM_CONF"],
        "DASK_HPCBURST__SCHEDULER": "slurm",
        "DASK_HPCBURST__HOST": "127.0.0.1",
        "DASK_HPCBURST__STATUS_INTERVAL": "2s",
        "DASK_HPCBURST__QUEUES": json.dumps(QUEUES),
    }
    made = PrefectSite(tmp_path_factory.mktemp("site"), variables)
    try:
        made.start_server()
        made.start_worker()
        yield made
    finally:
        made.close()
        slurm.reset()


@pytest.fixture(scope="module")
def steps(site: PrefectSite):
    """A deployment; its runs are told how to go on by `job_variables`."""
    return site.deploy(STEPS, "steps", name="steps", job_variables={"memory": "500MB"})


def await_job(place: Path) -> str:
    """The job in which the flow has come to its last line."""
    wait_until((place / "job").exists, "the last step of the flow", 120)
    wait_until((place / "job").read_text, "the job's number", 10)
    return (place / "job").read_text()


def test_a_flow_run_is_one_slurm_job(slurm, site, steps, tmp_path):
    """A triggered run is a job of the work pool's shape; no secret is in what Slurm knows of it."""
    run_id = site.trigger(steps, place=str(tmp_path), until="go")
    job_id = await_job(tmp_path)
    told = slurm.run("scontrol", "show", "job", job_id)
    assert "JobName=hpcburst" in told
    assert "NumCPUs=1" in told
    script = slurm.run("scontrol", "write", "batch_script", job_id, "-")
    kept = [path for path in (slurm.folder / "state").rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in kept)
    assert SECRET not in script
    (tmp_path / "go").touch()
    run = site.await_state(run_id, "Completed")
    assert run.infrastructure_pid.endswith(f":{job_id}")
    wait_until(lambda: slurm.job(job_id) is None, "the end of the job", 30)


def test_a_queued_run_cancels_in_seconds(slurm, site, steps, tmp_path):
    """All nodes are taken: the run's job waits, and cancelling the run ends both in seconds."""
    others = slurm.fill(*ALL_NODES)
    run_id = site.trigger(steps, place=str(tmp_path))
    wait_until(lambda: "waits" in site.log_of(run_id), "a word of the waiting job", 60)
    job_id = site.read(run_id).infrastructure_pid.split(":")[-1]
    site.cancel(run_id)
    site.await_state(run_id, "Cancelled", within_s=15)
    wait_until(lambda: slurm.job(job_id) is None, "the end of the job", 15)
    slurm.cancel(*others)


@pytest.mark.long
def test_a_preempted_run_goes_on_in_a_second_job(slurm, site, steps, tmp_path):
    """Jobs of others push the flow's job out: it goes on in another one when there is room, and
    what was done is not done again."""
    wanted = {"memory": "500MB", "queue": "cancelme", "on_early_end": "reschedule"}
    run_id = site.trigger(steps, wanted, place=str(tmp_path), until="second")
    first = await_job(tmp_path)
    (tmp_path / "job").unlink()
    others = slurm.fill(*ALL_NODES)
    wait_until(lambda: slurm.job(first) is None, "the end of the preempted job", 60)
    slurm.cancel(*others)
    assert await_job(tmp_path) != first
    (tmp_path / "second").touch()
    run = site.await_state(run_id, "Completed", within_s=120)
    assert run.run_count == 2
    assert (tmp_path / "executed").read_text().split() == ["0", "1", "2"]


@pytest.mark.long
def test_a_worker_that_starts_adopts_the_jobs_of_one_that_died(slurm, site, steps, tmp_path):
    """The worker is killed, then somebody cancels the job: the next worker tells of it, with
    Slurm's reason."""
    run_id = site.trigger(steps, place=str(tmp_path), until="never")
    job_id = await_job(tmp_path)
    wait_until(lambda: site.read(run_id).infrastructure_pid, "the job's number at the server", 30)
    os.kill(site.worker.pid, signal.SIGKILL)
    site.worker.wait(10)
    slurm.run("scancel", "--signal=KILL", "--full", job_id)
    wait_until(lambda: slurm.job(job_id) is None, "the end of the job", 60)
    site.start_worker()
    run = site.await_state(run_id, "Crashed")
    assert f"Job {job_id}" in run.state.message
    assert "the batch system says" in run.state.message


@pytest.mark.long
def test_a_run_that_reaches_its_walltime_says_so(site, steps, tmp_path):
    """A job reaches its walltime: the run is Crashed, and the reason is the walltime."""
    wanted = {"memory": "500MB", "walltime": "1m"}
    run_id = site.trigger(steps, wanted, place=str(tmp_path), until="never")
    job_id = await_job(tmp_path)

    def told() -> bool:
        return "walltime of 1 min was over" in (site.read(run_id).state.message or "")

    wait_until(told, f"word of the walltime of job {job_id}", 180)
    assert site.read(run_id).state.name == "Crashed"
