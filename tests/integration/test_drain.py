"""Plain Dask on pilots that end: nothing is lost, nothing is computed twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from distributed import Client

from hpcburst import BurstCluster
from hpcburst.pools.pilots import DRAIN_S
from hpcburst.pools.situation import Phase
from support.processes import wait_until

WAIT_S = 90.0
"""For what takes two seconds on a quiet machine."""

TASKS = 24


def _work_in(folder):
    """Work that notes its pilot and its beginning, and leaves a result in the pilot's memory."""

    def work(number):  # defined in here, it travels by value: pilots cannot import the tests
        from distributed import get_worker

        with (Path(folder) / str(number)).open("a") as file:
            file.write(f"{get_worker().name} {time.time()}\n")
        time.sleep(0.25)
        return number, bytes(100_000)

    return work


@pytest.fixture
def cluster(tmp_path):
    """Two pilots of one core; there may be four."""
    roots = {"shared-root": str(tmp_path / "shared"), "node-root": str(tmp_path / "node")}
    queues = {"local": {"cores": 4, "memory": "8GB", "walltime": "1h", "total-cores": 4}}
    shape = {"cores": 1, "memory": "1GB", "walltime": "30m"}
    with BurstCluster(shapes=[shape], max_jobs=2, site={**roots, "queues": queues}) as cluster:
        yield cluster


def _up(cluster):
    return [pilot for pilot in list(cluster._keeper.pilots) if pilot.phase is Phase.UP]


@pytest.mark.parametrize("ending", [1, 2])
def test_pilots_near_their_end_lose_nothing_and_take_no_more(cluster, tmp_path, ending):
    """Whether one pilot nears its walltime or all do: each task runs once, each result is there."""
    ran = tmp_path / "ran"
    ran.mkdir()
    with Client(cluster) as client:
        futures = client.map(_work_in(str(ran)), range(TASKS), pure=False)
        wait_until(lambda: len(_up(cluster)) == 2, "two pilots", WAIT_S)
        wait_until(lambda: sum(f.done() for f in futures) >= TASKS // 4, "some results", WAIT_S)
        cluster.adapt(maximum=4)
        told = _up(cluster)[:ending]
        for pilot in told:
            # What a pilot says whose batch system told it when its job will be ended.
            cluster.loop.add_callback(cluster._keeper._ends, pilot, DRAIN_S - 1)
        began_to_drain = time.time()
        assert [number for number, _ in client.gather(futures)] == list(range(TASKS))
    rows = [file.read_text().splitlines() for file in ran.iterdir()]
    assert [len(lines) for lines in rows] == [1] * TASKS
    names = {pilot.name for pilot in told}
    begun = [float(at) for (line,) in rows for name, at in [line.split()] if name in names]
    assert max(begun) < began_to_drain + 1.0  # what it had been handed, no more
    assert {cluster.record.pilots[name].end for name in names} <= {
        "its walltime is nearly over",
        "the run ended",
    }
