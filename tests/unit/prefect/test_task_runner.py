"""A BurstTaskRunner before its flow runs: settings that copy, compare and travel."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from prefect import flow, task

from hpcburst.errors import RequestError
from hpcburst.tasks import Shape
from prefect_hpcburst import BurstTaskRunner

SETTINGS = [
    {},
    {"max_jobs": 3},
    {"shapes": [{"cores": 2, "memory": "4GB"}]},
    {"shapes": [Shape(cores=2)], "max_jobs": 7},
    {"site": {"max-jobs": 5, "envs": {"channels": ["science"]}}},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_duplicate_has_the_same_settings(settings):
    """A duplicate is equal to the original and another object: each flow run gets its own."""
    runner = BurstTaskRunner(**settings)
    assert runner.duplicate() == runner
    assert runner.duplicate() is not runner


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_runner_pickles(settings):
    """A runner survives pickling, as a flow that is sent to another process needs it to."""
    runner = BurstTaskRunner(**settings)
    copy = pickle.loads(pickle.dumps(runner))
    assert copy == runner
    assert copy.duplicate() == runner


def test_runners_with_other_settings_differ():
    """Runners are equal when, and only when, their settings are."""
    runners = [BurstTaskRunner(**settings) for settings in SETTINGS]
    assert all((a == b) == (a is b) for a in runners for b in runners)
    assert BurstTaskRunner() != "a runner"


def test_a_given_cluster_says_the_rest():
    """A cluster and settings of another one together are refused with the reason."""
    with pytest.raises(RequestError, match="the BurstCluster"):
        BurstTaskRunner(max_jobs=2, cluster=object())


def test_a_runner_with_a_cluster_does_not_travel():
    """A runner whose cluster is open here cannot be sent elsewhere, and says so."""
    with pytest.raises(RequestError, match="open in this process"):
        pickle.dumps(BurstTaskRunner(cluster=object()))


def test_no_pilots_before_the_flow_runs():
    """A runner that runs no flow has no cluster and takes no tasks."""
    runner = BurstTaskRunner()
    with pytest.raises(RuntimeError, match="while its flow runs"):
        _ = runner.cluster
    with pytest.raises(RuntimeError, match="while its flow runs"):
        runner.submit(task(lambda: 1), {})


def test_a_flow_takes_the_runner_as_instance_or_class():
    """`@flow(task_runner=...)` takes a runner, or the class for all defaults."""
    assert flow(task_runner=BurstTaskRunner)(lambda: 1).task_runner == BurstTaskRunner()
    runner = BurstTaskRunner(max_jobs=4)
    assert flow(task_runner=runner)(lambda: 1).task_runner is runner


def test_the_first_submit_may_be_in_any_thread_and_leaves_ctrl_c_alone():
    """What the first submit imports loads in any thread, and Ctrl-C keeps its meaning."""
    script = """
import signal, threading
failed = []
def load():
    try:
        import hpcburst.pools.cluster
    except BaseException as error:
        failed.append(error)
thread = threading.Thread(target=load)
thread.start()
thread.join()
assert not failed, failed
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
