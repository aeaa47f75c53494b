"""Prefect: what a task costs under our task runner, beside prefect-dask's on the same pilots.

    python bench/prefect.py [--quick]

Prints one JSON line per figure; what they mean is told in README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import pickle
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figure, compare, paired, say, show

TABLE = bytes(range(256)) * 8000
"""Two megabytes that the module of the flow holds, and one of its tasks uses."""

START_S = 120.0
SETTLE_S = 300.0

SERVER = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_LOGGING_LEVEL": "ERROR",
}
"""Task runs are written in batches: with Prefect's defaults the API is a minute behind."""


@dataclass
class Bench:
    """What all figures need: a server, and pilots that are warm."""

    cluster: Any
    tasks: int
    many: int
    runs: int

    def ours(self) -> Any:
        """Our runner on these pilots."""
        from prefect_hpcburst import BurstTaskRunner

        return BurstTaskRunner(cluster=self.cluster)

    def dasks(self) -> Any:
        """Prefect's runner for Dask, on the same."""
        from prefect_dask import DaskTaskRunner

        # Not `cluster=`: each flow run gets a copy of the runner, and the copy forgets the cluster.
        return DaskTaskRunner(
            address=self.cluster.scheduler_address,
            client_kwargs={"security": self.cluster.security},
        )

    @staticmethod
    def threads() -> Any:
        """Prefect's own runner, in this process."""
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner()


def rate(runner: Any, count: int) -> float:
    """Tasks a second of a flow that maps a trivial task, when its pilots and envs are warm."""
    made = mapping_flow(runner)
    took_s, _ = made(count)
    return count / took_s


def mapping_flow(runner: Any) -> Callable[[int], tuple[float, Any]]:
    """A flow of trivial tasks, beside one that uses the table; gives seconds and its run's id."""
    from prefect import flow, task
    from prefect.context import FlowRunContext

    @task
    def raised(number: int) -> int:
        return number + 1

    @task
    def at(index: int) -> int:
        return TABLE[index]

    @flow(task_runner=runner)
    def pipeline(count: int) -> tuple[float, Any]:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        assert at.submit(1).result() == 1
        begun = time.perf_counter()
        assert raised.map(range(count)).result() == list(range(1, count + 1))
        return time.perf_counter() - begun, context.flow_run.id

    return pipeline


def rates(bench: Bench) -> Iterator[Figure]:
    """Trivial tasks by `map`, against both peers."""
    for name, peer, least in (
        ("prefect-dask's DaskTaskRunner", bench.dasks, 5.0),
        ("ThreadPoolTaskRunner", bench.threads, 0.5),
    ):
        runs = paired(
            lambda: rate(bench.ours(), bench.tasks),
            lambda peer=peer: rate(peer(), bench.tasks),
            bench.runs,
        )
        yield compare(
            f"{bench.tasks} trivial tasks by map",
            runs,
            peer_name=name,
            unit="tasks/s",
            more_is_better=True,
            ratio=least,
        )


def shipped(bench: Bench) -> Iterator[Figure]:
    """Bytes that leave the flow's process for one trivial task."""
    with counted_bursts(bench.cluster) as ours:
        rate(bench.ours(), 10)
    with counted_submits() as peers:
        rate(bench.dasks(), 10)
    runs = ([statistics.median(ours) / 1000], [statistics.median(peers) / 1000])
    yield compare(
        "shipped for each task, with 2 MB beside it in the flow's module",
        runs,
        peer_name="prefect-dask's DaskTaskRunner",
        unit="kB",
        most=2.0,
    )


@contextmanager
def counted_bursts(cluster: Any) -> Iterator[list[int]]:
    """Sizes of the tasks that a cluster of ours is given."""
    sizes: list[int] = []
    launch = cluster.launch

    def counted(burst: Any, *rest: Any) -> Any:
        sizes.append(len(pickle.dumps(burst, 5)))
        return launch(burst, *rest)

    cluster.launch = counted
    try:
        yield sizes
    finally:
        del cluster.launch


@contextmanager
def counted_submits() -> Iterator[list[int]]:
    """Sizes of what a Dask client is given to submit."""
    from distributed import Client
    from distributed.protocol.pickle import dumps

    sizes: list[int] = []
    submit = Client.submit

    def counted(client: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(dumps((function, args, kwargs))))
        return submit(client, function, *args, **kwargs)

    Client.submit = counted
    try:
        yield sizes
    finally:
        Client.submit = submit


def settled(bench: Bench) -> Iterator[Figure]:
    """How long after its end the API knows of every task of a flow."""
    runs = paired(
        lambda: lag_s(bench.ours(), bench.many), lambda: lag_s(bench.threads(), bench.many), 1
    )
    yield compare(
        f"from the end of {bench.many} tasks to all Completed in the API",
        runs,
        peer_name="ThreadPoolTaskRunner",
        unit="s",
        most=5.0,
    )


def lag_s(runner: Any, count: int) -> float:
    """Seconds from the end of a flow until the API shows all its task runs as completed."""
    from prefect.client.orchestration import get_client

    _, flow_run_id = mapping_flow(runner)(count)
    ended = time.perf_counter()
    wanted = {
        "flow_runs": {"id": {"any_": [str(flow_run_id)]}},
        "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    with get_client(sync_client=True) as client:
        while client._client.post("/task_runs/count", json=wanted).json() < count + 1:  # noqa: SLF001 - no verb of the client's counts
            if time.perf_counter() - ended > SETTLE_S:
                raise TimeoutError("the API never showed all task runs")
            time.sleep(0.1)
    return time.perf_counter() - ended


# --- the stage -----------------------------------------------------------------------------------


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """A Prefect server of our own on SQLite; its address is in the environment from now on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    os.environ.update(SERVER, PREFECT_HOME=str(folder / "prefect"), PREFECT_API_URL=address)
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, "--port", str(port)], cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + START_S
        while not answers(f"{address}/health"):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether somebody answers there."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - ours
        return bool(reply.status == 200)
    return False


@contextmanager
def stage(*, quick: bool) -> Iterator[Bench]:
    """A server and two pilots."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcburst-bench-")))
        say("Starting a Prefect server and two pilots")
        from distributed import Client

        Client.dashboard_link = ""  # prefect-dask asks for it, and our scheduler has none
        stack.enter_context(server(folder))
        from hpcburst import BurstCluster

        site = {"shared-root": str(folder / "shared"), "idle-timeout": "10m"}
        cluster = stack.enter_context(BurstCluster(max_jobs=2, site=site))
        cluster.scale(2)
        cluster.wait_for_workers(2, timeout=60)
        yield Bench(
            cluster, tasks=50 if quick else 200, many=100 if quick else 1000, runs=1 if quick else 3
        )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer tasks, fewer runs")
    args = parser.parse_args()
    with stage(quick=args.quick) as bench:
        for figures in (rates, shipped, settled):
            say(f"Measuring: {(figures.__doc__ or '').splitlines()[0]}")
            for figure in figures(bench):
                show(figure)
    return 0


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # this file has the name of what it measures
    sys.exit(main())
