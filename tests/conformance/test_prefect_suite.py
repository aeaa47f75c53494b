"""What every task runner of Prefect owes its users: the same for ours as for Prefect's own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from prefect import allow_failure, flow, get_run_logger, tags, task, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.context import FlowRunContext
from prefect.exceptions import MappingLengthMismatch, MappingMissingIterable
from prefect.futures import as_completed, wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.testing.utilities import prefect_test_harness

from hpcburst import BurstCluster
from prefect_hpcburst import BurstTaskRunner
from support.processes import wait_until


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """A Prefect API with a database of its own."""
    from prefect import settings

    home = tmp_path_factory.mktemp("prefect")
    updates = {
        settings.PREFECT_HOME: home,
        settings.PREFECT_LOCAL_STORAGE_PATH: home / "storage",
        settings.PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with settings.temporary_settings(updates), prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def pilots(tmp_path_factory):
    """Up to two pilots that stay warm from test to test."""
    site = {"shared-root": str(tmp_path_factory.mktemp("shared")), "idle-timeout": "2m"}
    with BurstCluster(max_jobs=2, site=site) as cluster:
        yield cluster


@pytest.fixture(params=["prefect", "hpcburst"])
def run(request, api, pilots):
    """Runs a flow under a task runner: Prefect's own, then ours."""

    def run(a_flow, *args, **kwargs):
        if request.param == "prefect":
            runner = ThreadPoolTaskRunner()
        else:
            runner = BurstTaskRunner(cluster=pilots)
        return a_flow.with_options(task_runner=runner)(*args, **kwargs)

    return run


@task
def add(x, y=1, **more):
    return x + y + sum(more.values())


@task
async def add_later(x, y=1):
    await asyncio.sleep(0)
    return x + y


@task
def fail(message="no"):
    raise ValueError(message)


@task
def see(value):
    return str(value)


def test_submit_gives_a_future_of_the_value(run):
    """Sync and async tasks, with arguments of all kinds, give the value they return."""

    @flow
    def pipeline():
        futures = [add.submit(1), add.submit(1, 2), add.submit(x=1, y=2, z=3), add_later.submit(4)]
        return [future.result() for future in futures]

    assert run(pipeline) == [2, 3, 6, 5]


def test_map_takes_iterables_of_equal_length(run):
    """`map` pairs iterables, repeats what is no iterable or `unmapped`, and refuses the rest."""

    @flow
    def pipeline():
        with pytest.raises(MappingLengthMismatch):
            add.map([1, 2], [1, 2, 3])
        with pytest.raises(MappingMissingIterable):
            add.map(1, 2)
        mapped = [add.map([1, 2], [10, 20]), add.map([1, 2], 5), add.map(add.map([1, 2]), y=0)]
        mapped.append(add.map([1, 2], y=unmapped(7)))
        return [futures.result() for futures in mapped]

    assert run(pipeline) == [[11, 22], [6, 7], [2, 3], [8, 9]]


def test_map_of_nothing_is_nothing(run):
    """An empty iterable gives no runs and no error."""

    @flow
    def pipeline():
        return add.map([]).result()

    assert run(pipeline) == []


def test_async_map_in_an_async_flow(run):
    """Async flows map sync and async tasks alike."""

    @flow
    async def pipeline():
        return add_later.map([1, 2]).result() + add.map([1, 2]).result()

    assert asyncio.run(run(pipeline)) == [2, 3, 2, 3]


def test_a_failed_task_fails_what_needs_it(run):
    """A failure is raised where its value is asked for; what depends on it never runs."""

    @flow
    def pipeline():
        bad = fail.submit("first")
        after = [see.submit(bad), see.submit(1, wait_for=[bad]), see.submit([bad, 1])]
        allowed = see.submit(allow_failure(bad)).result()
        for future in after:
            future.wait()
        with pytest.raises(ValueError, match="first"):
            bad.result()
        quiet = bad.result(raise_on_failure=False)
        return [future.state.name for future in after], allowed, type(quiet)

    assert run(pipeline) == (["NotReady"] * 3, "first", ValueError)


def test_the_flow_fails_with_the_task_it_returns(run):
    """A flow that returns futures ends as they did."""

    @flow
    def pipeline():
        return [add.submit(1), fail.submit()]

    state = run(pipeline, return_state=True)
    assert state.is_failed()
    assert "1/2 states failed" in state.message


def test_states_that_bodies_return_are_kept_to(run):
    """A body may return a state of Prefect's: it is the state of its run."""

    @task
    def choose(well):
        return Completed(message="chosen") if well else Failed(message="not today")

    @flow
    def pipeline():
        return [choose.submit(well, return_state=True).message for well in (True, False)]

    assert run(pipeline) == ["chosen", "not today"]


def test_wait_and_as_completed(run):
    """Futures can be waited for together, and taken as they come."""

    @flow
    def pipeline():
        futures = list(add.map([1, 2, 3]))
        done, not_done = wait(futures)
        return len(done), len(not_done), sorted(f.result() for f in as_completed(futures))

    assert run(pipeline) == (3, 0, [2, 3, 4])


def test_a_future_that_takes_too_long(run, tmp_path):
    """`result(timeout=...)` gives up waiting, and the task goes on."""
    go = tmp_path / "go"

    @task
    def hold(path):
        from pathlib import Path as Place
        from time import sleep

        while not Place(path).exists():
            sleep(0.02)
        return "gone on"

    @flow
    def pipeline():
        future = hold.submit(str(go))
        with pytest.raises(TimeoutError):
            future.result(timeout=0.2)
        go.touch()
        return future.result()

    assert run(pipeline) == "gone on"


def test_tasks_run_at_the_same_time(run, tmp_path):
    """Tasks that need nothing of each other run side by side, up to what there is room for."""

    @task
    def meet(mine, others):
        from pathlib import Path as Place
        from time import monotonic, sleep

        Place(mine).touch()
        until = monotonic() + 20
        while not Place(others).exists():
            if monotonic() > until:
                raise TimeoutError("nobody came")
            sleep(0.02)

    @flow
    def pipeline():
        one, two = str(tmp_path / "one"), str(tmp_path / "two")
        futures = [meet.submit(one, two), meet.submit(two, one)]
        return [future.wait() or future.state.name for future in futures]

    assert run(pipeline) == ["Completed", "Completed"]


def test_subflows_inherit_nothing_but_values(run):
    """A subflow runs its own tasks and gives its parent the value."""

    @flow
    def child(x):
        return add.submit(x).result()

    @flow
    def parent():
        return child(1) + add.submit(child(2)).result()

    assert run(parent) == 2 + 4


def test_retries_hooks_and_names(run, tmp_path):
    """Retries, conditions, hooks and templates of run names work as in any flow."""
    told = []

    def failed(a_task, a_run, state):
        told.append((a_run.name, a_run.run_count, state.name))

    def only_os_errors(a_task, a_run, state):
        return isinstance(state.result(raise_on_failure=False), OSError)

    options = {"retries": 2, "on_failure": [failed], "retry_condition_fn": only_os_errors}

    @task(task_run_name="raise-{kind}", **options)
    def raise_it(kind):
        raise {"os": OSError, "value": ValueError}[kind]("no")

    @flow
    def pipeline():
        return [raise_it.submit(kind, return_state=True).name for kind in ("os", "value")]

    assert run(pipeline) == ["Failed", "Failed"]
    assert told == [("raise-os", 3, "Failed"), ("raise-value", 1, "Failed")]


def test_tags_reach_the_runs(run):
    """Tags of the context and of the task are on the run in the API."""

    @flow
    def pipeline():
        with tags("tonight"):
            future = add.with_options(tags={"science"}).submit(1)
        future.wait()
        return future.task_run_id

    task_run_id = run(pipeline)

    def found():
        with get_client(sync_client=True) as client:
            try:
                return set(client.read_task_run(task_run_id).tags) >= {"tonight", "science"}
            except Exception:
                return False

    wait_until(found, "the run with its tags")


def test_concurrency_limits_of_tags_are_honoured(run, tmp_path):
    """Of tasks with a tag that is limited to one, one runs at a time."""
    tag = f"licence-{tmp_path.parent.name}-{tmp_path.name}"
    with get_client(sync_client=True) as client:
        limit = GlobalConcurrencyLimitCreate(name=f"tag:{tag}", limit=1, active=True)
        client._client.post(
            "/v2/concurrency_limits/", json=limit.model_dump(mode="json")
        ).raise_for_status()

    @task(tags=[tag])
    def alone(path):
        from pathlib import Path as Place
        from time import sleep

        Place(path).touch(exist_ok=False)  # fails when another one is there
        sleep(0.1)
        Place(path).unlink()

    @flow
    def pipeline():
        futures = alone.map([str(tmp_path / "licence")] * 2)
        return [future.wait() or future.state.name for future in futures]

    assert run(pipeline) == ["Completed"] * 2


def test_the_logger_of_the_run(run):
    """`get_run_logger()` in a body is a logger with the usual levels."""

    @task
    def speak():
        get_run_logger().warning("watch out")
        return "spoken"

    @flow
    def pipeline():
        return speak.submit().result()

    assert run(pipeline) == "spoken"


def test_a_flow_run_knows_its_runner(run):
    """Inside a flow its runner is that of the context; after it, nothing of it runs."""

    @flow
    def pipeline():
        runner = FlowRunContext.get().task_runner
        return runner, runner.submit(add, {"x": 1}).result()

    runner, value = run(pipeline)
    assert value == 2
    with pytest.raises(RuntimeError):
        runner.submit(add, {"x": 1})


def test_a_duplicate_is_another_runner_with_the_same_settings(pilots):
    """`duplicate` is what Prefect makes of a runner for each flow run."""
    for runner in (BurstTaskRunner(cluster=pilots), ThreadPoolTaskRunner(max_workers=2)):
        assert runner.duplicate() == runner
        assert runner.duplicate() is not runner
        assert runner.name


def test_many_tasks_are_not_slowed_by_each_other(run):
    """A hundred small tasks end in order and in seconds."""

    @flow
    def pipeline():
        return add.map(range(100)).result()

    since = time.monotonic()
    assert run(pipeline) == list(range(1, 101))
    assert time.monotonic() - since < 60


def test_the_working_folder_is_the_flows(run, tmp_path, monkeypatch):
    """A relative path in a body means what it means in the flow."""
    monkeypatch.chdir(tmp_path)

    @task
    def where():
        from pathlib import Path as Place

        return str(Place.cwd())

    @flow
    def pipeline():
        return where.submit().result()

    assert run(pipeline) == str(Path.cwd())
