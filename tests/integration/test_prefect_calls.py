"""All the ways to call a task: under a BurstTaskRunner they mean what they mean in Prefect."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

import pytest
from prefect import flow, task, unmapped
from prefect.futures import as_completed
from prefect.states import State

from hpcburst import BurstCluster, needs
from prefect_hpcburst import BurstTaskRunner

FACTOR = 3


@dataclass
class Block:
    """Defined here, so that it must travel with the bodies that use it."""

    start: int
    stop: int


class NoFitError(Exception):
    """An exception whose arguments are not its message."""

    def __init__(self, block: Block, left: float) -> None:
        super().__init__(block, left)
        self.block, self.left = block, left


def scaled(x):
    return FACTOR * x


@task
@needs(cores=1)
def scale(x, plus=0):
    return scaled(x) + plus


@task
def where():
    return os.getpid()


@task
def sum_of(xs):
    return sum(xs)


@task
def span(block):
    return block.stop - block.start


@task
def make_block(start):
    return Block(start, start + 10)


def test_a_submitted_body_runs_elsewhere_with_its_helpers(burst):
    """A submitted body runs in another process, with the helpers and globals of its module."""

    @flow
    def pipeline():
        return scale.submit(2, plus=1).result(), where.submit().result()

    value, pid = burst(pipeline)
    assert value == 7
    assert pid != os.getpid()


def test_map_and_unmapped(burst):
    """`map` runs a task for each item, in order, with `unmapped` values for all."""

    @flow
    def pipeline():
        return scale.map(range(5), plus=unmapped(100)).result()

    assert burst(pipeline) == [100, 103, 106, 109, 112]


def test_futures_as_parameters(burst):
    """Futures may be arguments, alone or in lists and dicts; their values arrive."""

    @flow
    def pipeline():
        ones = scale.map([1, 2])
        return sum_of.submit([ones[0], ones[1], scale.submit(ones[0])]).result()

    assert burst(pipeline) == 3 + 6 + 9


def test_wait_for(burst, tmp_path):
    """A task with `wait_for` begins after the other has ended."""
    place = tmp_path / "written"

    @task
    def write():
        time.sleep(0.3)
        place.write_text("there")

    @task
    def read():
        return place.read_text()

    @flow
    def pipeline():
        return read.submit(wait_for=[write.submit()]).result()

    assert burst(pipeline) == "there"


def test_a_task_whose_upstream_failed_does_not_run(burst):
    """What depends on a failed task is not run, and says so by its state."""

    @task
    def fail():
        raise ValueError("no data")

    @flow
    def pipeline():
        return scale.submit(fail.submit(), return_state=True).name

    assert burst(pipeline) == "NotReady"


def test_return_state(burst):
    """`return_state=True` gives the final state, with the value in it."""

    @flow
    def pipeline():
        state = scale.submit(4, return_state=True)
        return isinstance(state, State), state.name, state.result()

    assert burst(pipeline) == (True, "Completed", 12)


def test_as_completed(burst):
    """`as_completed` gives each future once it is done."""

    @flow
    def pipeline():
        return sorted(future.result() for future in as_completed(list(scale.map([1, 2, 3]))))

    assert burst(pipeline) == [3, 6, 9]


def test_lambdas_closures_and_nested_functions(burst):
    """A lambda, a closure and a task made in the flow all travel with what they enclose."""
    offset = 7

    @flow
    def pipeline(n):
        @task
        def nested(x):
            return x + n

        by_lambda = task(lambda x: x * offset, name="by-lambda")
        return nested.submit(1).result(), by_lambda.submit(2).result()

    assert burst(pipeline, 40) == (41, 14)


def test_a_direct_call_runs_in_process(burst):
    """A task that is called, not submitted, runs in the flow's own process as in Prefect."""

    @flow
    def pipeline():
        return where()

    assert burst(pipeline) == os.getpid()


def test_with_options_keeps_the_needs(burst):
    """`with_options` changes the task for Prefect and keeps what it needs of the site."""
    greedy = task(needs(memory="900TB")(lambda: 1), name="greedy")

    @flow
    def pipeline():
        renamed = scale.with_options(name="other", task_run_name="run-{x}")
        refused = greedy.with_options(retries=1).submit(return_state=True)
        return renamed.submit(5).result(), refused.message

    value, message = burst(pipeline)
    assert value == 15
    assert "900000000 MB" in message


def test_classes_of_the_flow_file_travel(burst):
    """Instances of classes defined beside the flow may be arguments and results."""

    @flow
    def pipeline():
        block = make_block.submit(5)
        return block.result(), span.submit(block).result(), span.submit(Block(1, 4)).result()

    assert burst(pipeline) == (Block(5, 15), 10, 3)


def test_an_exception_of_the_flow_file_comes_home(burst):
    """An exception class defined beside the flow is raised as itself, with its own attributes."""

    @task
    def fit():
        raise NoFitError(Block(1, 2), 0.5)

    @flow
    def pipeline():
        with pytest.raises(NoFitError) as caught:
            fit.submit().result()
        return caught.value

    error = burst(pipeline)
    assert (error.block, error.left) == (Block(1, 2), 0.5)
    assert any("raise NoFitError" in note for note in error.__notes__)


def test_async_tasks_in_sync_and_async_flows(burst):
    """An `async def` task runs to its end in its own process, from either kind of flow."""

    @task
    async def slow_scale(x):
        await asyncio.sleep(0.01)
        return x * FACTOR, os.getpid()

    @flow
    def sync_pipeline():
        return slow_scale.submit(2).result()

    @flow
    async def async_pipeline():
        return slow_scale.submit(3).result(), scale.map([1, 2]).result()

    assert burst(sync_pipeline)[0] == 6
    (value, pid), mapped = asyncio.run(burst(async_pipeline))
    assert (value, mapped) == (9, [3, 6])
    assert pid != os.getpid()


def test_retries_are_counted(burst, tmp_path, state_names):
    """A body that raises is run again as often as `retries` says, and the delays are kept."""
    tries = tmp_path / "tries"

    @task(retries=2, retry_delay_seconds=[0, 0.4])
    def flaky():
        with tries.open("a") as file:
            file.write(f"{time.time()}\n")
        if len(tries.read_text().split()) < 3:
            raise OSError("not yet")
        return "done"

    @flow
    def pipeline():
        future = flaky.submit()
        return future.result(), future.task_run_id

    value, task_run_id = burst(pipeline)
    first, second, third = map(float, tries.read_text().split())
    assert value == "done"
    assert third - second > 0.4 > second - first
    names = state_names(task_run_id, "Completed")
    assert names == [
        "Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed",
    ]  # fmt: skip


def test_retries_run_out(burst):
    """When retries are used up, the run has failed with the last exception."""

    @task(retries=1)
    def hopeless():
        raise ValueError("no good")

    @flow
    def pipeline():
        return hopeless.submit(return_state=True)

    state = burst(pipeline.with_options(name="hopeless"), return_state=True)
    assert state.is_failed()


def test_a_subflow_has_pilots_of_its_own(prefect_api, shared_root):
    """A subflow runs its tasks on its own runner, and the parent's goes on."""
    runner = BurstTaskRunner(max_jobs=1, site={"shared-root": str(shared_root)})

    @flow(task_runner=runner)
    def child(x):
        return scale.submit(x).result(), where.submit().result()

    @flow(task_runner=runner)
    def parent():
        before = where.submit().result()
        value, inside = child(2)
        return value, inside, before, where.submit().result()

    value, inside, before, after = parent()
    assert value == 6
    assert inside not in {before, after}
    runs = list((shared_root / "runs").iterdir())
    assert len(runs) == 2
    assert not any((run / "secret").exists() for run in runs)


def test_a_given_cluster_is_left_open(burst, module_cluster: BurstCluster):
    """A cluster that was given is used by one flow after the other, its pilots stay warm."""

    @flow
    def pipeline():
        return where.submit().result()

    assert burst(pipeline) == burst(pipeline)
    assert module_cluster.observed


def test_many_small_tasks(burst):
    """Two hundred tasks give two hundred right answers, in order."""

    @flow
    def pipeline():
        return scale.map(range(200)).result()

    assert burst(pipeline) == [3 * x for x in range(200)]
