"""What a task needs, said in three places, and retries that grow by the reason of the failure."""

from __future__ import annotations

import time

import pytest
from prefect import flow, task

from hpcburst import BurstCluster, needs
from prefect_hpcburst import BurstTaskRunner


@task
def of_others(x):
    return x


@flow
def runs(tasks):
    states = [a_task.submit(*args, return_state=True) for a_task, *args in tasks]
    return [(state.name, state.result(raise_on_failure=False)) for state in states]


def shape_of(cluster, name):
    """Shapes of the pilots that the tasks of a name ran on, in order."""
    record = cluster.record
    return [record.pilots[row.pilot].shape for row in record.tasks if row.name.startswith(name)]


@pytest.fixture
def run(prefect_api, cluster: BurstCluster):
    def run(*tasks, **settings):
        runner = BurstTaskRunner(cluster=cluster, **settings)
        return runs.with_options(task_runner=runner)(list(tasks))

    return run


def test_needs_by_name_and_by_call(run, cluster):
    """A task of others runs on a pilot as large as the runner says, or the call."""
    larger = of_others.with_needs(memory="5GB").with_options(name="called")
    told = run((of_others, 1), (larger, 2), needs={"of_others": {"memory": "3GB"}})
    assert told == [("Completed", 1), ("Completed", 2)]
    assert shape_of(cluster, "of_others")[0].memory_mb >= 3000
    assert shape_of(cluster, "called")[0].memory_mb >= 5000


def test_out_of_memory_asks_for_more(run, cluster, tmp_path):
    """A task that ran out of memory runs again with the next memory, and burns no retry."""
    tries = tmp_path / "tries"

    @task(task_run_name="hungry")
    @needs(memory=["500MB", "5GB", "7GB"])
    def hungry():
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) < 3:
            raise MemoryError("no room")
        return "done"

    assert run((hungry,)) == [("Completed", "done")]
    first, second, third = shape_of(cluster, "hungry")
    assert first.memory_mb < 5000 <= second.memory_mb < 7000 <= third.memory_mb


def test_over_walltime_asks_for_longer(run, tmp_path):
    """A task over its walltime gets the next one, and ends well if that is enough."""
    tries = tmp_path / "tries"

    @task
    @needs(walltime=["1s", "1m"])
    def slow():
        with tries.open("a") as file:
            file.write("x")
        time.sleep(2)
        return tries.read_text()

    assert run((slow,)) == [("Completed", "xx")]


def test_other_failures_take_no_step(run, cluster, tmp_path):
    """A bug is tried again as often as `retries` says, with what was asked at first."""
    tries = tmp_path / "tries"

    @task(retries=1, task_run_name="buggy")
    @needs(memory=["500MB", "5GB"])
    def buggy():
        with tries.open("a") as file:
            file.write("x")
        raise ValueError("a bug")

    ((name, error),) = run((buggy,))
    assert (name, str(error)) == ("Failed", "a bug")
    assert tries.read_text() == "xx"
    assert {shape.memory_mb < 5000 for shape in shape_of(cluster, "buggy")} == {True}


def test_steps_run_out(run, tmp_path):
    """After the last step the failure stands, and the user's own retries are kept to."""
    tries = tmp_path / "tries"

    @task(retries=1, retry_condition_fn=lambda *_: True)
    @needs(memory=["500MB", "1GB"])
    def insatiable():
        with tries.open("a") as file:
            file.write("x")
        raise MemoryError("never enough")

    ((name, error),) = run((insatiable,))
    assert (name, type(error)) == ("Failed", MemoryError)
    assert tries.read_text() == "xxx"  # the first try, the step, and the retry


def test_a_step_that_no_queue_has_is_refused_at_once(run):
    """The largest step is looked at before the first try: no night is lost on it."""

    @task
    @needs(memory=["500MB", "900TB"])
    def greedy():
        return 1

    ((name, error),) = run((greedy,))
    assert name == "Failed"
    assert "more than any queue has" in str(error)
