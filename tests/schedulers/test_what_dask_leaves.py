"""What plain Dask and dask-jobqueue leave undone, on a real Slurm: each was seen to fail there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dask.config
import pytest
from distributed import Client

from hpcburst import BurstCluster
from hpcburst.answers import value_of
from hpcburst.bodies import call_of
from hpcburst.pools.planner import Phase
from hpcburst.pools.record import PilotRecord
from hpcburst.tasks import Burst, Needs
from support.clusters.slurm import SLEEP, Slurm
from support.processes import wait_until

WAIT_S = 120.0
ROW = {"cores": 4, "memory": "7GB", "walltime": "1h"}
NODES = [f"n{number}" for number in range(1, 9)]


def settings(folder: Path, *, max_jobs: int = 3, **site) -> dict:
    """Arguments of a BurstCluster on the private Slurm, which is looked at every second."""
    stated = {
        "scheduler": "slurm",
        "host": "127.0.0.1",
        "shared-root": str(folder / "shared"),
        "node-root": "/tmp",
        "queues": {"batch": ROW},
        "status-interval": "1s",
        "pilot": {"cores": 1, "memory": "500MB", "walltime": "5m"},
    }
    return {"max_jobs": max_jobs, "site": {**stated, **site}}


@pytest.fixture
def burst(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Makes clusters on an empty Slurm, in this process; Slurm is empty again afterwards."""
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))

    @contextmanager
    def make(*, shapes: Sequence = (), **changed) -> Iterator[BurstCluster]:
        with BurstCluster(shapes=shapes, **settings(tmp_path, **changed)) as cluster:
            yield cluster

    yield make
    slurm.reset()


@pytest.fixture
def runs(tmp_path: Path):
    """A body that takes its time and counts: its runs, and a look at how many there were."""
    path = tmp_path / "runs"

    def count() -> list[str]:
        return path.read_text().split() if path.exists() else []

    def body(word: int, seconds: float) -> int:
        with path.open("a") as file:
            file.write(f"{word}\n")
        time.sleep(seconds)
        return word

    body.count = count
    return body


def nap(seconds: float) -> str:
    """A body of ours: it says in which job it was."""
    import os
    import time

    time.sleep(seconds)
    return os.environ["SLURM_JOB_ID"]


def launched(cluster: BurstCluster, count: int, seconds: float, **needs) -> list:
    return [
        cluster.launch(Burst("nap", call_of(nap, (seconds,)), Needs(**needs))) for _ in range(count)
    ]


def values(futures: Sequence) -> list:
    return [value_of(future.result(WAIT_S), "nap") for future in futures]


def up(cluster: BurstCluster) -> list[PilotRecord]:
    return [pilot.record for pilot in cluster._keeper.pilots if pilot.phase is Phase.UP]


def jobs_of(slurm: Slurm, *states: str) -> list:
    jobs = [job for job in slurm.jobs() if job.name == "hpcburst"]
    return [job for job in jobs if not states or job.state in states]


# --- jobs that come to nothing -------------------------------------------------------------------


def test_a_job_that_dies_at_its_start_is_replaced(burst, tmp_path):
    """The first job ends before its pilot says hello: another one comes, and the task runs."""
    first = [f"if mkdir {tmp_path}/first 2>/dev/null; then exit 1; fi"]
    with (
        dask.config.set({"jobqueue.slurm.job-script-prologue": first}),
        burst(max_jobs=1) as cluster,
        Client(cluster) as client,
    ):
        assert client.submit(sum, [1, 2]).result(WAIT_S) == 3
        told = list(cluster.record.pilots.values())
        assert [bool(pilot.up_at) for pilot in told] == [False, True]


def test_a_job_that_is_cancelled_in_the_queue_is_replaced(slurm, burst):
    """Somebody cancels a waiting job: another one is asked for, and the task runs."""
    others = slurm.fill(*NODES)
    with burst(max_jobs=1) as cluster:
        futures = launched(cluster, 1, 0.1)
        wait_until(lambda: jobs_of(slurm, "pending"), "a waiting job", 30)
        lost = jobs_of(slurm, "pending")[0].id
        slurm.cancel(lost)
        wait_until(
            lambda: {job.id for job in jobs_of(slurm, "pending")} - {lost}, "another job", 60
        )
        slurm.cancel(*others)
        assert values(futures) != [lost]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_plain_dask_outlives_the_walltime(burst, runs):
    """Two chains of tasks on pilots of a minute: each outlasts them, and little is done twice."""
    minute = {"cores": 1, "memory": "500MB", "walltime": "1m"}
    with burst(max_jobs=6, shapes=[minute]) as cluster, Client(cluster) as client:
        ends = list(range(2))
        for _ in range(25):
            ends = [client.submit(runs, end, 4.0, pure=False) for end in ends]
        assert client.gather(ends) == [0, 1]
        assert len(cluster.record.pilots) > 2
    assert 50 <= len(runs.count()) <= 58


def test_refused_submissions_leave_no_ghosts(burst):
    """A queue that is not there: no pilot is counted that is none, and closing raises nothing."""
    pilot = {"queue": "nosuch", "memory": "500MB", "walltime": "5m"}
    with burst(queues={"nosuch": ROW}, pilot=pilot) as cluster, Client(cluster) as client:
        cluster.scale(2)
        future = client.submit(sum, [1, 2])
        wait_until(lambda: cluster.record.pilots, "a try", 30)
        wait_until(lambda: not cluster.plan, "the end of what was refused", 30)
        assert client.scheduler_info()["workers"] == {}
        assert any("nosuch" in words or "partition" in words for words in cluster.why())
        assert not future.done()


# --- scaling -------------------------------------------------------------------------------------


def test_names_are_never_used_again(burst):
    """Held, given up and held again at once: the new pilot is a new one, and it stays."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        burst(max_jobs=2) as cluster,
    ):
        cluster.scale(1)
        wait_until(lambda: up(cluster), "a pilot", 60)
        first = up(cluster)[0]
        cluster.scale(0)
        wait_until(lambda: first.gone_at, "its end", 30)
        cluster.scale(1)
        wait_until(lambda: up(cluster), "another pilot", 60)
        second = up(cluster)[0]
        assert (second.name, second.job_id) != (first.name, first.job_id)
        until = time.monotonic() + 3  # a timer of the first one would have run out by now
        while time.monotonic() < until:
            assert up(cluster) == [second]
            time.sleep(0.1)


def test_scaling_down_ends_no_task_under_way(burst, runs):
    """Two pilots, a long task on each, and one is enough from now on: each task runs once."""
    with burst(max_jobs=2) as cluster, Client(cluster) as client:
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        futures = client.map(runs, range(2), seconds=4.0, pure=False)
        wait_until(lambda: len(runs.count()) == 2, "both tasks", 30)
        cluster.scale(1)
        assert client.gather(futures) == [0, 1]
    assert sorted(runs.count()) == ["0", "1"]


def test_scaling_down_loses_no_result(burst, runs):
    """Results that pilots hold are handed on when these leave, the last one excepted: it stays."""
    with burst(max_jobs=2) as cluster, Client(cluster) as client:
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        futures = client.map(runs, range(8), seconds=0.2, pure=False)
        wait_until(lambda: all(future.done() for future in futures), "all results", 60)
        assert len({holder for who in client.who_has().values() for holder in who}) == 2
        cluster.scale_to_zero()
        wait_until(lambda: len(up(cluster)) == 1, "one pilot for the results", 60)
        assert client.gather(futures) == list(range(8))
        for future in futures:
            future.release()
        wait_until(lambda: not cluster.plan, "no pilot when nobody wants the results", 60)
    assert sorted(runs.count()) == [str(number) for number in range(8)]


def test_tasks_wait_with_the_driver_and_not_on_the_first_pilot(burst):
    """Tasks that came when one pilot was there are shared with those that come later."""
    with burst(max_jobs=4) as cluster:
        cluster.scale(1)
        wait_until(lambda: up(cluster), "a pilot", 60)
        jobs = values(launched(cluster, 16, 2.0, memory_mb=400))
        tasks = cluster.record.tasks
        assert len(set(jobs)) >= 3
        assert all(jobs.count(job) <= 10 for job in jobs)
        for pilot in cluster.record.pilots.values():
            mine = sorted(task.started_at for task in tasks if task.pilot == pilot.name)
            pairs = zip(mine, mine[pilot.shape.cores :], strict=False)
            assert all(later - earlier > 1.5 for earlier, later in pairs)


# --- the end of the driver -----------------------------------------------------------------------

DRIVER = Path(__file__).with_name("driver.py")


def test_jobs_that_wait_go_with_a_killed_driver(slurm, burst, tmp_path):
    """The cluster is full and stays so; after `kill -9` no job of ours waits a minute later."""
    slurm.fill(*NODES)
    with subprocess.Popen(
        [sys.executable, str(DRIVER), json.dumps(settings(tmp_path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:

        def told(**words) -> dict:
            driver.stdin.write(json.dumps(words) + "\n")
            driver.stdin.flush()
            return json.loads(driver.stdout.readline())

        assert driver.stdout.readline()
        told(launch=9, seconds=5)
        wait_until(lambda: told(pilots=True)["submitted"], "waiting jobs", 60)
        assert jobs_of(slurm, "pending")
        driver.kill()
    wait_until(lambda: not jobs_of(slurm), "the end of the jobs of a dead driver", 60)


# --- gaps ----------------------------------------------------------------------------------------


def test_a_hole_in_a_full_cluster_is_used(slurm, burst):
    """A large job waits for the whole cluster: pilots short enough start in front of it."""
    slurm.fill(*NODES[:-1], minutes=3)
    large = slurm.submit(
        SLEEP, "-J", "large", "-o", "/dev/null", "-p", "batch", "-t", "60", "-N", "8", "--exclusive"
    )
    wait_until(lambda: planned(slurm, large), "the plan for the large job", 30)
    half_hour = {"cores": 1, "memory": "500MB", "walltime": "30m"}
    with burst(max_jobs=4, pilot=half_hour) as cluster:
        jobs = values(launched(cluster, 8, 0.2))
        assert slurm.job(large).state == "pending"
        pilots = [pilot for pilot in cluster.record.pilots.values() if pilot.job_id in jobs]
        assert all(pilot.shape.walltime_s <= 180 for pilot in pilots)


def planned(slurm: Slurm, job_id: str) -> bool:
    """Whether the backfill scheduler has a start for it."""
    told = slurm.run("squeue", "-h", "--start", "-j", job_id, "-o", "%S").split()
    return bool(told) and told != ["N/A"]


# --- other front ends ----------------------------------------------------------------------------

FLOW = """
import sys, json
from prefect import flow, task
from prefect_dask import DaskTaskRunner

@task
def job(number):
    import os
    return number, os.environ["SLURM_JOB_ID"]

@flow(task_runner=DaskTaskRunner(
    cluster_class="hpcburst.BurstCluster", cluster_kwargs=json.loads(sys.argv[1])))
def spread():
    return [future.result() for future in job.map(range(4))]

if __name__ == "__main__":
    print("answer", json.dumps(spread()))
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_prefects_dask_runner_takes_a_burst_cluster(slurm, tmp_path):
    """`DaskTaskRunner(cluster_class="hpcburst.BurstCluster")` runs a flow's tasks on pilots."""
    pytest.importorskip("prefect_dask")
    (tmp_path / "flow.py").write_text(FLOW)
    pilot = {"cores": 1, "memory": "1GB", "walltime": "5m"}
    words = json.dumps(settings(tmp_path, max_jobs=2, pilot=pilot))
    try:
        done = subprocess.run(
            [sys.executable, str(tmp_path / "flow.py"), words],
            env={
                **slurm.environ,
                "PREFECT_HOME": str(tmp_path / "prefect"),
                "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            },
            capture_output=True,
            text=True,
            timeout=560,
            check=False,
        )
    finally:
        slurm.reset()
    answers = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    assert answers, done.stderr[-3000:]
    rows = json.loads(answers[0].removeprefix("answer "))
    assert [number for number, _ in rows] == [0, 1, 2, 3]
    assert all(job_id.isdigit() and job_id != os.environ.get("SLURM_JOB_ID") for _, job_id in rows)
