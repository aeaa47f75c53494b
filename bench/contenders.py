"""Who is measured on the private Slurm: bursts of ours, and clusters of plain dask-jobqueue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from support.clusters.cluster import Size  # noqa: E402 - it is beside us, not on the path
from support.clusters.held import held  # noqa: E402
from support.clusters.slurm import Slurm  # noqa: E402

NODES = 8
PILOTS = 8
MEMORY = "500MB"
QUEUE = {"batch": {"cores": 4, "memory": "7GB", "walltime": "4h"}}
HOST = "127.0.0.1"

OURS, ADAPT, FIXED = "hpcburst", "adapt", "fixed"
"""Names of the jobs of each, by which Slurm's accounts tell them apart."""


def nap(seconds: float) -> float:
    """The body of a task: it needs a place, and no processor."""
    import time as clock

    clock.sleep(seconds)
    return seconds


class Contender(Protocol):
    """A cluster that runs tasks."""

    name: str

    def naps(self, lengths_s: Sequence[float]) -> list[Any]:
        """Submit a nap of each length; their futures."""


class Ours:
    """A BurstCluster."""

    name = OURS

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster

    def naps(self, lengths_s: Sequence[float]) -> list[Future[Any]]:
        """Each is a task with a name and resources, as a front end queues it."""
        return self.calls(nap, [(length_s,) for length_s in lengths_s])

    def calls(self, body: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Queue a call of the body for each of the arguments."""
        from hpcburst.bodies import body_of, call_of
        from hpcburst.tasks import Burst, Needs

        packed = body_of(body)
        return [
            self.cluster.launch(Burst(body.__name__, call_of(packed, each), Needs()))
            for each in arguments
        ]


class Peer:
    """A cluster of plain dask-jobqueue with a client."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self.client = client

    def naps(self, lengths_s: Sequence[float]) -> list[Any]:
        """As a user of Dask writes it."""
        return list(self.client.map(time.sleep, lengths_s, pure=False))


def settings(shared: Path, pilots: int = PILOTS) -> dict[str, Any]:
    """Arguments of a BurstCluster on the private Slurm."""
    site = {
        "scheduler": "slurm",
        "host": HOST,
        "shared-root": str(shared),
        "node-root": "/tmp",  # noqa: S108 - the pilots' own folders below it are private
        "queues": QUEUE,
        "max-cores": pilots,  # as many as the peers: theirs have one each
        "pilot": {"cores": 1, "memory": MEMORY, "walltime": "30m"},
    }
    return {"max_jobs": pilots, "site": site}


@contextmanager
def ours(folder: Path, pilots: int = PILOTS) -> Iterator[Ours]:
    """A BurstCluster of at most so many jobs that has learned nothing yet."""
    from hpcburst import BurstCluster

    folder.mkdir(mode=0o700)
    with BurstCluster(**settings(folder, pilots)) as cluster:
        yield Ours(cluster)


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Peer]:
    """A SLURMCluster as its documentation has it: `adapt(0, 8)`, or of a fixed size."""
    import dask.config
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    folder.mkdir(mode=0o700)
    # `adapt` ends workers under their tasks, and Dask's default gives up on a task after the third.
    patience = dask.config.set({"distributed.scheduler.allowed-failures": 50})
    with (
        patience,
        SLURMCluster(
            queue="batch",
            cores=1,
            memory=MEMORY,
            processes=1,
            job_name=name,
            local_directory=str(folder),
            log_directory=str(folder),
            scheduler_options={"host": HOST, "dashboard_address": ":0"},
        ) as cluster,
    ):
        if name == ADAPT:
            cluster.adapt(minimum=0, maximum=PILOTS)
        else:
            cluster.scale(PILOTS)
        with Client(cluster) as client:
            if name == FIXED:
                client.wait_for_workers(PILOTS, timeout=120)
            yield Peer(name, client)


class Driver:
    """A driver of ours in a process of its own, which may be killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        words = json.dumps(settings(folder))
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "schedulers" / "driver.py"), words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def launch(self, count: int, seconds: float) -> None:
        """Queue so many naps."""
        self._ask({"launch": count, "seconds": seconds})

    def kill(self) -> None:
        """As `kill -9` does it: nothing of the driver's own runs any more."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, words: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), "the driver ended"


class Centre:
    """The private Slurm: who has jobs on it, and what they held."""

    def __init__(self, slurm: Slurm) -> None:
        self.slurm = slurm

    def jobs(self, name: str, *states: str) -> int:
        """How many jobs of that name there are, in any of these states or in whichever."""
        found = [job for job in self.slurm.jobs() if job.name == name]
        return sum(not states or job.state in states for job in found)

    def wait_for(self, condition: Callable[[], object], patience_s: float) -> float:
        """Seconds until something is true, or all of the patience."""
        begun = time.monotonic()
        while not condition() and time.monotonic() - begun < patience_s:
            time.sleep(0.2)
        return time.monotonic() - begun

    def held_core_s(self, name: str) -> tuple[float, int]:
        """Core-seconds and number of the ended jobs of that name, by Slurm's own accounts."""
        self.wait_for(lambda: not self.jobs(name), 60.0)
        lines = (self.slurm.folder / "log" / "jobcomp.txt").read_text().splitlines()
        spans = [_span_s(line) for line in lines if f" Name={name} " in line]
        return float(sum(spans)), len(spans)


@contextmanager
def centre(folder: Path) -> Iterator[Centre]:
    """A private Slurm of eight nodes, where this process's commands find it.

    Raises:
        ClusterError: It cannot be had on this machine; says what is missing.
    """
    with held(Slurm, folder, Size(nodes=NODES)) as slurm:
        os.environ["SLURM_CONF"] = str(slurm.conf)
        yield Centre(slurm)


def _span_s(line: str) -> float:
    """From the start of a job's only process to its end; 0 for one that never started."""
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    try:
        begun, ended = (datetime.fromisoformat(fields[key]) for key in ("StartTime", "EndTime"))
    except ValueError:  # "Unknown"
        return 0.0
    return (ended - begun).total_seconds() * int(fields["ProcCnt"])
