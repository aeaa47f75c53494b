"""What goes wrong with one task ends in one clear answer; the other tasks and the flow go on."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from contextlib import suppress

import pytest
from prefect import flow, task

from hpcburst import BurstCluster, needs
from hpcburst.errors import BodyDied, BodyError, RequestError, WalltimeReached
from prefect_hpcburst import BurstTaskRunner
from support.processes import wait_until


@task
def fine(x=1):
    return x


@flow
def state_of(a_task, *args):
    """One task that fails among others that do not."""
    others = fine.map([1, 2, 3])
    state = a_task.submit(*args, return_state=True)
    assert others.result() == [1, 2, 3]
    return [state.name, state.message, state.result(raise_on_failure=False)]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_timeout_stops_a_blocking_body(burst, tmp_path):
    """`timeout_seconds` stops a body that blocks in C, and the pilot takes other tasks."""
    begun = tmp_path / "pid"

    @task(timeout_seconds=0.5)
    def block():
        begun.write_text(str(os.getpid()))
        time.sleep(60)

    since = time.monotonic()
    name, message, error = burst(state_of, block)
    assert time.monotonic() - since < 20
    assert name == "TimedOut"
    assert isinstance(error, WalltimeReached)
    assert "longer than 0.5 s" in message


def test_timeout_kills_a_body_that_will_not_listen(burst, tmp_path):
    """A body that ignores the interrupt is killed with its process."""
    begun = tmp_path / "pid"

    @task(timeout_seconds=0.5)
    def stubborn():
        begun.write_text(str(os.getpid()))
        while True:
            with suppress(KeyboardInterrupt):
                time.sleep(60)

    name, _, _ = burst(state_of, stubborn)
    assert name == "TimedOut"
    wait_until(lambda: gone(int(begun.read_text())), "the end of the stubborn process")


def test_waiting_in_the_queue_is_not_running(burst):
    """`timeout_seconds` counts what the body runs, not what it waits for a pilot."""

    @task(timeout_seconds=1.5)
    def nap(_):
        time.sleep(0.4)

    @flow
    def pipeline():
        return [future.state.name for future in waited(nap.map(range(12)))]

    def waited(futures):
        for future in futures:
            future.wait()
        return futures

    assert burst(pipeline) == ["Completed"] * 12


def test_the_walltime_a_task_needs_is_a_limit_too(burst):
    """A body that runs longer than its `walltime` is stopped, and told from other failures."""

    @task
    @needs(walltime="1s")
    def long():
        time.sleep(60)

    name, message, _ = burst(state_of, long)
    assert (name, "longer than 1 s" in message) == ("TimedOut", True)


def test_a_segfault_fails_its_task_alone(burst, module_cluster, tmp_path, state_names):
    """A body that segfaults fails with signal, job, host and log; retries count it."""
    tries = tmp_path / "tries"

    @task(retries=1)
    def crash():
        with tries.open("a") as file:
            file.write("x")
        ctypes.string_at(0)

    name, message, error = burst(state_of, crash)
    assert name == "Failed"
    assert isinstance(error, BodyDied)
    assert "SIGSEGV" in message
    assert error.job_id in message
    assert error.host
    assert error.log.startswith(str(module_cluster.run_folder))
    assert tries.read_text() == "xx"


def test_sys_exit_in_a_body(burst):
    """A body that exits has failed; the flow has not exited."""

    @task
    def leave():
        sys.exit("no licence")

    name, message, error = burst(state_of, leave)
    assert name == "Failed"
    assert isinstance(error, BodyError)
    assert "SystemExit: no licence" in message


def test_hard_exit_in_a_body(burst):
    """A body whose process exits at once has failed with the status in words."""

    @task
    def leave():
        os._exit(7)

    name, message, _ = burst(state_of, leave)
    assert (name, "exited with status 7" in message) == ("Failed", True)


def test_a_result_that_cannot_be_pickled(burst):
    """A result that cannot travel is named by its type, with what to return instead."""

    @task
    def lock():
        return threading.Lock()

    name, message, error = burst(state_of, lock)
    assert name == "Failed"
    assert isinstance(error, RequestError)
    assert "type lock" in message
    assert "return plain data" in message


def test_an_argument_that_cannot_be_pickled(burst):
    """An argument that cannot travel is named by its place and type; no pilot saw it."""
    name, message, error = burst(state_of, fine, threading.Lock())
    assert name == "Failed"
    assert isinstance(error, RequestError)
    assert "of type lock" in message


def test_a_body_without_source(burst):
    """A body made by exec has no text; in a Python like the driver's own it runs all the same."""
    space = {"__name__": __name__}
    exec("def made():\n    return 1", space)  # noqa: S102 - what a user might do
    name, message, value = burst(state_of, task(retries=3)(space["made"]))
    assert (name, value) == ("Completed", 1), message


def test_generators_are_refused(burst):
    """A generator task fails with the reason and what to write instead."""

    @task
    def numbers():
        yield 1

    name, message, error = burst(state_of, numbers)
    assert name == "Failed"
    assert isinstance(error, RequestError)
    assert "generator" in message
    assert "Return a list" in message


def test_more_than_any_queue_has(burst):
    """A task that asks for more than any queue has fails at once, with the limit."""

    @task(retries=3, retry_delay_seconds=60)
    @needs(memory="900TB")
    def greedy():
        return 1

    name, message, _ = burst(state_of, greedy)
    assert name == "Failed"
    assert "more than any queue has" in message


def test_an_unknown_env(burst):
    """A task whose env file is not there fails with its name; nothing is tried twice."""

    @task(retries=2, retry_delay_seconds=60)
    @needs(env="no-such-env.yaml")
    def lost():
        return 1

    name, message, _ = burst(state_of, lost)
    assert name == "Failed"
    assert "no-such-env.yaml" in message


def test_a_mapped_refusal(burst):
    """`map` of a task that cannot travel gives failed runs, one for each item."""

    @task
    @needs(memory="900TB")
    def greedy(x):
        return x

    @flow
    def pipeline():
        futures = greedy.map([1, 2])
        for future in futures:
            future.wait()
        return [future.state.name for future in futures]

    assert burst(pipeline) == ["Failed", "Failed"]


def test_a_value_that_cannot_be_read_here(burst):
    """A value of a class that only the env can see is told as such."""

    @task
    def inner():
        class Local:
            pass

        return Local()

    name, message, error = burst(state_of, inner)
    assert name == "Failed"
    assert isinstance(error, RequestError)
    assert "Local" in message


def test_a_flow_that_raises_ends_at_once(prefect_api, tmp_path, shared_root):
    """A flow that raises does not wait for the bodies that run: they are stopped, pilots leave."""
    begun = tmp_path / "pid"

    @task(retries=3, retry_delay_seconds=60)
    def block():
        begun.write_text(str(os.getpid()))
        time.sleep(300)

    @flow(task_runner=BurstTaskRunner(max_jobs=1, site={"shared-root": str(shared_root)}))
    def pipeline():
        block.submit()
        wait_until(begun.exists, "the start of the body")
        raise ValueError("something else went wrong")

    since = time.monotonic()
    with pytest.raises(ValueError, match="something else"):
        pipeline()
    assert time.monotonic() - since < 15
    wait_until(lambda: gone(int(begun.read_text())), "the end of the body's process")


def test_a_flow_that_raises_leaves_a_given_cluster(burst, module_cluster: BurstCluster, tmp_path):
    """A cluster that was given stays open and usable after a flow that raised; its bodies end."""
    begun = tmp_path / "begun"

    @task
    def block():
        begun.write_text("")
        try:
            time.sleep(300)
        finally:
            begun.unlink()

    @flow
    def failing():
        block.submit()
        wait_until(begun.exists, "the start of the body")
        raise ValueError("no")

    @flow
    def next_one():
        return fine.map([1, 2, 3]).result()

    with pytest.raises(ValueError, match="no"):
        burst(failing)
    wait_until(lambda: not begun.exists(), "the end of the body")
    assert burst(next_one) == [1, 2, 3]


def test_an_async_flow_that_raises_ends_at_once(burst, tmp_path):
    """What holds for flows holds for async flows and async tasks."""
    begun = tmp_path / "begun"

    @task
    async def block():
        begun.write_text("")
        try:
            await asyncio.sleep(300)
        finally:
            begun.unlink()

    @flow
    async def failing():
        block.submit()
        wait_until(begun.exists, "the start of the body")
        raise ValueError("no")

    since = time.monotonic()
    with pytest.raises(ValueError, match="no"):
        asyncio.run(burst(failing))
    assert time.monotonic() - since < 15
    wait_until(lambda: not begun.exists(), "the end of the body")


def test_a_flow_that_returns_lets_its_bodies_end(burst, tmp_path):
    """A flow that returns while bodies run ends when they have ended: no work is cut off."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"

    @task
    def work():
        begun.write_text("")
        time.sleep(0.5)
        ended.write_text("")

    @flow
    def hasty():
        work.submit()
        wait_until(begun.exists, "the start of the body")
        return "done"

    assert burst(hasty) == "done"
    assert ended.exists()


def test_a_retry_that_is_due_later_does_not_hold_a_failed_flow(burst, tmp_path):
    """A flow that raises does not wait for a task that sleeps until its next retry."""
    tried = tmp_path / "tried"

    @task(retries=1, retry_delay_seconds=300)
    def flaky():
        tried.write_text("")
        raise OSError("not yet")

    @flow
    def failing():
        future = flaky.submit()
        wait_until(tried.exists, "the first try")
        wait_until(lambda: future.state.name == "AwaitingRetry", "the wait for the next try")
        raise ValueError("no")

    since = time.monotonic()
    with pytest.raises(ValueError, match="no"):
        burst(failing)
    assert time.monotonic() - since < 20
