"""Bursts on real batch systems: up and down, through every mishap, with nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.clusters.cluster import PrivateCluster
from support.processes import wait_until

DRIVER = Path(__file__).with_name("driver.py")
WAIT_S = 120.0
HEAD = {"slurm": "127.0.0.1", "sge": "10.99.0.254"}
"""Where pilots find their driver."""

QUEUES = {
    "slurm": {
        "batch": {"cores": 4, "memory": "7GB", "walltime": "1h"},
        "short": {"cores": 4, "memory": "7GB", "walltime": "10m"},
        "scavenge": {"cores": 4, "memory": "7GB", "walltime": "1h"},
    },
    "sge": {
        "batch.q": {"cores": 4, "memory": "7GB", "walltime": "1h"},
        "short.q": {"cores": 4, "memory": "7GB", "walltime": "10m"},
    },
}


class Driver:
    """A driver process on a cluster's head."""

    def __init__(self, system: PrivateCluster, folder: Path, path: str, **settings) -> None:
        self.system = system
        command = [*system.enter, "env", f"PATH={path}", sys.executable, str(DRIVER)]
        self.errors = (folder / "driver.log").open("w+")
        self.process = subprocess.Popen(
            [*command, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.run = Path(self._answer()["run"])

    def ask(self, **words):
        """Have it do something; its answer."""
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def launch(self, count: int, seconds: float, **needs) -> None:
        self.ask(launch=count, seconds=seconds, needs=needs)

    def wait(self) -> list[dict]:
        """What became of all tasks launched so far."""
        return self.ask(wait=WAIT_S)

    def pilots_up(self) -> int:
        return self.ask(pilots=True)["up"]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(60)
        self.process.stdout.close()
        self.errors.close()

    def _answer(self):
        line = self.process.stdout.readline()
        self.errors.flush()
        assert line, f"the driver ended: {Path(self.errors.name).read_text()[-3000:]}"
        return json.loads(line)


@pytest.fixture(params=["slurm", "sge"])
def system(request) -> Iterator[PrivateCluster]:
    """Each batch system, empty before and after."""
    cluster = request.getfixturevalue(request.param)
    yield cluster
    cluster.reset()


@pytest.fixture
def driver(tmp_path):
    """Makes drivers whose shared root is the test's own."""

    @contextmanager
    def make(system, *, path=os.environ["PATH"], shapes=(), max_jobs=4, **site) -> Iterator[Driver]:
        stated = {
            "scheduler": system.kind,
            "host": HEAD[system.kind],
            "shared-root": str(tmp_path / "shared"),
            "node-root": "/tmp",
            "queues": QUEUES[system.kind],
            "idle-timeout": "3s",
            "pilot": {"cores": 1, "memory": "500MB", "walltime": "5m"},
        }
        settings = {"shapes": list(shapes), "max_jobs": max_jobs, "site": {**stated, **site}}
        made = Driver(system, tmp_path, path, **settings)
        try:
            yield made
        finally:
            made.end()

    return make


def jobs_of(system: PrivateCluster) -> list:
    return [job for job in system.jobs() if job.name == "hpcburst"]


def no_error(answers: list[dict]) -> None:
    assert [answer for answer in answers if "error" in answer] == []


def test_a_burst_comes_and_goes(system, driver):
    """Tasks run on several jobs at once, and when they are done the jobs end by themselves."""
    with driver(system) as burst:
        burst.launch(24, 0.3)
        answers = burst.wait()
        no_error(answers)
        assert len(answers) == 24
        assert len({answer["job"] for answer in answers}) > 1
        wait_until(lambda: not jobs_of(system), "the end of idle pilots' jobs", 15)


@pytest.mark.long
def test_jobs_carry_no_data_of_the_user(system, driver):
    """What every user of the machine can list names hpcburst and nothing else."""
    with driver(system) as burst:
        burst.launch(1, 2)
        wait_until(lambda: jobs_of(system), "a job", 20)
        assert {job.name for job in system.jobs()} == {"hpcburst"}
        no_error(burst.wait())


def test_two_shapes_at_once(system, driver):
    """Small and large tasks get pilots of different shapes, side by side."""
    with driver(system) as burst:
        burst.launch(4, 1)
        burst.launch(2, 1, cores=4, memory="2GB")
        answers = burst.wait()
        no_error(answers)
        small, large = answers[:4], answers[4:]
        assert {a["job"] for a in large}
        assert not {a["job"] for a in large} >= {a["job"] for a in small}


def test_a_cancelled_pilots_tasks_run_elsewhere(system, driver):
    """Somebody cancels a running job: its task is sent again, no retry of the user's is spent."""
    with driver(system, max_jobs=2) as burst:
        burst.launch(4, 3)
        wait_until(lambda: burst.pilots_up() == 2, "two pilots", 60)
        running = [job.id for job in jobs_of(system) if job.state == "running"]
        system.cancel(running[0])
        no_error(burst.wait())


def test_a_queue_that_is_not_there_is_an_answer(system, driver):
    """A wrong queue name ends the tasks with what the batch system said, and nothing hangs."""
    queues = {"nosuch": {"cores": 4, "memory": "7GB", "walltime": "1h"}}
    pilot = {"queue": "nosuch", "memory": "500MB", "walltime": "5m"}
    with driver(system, queues=queues, pilot=pilot) as burst:
        burst.launch(2, 0.1)
        answers = burst.wait()
        assert [answer.get("error") for answer in answers] == ["SubmitError"] * 2
        assert "nosuch" in answers[0]["text"] or "partition" in answers[0]["text"]


SUBMIT = {"slurm": "sbatch", "sge": "qsub"}
REFUSES = """#!/bin/sh
count=$(cat {count} 2>/dev/null || echo 0)
echo $((count + 1)) > {count}
if [ "$count" -lt 3 ]; then echo "Socket timed out on send/recv operation" >&2; exit 1; fi
PATH={path} exec {name} "$@"
"""


@pytest.mark.long
def test_a_submit_command_that_fails_three_times_does_no_harm(system, driver, tmp_path):
    """Refused submissions are tried again, later each time; the tasks just wait."""
    name, folder = SUBMIT[system.kind], tmp_path / "bin"
    folder.mkdir()
    path = os.environ["PATH"]
    text = REFUSES.format(count=tmp_path / "count", name=name, path=path)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    with driver(system, path=f"{folder}:{path}", max_jobs=1) as burst:
        burst.launch(2, 0.1)
        no_error(burst.wait())
    assert int((tmp_path / "count").read_text()) >= 4


NOTES = """#!/bin/sh
echo {name} >> {calls}
PATH={path} exec {name} "$@"
"""


@pytest.mark.long
def test_few_questions_are_asked(slurm, driver, tmp_path):
    """A burst, and a minute in a full queue: the calls that administrators are told of, no more."""
    folder, calls, path = tmp_path / "bin", tmp_path / "calls", os.environ["PATH"]
    folder.mkdir()
    for name in ("sbatch", "squeue", "sinfo", "scancel"):
        (folder / name).write_text(NOTES.format(name=name, calls=calls, path=path))
        (folder / name).chmod(0o755)

    def asked():
        counts = Counter(calls.read_text().split())
        calls.write_text("")
        return counts

    try:
        with driver(slurm, path=f"{folder}:{path}", **{"status-interval": "60s"}) as burst:
            burst.launch(40, 1)
            no_error(burst.wait())
            wait_until(lambda: not jobs_of(slurm), "the end of the jobs", 60)
            in_burst = asked()
            full = slurm.fill(*(f"n{number}" for number in range(1, 9)))
            burst.launch(4, 1)
            time.sleep(60)
            in_queue = asked()
            slurm.cancel(*full)
            no_error(burst.wait())
    finally:
        slurm.reset()
    print(f"in a burst: {dict(in_burst)}; in a minute of waiting: {dict(in_queue)}")
    assert in_burst["squeue"] - in_burst["sbatch"] <= 8  # each job asks for its own limit once
    assert in_queue["squeue"] <= 6 + 3  # states every ten seconds at first; gaps twice a minute
    assert in_queue["sinfo"] <= 3


@pytest.mark.long
def test_a_scheduler_that_is_down_loses_and_doubles_nothing(system, driver):
    """The batch system does not answer for half a minute: tasks run on, and later ones wait."""
    with driver(system, max_jobs=2) as burst:
        burst.launch(4, 1)
        wait_until(lambda: burst.pilots_up() >= 1, "a pilot", 60)
        system.stop_controller()
        try:
            burst.launch(8, 1)
            time.sleep(30)
        finally:
            system.start_controller()
        answers = burst.wait()
        no_error(answers)
        assert len(answers) == 12
        wait_until(lambda: not jobs_of(system), "the end of the jobs", 60)


def test_nothing_is_left_of_a_killed_driver(system, driver):
    """After `kill -9` of the driver no job of its is there a minute later, running or waiting."""
    system.fill("n1")
    with driver(system, max_jobs=4) as burst:
        burst.launch(30, 5)
        wait_until(lambda: burst.pilots_up() >= 2, "two pilots", 60)
        os.kill(driver_pid(burst), signal.SIGKILL)
        burst.process.wait(20)
        wait_until(lambda: not jobs_of(system), "the end of the jobs of a dead driver", 60)


def driver_pid(burst: Driver) -> int:
    """`enter` replaces itself by the command, so its pid is the driver's."""
    return burst.process.pid


@pytest.mark.parametrize(
    "queue",
    ["scavenge", pytest.param("cancelme", marks=pytest.mark.long)],
    ids=["requeued", "cancelled"],
)
def test_a_preempted_pilots_tasks_go_on_later(slurm, driver, queue):
    """Jobs of others push the pilots out; their tasks wait until there is room again."""
    queues = {queue: QUEUES["slurm"]["scavenge"]}
    pilot = {"queue": queue, "memory": "500MB", "walltime": "5m"}
    try:
        with driver(slurm, max_jobs=2, queues=queues, pilot=pilot) as burst:
            burst.launch(4, 4)
            wait_until(lambda: burst.pilots_up() == 2, "two pilots", 60)
            others = slurm.fill(*(f"n{number}" for number in range(1, 9)))
            wait_until(lambda: burst.pilots_up() == 0, "the pilots' eviction", 30)
            slurm.cancel(*others)
            no_error(burst.wait())
    finally:
        slurm.reset()


@pytest.mark.long
def test_walltime_ends_pilots_and_loses_no_task(sge, driver):
    """Pilots of 40 s carry a burst of 90 s: they hand over before their end, and new ones come."""
    short = {"cores": 1, "memory": "500MB", "walltime": "40s"}
    try:
        with driver(sge, max_jobs=2, shapes=[short]) as burst:
            burst.launch(36, 4)
            answers = burst.wait()
            no_error(answers)
            assert len({answer["job"] for answer in answers}) >= 4
    finally:
        sge.reset()
