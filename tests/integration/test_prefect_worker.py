"""The worker type `hpcburst`: a server with a password, workers that die, flows that are jobs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.fakescheduler import FakeScheduler
from support.prefect_site import SECRET, PrefectSite
from support.processes import wait_until

BURST = """
from prefect import flow, task
from hpcburst import needs
from prefect_hpcburst import BurstTaskRunner

@task
@needs(cores=1)
def where(i):
    import os
    return os.getpid()

@flow(task_runner=BurstTaskRunner(max_jobs=2))
def pipeline(count: int = 1, name: str = "nobody"):
    import os
    pids = where.map(range(count)).result()
    assert os.getpid() not in pids
    print(f"{name} saw {len(pids)} tasks elsewhere")
    print("a secret:", os.environ.get("TOKEN"))
"""

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

@flow(log_prints=True)
def steps(place: str, until: str = ""):
    total = [step(i, place) for i in range(3)]
    Path(place, "pid").write_text(str(os.getppid()))
    while until and not Path(place, until).exists():
        time.sleep(0.1)
    return sum(total)
"""


pytestmark = pytest.mark.timeout(600)  # three Pythons with Prefect start for each flow run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[PrefectSite]:
    """A server, and one worker whose jobs are processes of this machine."""
    made = PrefectSite(tmp_path_factory.mktemp("site"))
    try:
        made.start_server()
        yield made
    finally:
        made.close()
        end_jobs(made)


@pytest.fixture(scope="module")
def worker(site: PrefectSite):
    """The worker that most tests use."""
    return site.start_worker("--name", "first")


@pytest.fixture(scope="module")
def steps(site: PrefectSite, worker):
    """A deployment whose runs go on from what an earlier job has done."""
    variables = {"on_early_end": "reschedule"}
    return site.deploy(STEPS, "steps", name="steps", job_variables=variables)


def end_jobs(site: PrefectSite) -> None:
    """Whatever a failed test left running."""
    for record in site.shared_root.glob("flow-runs/queue/*.job"):
        if json.loads(record.read_text())["ended"] is None:
            with suppress(ProcessLookupError):
                os.kill(int(record.stem), signal.SIGTERM)


def job_of(site: PrefectSite, run_id) -> int:
    """Process of the local job of a flow run."""
    return int(site.read(run_id).infrastructure_pid.split(":")[-1])


def await_pid(place: Path) -> int:
    wait_until((place / "pid").exists, "the last step of the flow", 90)
    return int((place / "pid").read_text())


def test_a_scheduled_flow_runs_as_a_job_with_its_tasks_on_pilots(site, worker):
    """A deployment with a schedule and parameters runs as a job; its tasks run in jobs of their
    own; nobody finds a secret in what the batch system was given."""
    from prefect.schedules import Cron

    deployment = site.deploy(
        BURST,
        name="nightly",
        schedule=Cron("0 3 * * *", timezone="UTC"),
        parameters={"count": 3, "name": "night"},
        job_variables={"env": {"TOKEN": "no job script may hold this"}, "walltime": "20m"},
    )
    with site.api() as client:
        assert client.read_deployment(deployment).schedules[0].schedule.cron == "0 3 * * *"
    run = site.await_state(site.trigger(deployment, name="day"), "Completed", within_s=120)
    assert run.infrastructure_pid.startswith("local:")
    log = site.folder_of(run.id) / "logs" / f"{job_of(site, run.id)}.log"
    # The run is told to be over before its process has ended and written all.
    wait_until(lambda: "day saw 3 tasks elsewhere" in log.read_text(), "the flow's last line")
    assert "a secret: no job script may hold this" in log.read_text()
    kept = [p for p in site.folder_of(run.id).rglob("*") if p.is_file() and p.suffix != ".log"]
    texts = "".join(path.read_text() for path in kept)
    assert "flow-run execute" in texts
    assert SECRET not in texts
    assert "no job script may hold this" not in texts


def test_a_killed_job_is_followed_by_another_that_goes_on(site, steps, tmp_path):
    """A job dies without a word: the run goes on in a second job, steps that were done are not
    done again."""
    run_id = site.trigger(steps, place=str(tmp_path), until="second")
    await_pid(tmp_path)
    (tmp_path / "pid").unlink()
    kill_all(job_of(site, run_id))
    await_pid(tmp_path)
    (tmp_path / "second").touch()
    run = site.await_state(run_id, "Completed", within_s=120)
    assert run.run_count == 2
    assert (tmp_path / "executed").read_text().split() == ["0", "1", "2"]


@pytest.mark.long
def test_a_job_that_dies_while_no_worker_watches_is_told(site, steps, tmp_path):
    """A worker is killed, then its job: the next worker adopts the job and reports the run as
    Crashed, with the job's number and log."""
    with site.api() as client:
        client.update_deployment(
            steps, deployment=deployment_update(job_variables={"on_early_end": "crash"})
        )
    run_id = site.trigger(steps, place=str(tmp_path), until="never")
    await_pid(tmp_path)
    worker = site.worker
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    job = job_of(site, run_id)
    kill_all(job)
    site.start_worker("--name", "second")
    run = site.await_state(run_id, "Crashed")
    assert f"Job {job} ended before its flow run did" in run.state.message
    assert f"{job}.log" in run.state.message


def deployment_update(**fields):
    from prefect.client.schemas.actions import DeploymentUpdate

    return DeploymentUpdate(**fields)


def kill_all(job: int) -> None:
    """What a node that dies does to a job: nothing of it is left, and nobody was told."""
    from hpcburst.jobs.localqueue import descendants

    for pid in (job, *descendants(job)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def busy(site: PrefectSite, tmp_path_factory: pytest.TempPathFactory):
    """A second pool, on a batch system (Slurm's commands) in which nothing starts."""
    with FakeScheduler("slurm", tmp_path_factory.mktemp("batch") / "slurm") as batch:
        batch.hold()
        queues = {"batch": {"cores": 4, "memory": "8GB", "walltime": "1h"}}
        pool = site.another_pool(
            "busy",
            {
                "PATH": batch.path,
                "DASK_HPCBURST__SCHEDULER": "slurm",
                "DASK_HPCBURST__STATUS_INTERVAL": "1s",
                "DASK_HPCBURST__HOST": "127.0.0.1",
                "DASK_HPCBURST__QUEUES": json.dumps(queues),
            },
        )
        pool.start_worker("--name", "busy")
        yield pool, batch


@pytest.fixture(scope="module")
def waiting(busy):
    """A deployment in it."""
    pool, _ = busy
    return pool.deploy(STEPS, "steps", name="waiting", job_variables={"queue": "batch"})


def test_a_run_whose_job_waits_is_cancelled_in_seconds(busy, waiting, tmp_path):
    """Cancelling a run whose job waits in the queue ends job and run within seconds."""
    pool, batch = busy
    run_id = pool.trigger(waiting, place=str(tmp_path))
    wait_until(lambda: pool.read(run_id).infrastructure_pid, "a job in the queue", 60)
    pool.cancel(run_id)
    run = pool.await_state(run_id, "Cancelled", within_s=15)
    assert "before the flow run began" in run.state.message
    wait_until(lambda: not batch.alive, "the end of the job", 15)


@pytest.mark.long
def test_a_batch_system_that_is_down_crashes_no_run(busy, waiting, tmp_path):
    """While the batch system does not answer, runs wait, those in the queue and new ones; when it
    is back they go on. Many jobs are asked after by one command."""
    pool, batch = busy
    before = [pool.trigger(waiting, place=str(tmp_path)) for _ in range(3)]
    wait_until(lambda: len(batch.alive) == 3, "three jobs in the queue", 60)
    batch.be_down()
    after = pool.trigger(waiting, place=str(tmp_path))
    wait_until(lambda: "does not answer" in pool.log_of(after), "a word of it in the run's log", 30)
    assert {pool.read(run_id).state.type.value for run_id in (*before, after)} == {"PENDING"}
    batch.be_down(False)
    wait_until(lambda: len(batch.alive) == 4, "the fourth job in the queue", 60)
    looks = [argv for argv in batch.calls if argv[0] == "squeue"]
    assert all(argv[1:] == looks[0][1:] for argv in looks), "one question for all jobs"
    for run_id in (*before, after):
        pool.cancel(run_id)
    for run_id in (*before, after):
        pool.await_state(run_id, "Cancelled", within_s=15)


def test_a_job_that_the_site_has_no_room_for_is_an_answer(busy, waiting, tmp_path):
    """Asking for more than the queue gives is told at once, in the run's state."""
    pool, _ = busy
    run_id = pool.trigger(waiting, job_variables={"cores": 99}, place=str(tmp_path))
    run = pool.await_state(run_id, "Crashed", within_s=30)
    assert "at most 4 cores" in run.state.message
