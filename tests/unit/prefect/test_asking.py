"""What a task asks for: the call outdoes the runner, the runner what the task states."""

from __future__ import annotations

import pickle

import pytest
from prefect import task

from hpcburst.bodies import body_of
from hpcburst.errors import RequestError
from hpcburst.tasks import needs, needs_of
from prefect_hpcburst import BurstTaskRunner, with_needs
from prefect_hpcburst.asking import needs_for, travelling


@task(retries=3, tags={"science"})
@needs(memory="4GB", cores=2)
def fit(x, *, scale=2):
    return scale * x


@task
def of_others(x):
    return x


def test_a_call_asks_for_something_else():
    """`fit.with_needs(memory=...)` is the same task with more memory; `fit` stays as it is."""
    larger = fit.with_needs(memory="16GB")
    assert (needs_for(larger, {}).memory_mb, needs_for(larger, {}).cores) == (16000, 2)
    assert needs_for(fit, {}).memory_mb == 4000
    assert (larger.name, larger.retries, larger.tags) == (fit.name, 3, {"science"})
    assert larger.task_key == fit.task_key
    assert larger.fn(3) == 6


def test_with_options_keeps_what_a_call_asked_for():
    """Options and needs may be changed one after the other, in any order, any number of times."""
    first = fit.with_needs(memory="16GB").with_options(retries=1).with_needs(cores=8)
    second = fit.with_options(retries=1).with_needs(cores=8).with_needs(memory="16GB")
    for changed in (first, second):
        wanted = needs_for(changed, {})
        assert (wanted.memory_mb, wanted.cores, changed.retries) == (16000, 8, 1)


def test_tasks_of_others_get_needs_by_name():
    """The runner states what tasks need that were written without `@needs`, by their names."""
    by_name = {"of_others": {"memory": "8GB"}, "fit": {"cores": 4}}
    assert needs_for(of_others, by_name).memory_mb == 8000
    assert needs_for(of_others.with_options(name="else"), by_name).memory_mb is None
    assert (needs_for(fit, by_name).cores, needs_for(fit, by_name).memory_mb) == (4, 4000)
    called = needs_for(with_needs(fit, cores=16), by_name)
    assert (called.cores, called.memory_mb) == (16, 4000)


def test_it_is_the_same_body():
    """A call with other needs runs and caches the same code."""
    assert body_of(travelling(fit.with_needs(cores=1).fn)).digest == body_of(fit.fn).digest


def test_needs_above_or_below_task():
    """`@needs` may stand under `@task` or above it."""

    @needs(cores=3)
    @task
    def above():
        return 1

    assert needs_of(above).cores == 3
    assert needs_for(above.with_options(name="b").with_needs(memory="1GB"), {}).cores == 3


@pytest.mark.parametrize("fields", [{"memry": "1GB"}, {"memory": "much"}, {"cores": 0}])
def test_what_cannot_be_read_is_refused_where_it_is_written(fields):
    """A misspelt field fails at the call, or when the runner is made, not during a run."""
    with pytest.raises(RequestError):
        fit.with_needs(**fields)
    with pytest.raises(RequestError):
        BurstTaskRunner(needs={"fit": fields})


def test_needs_by_name_are_fields():
    """A value in the place of fields is refused with an example."""
    with pytest.raises(RequestError, match="Write for instance needs="):
        BurstTaskRunner(needs={"fit": "8GB"})


def test_needs_are_settings_of_the_runner():
    """Needs by name are kept by copies of a runner, and tell two runners apart."""
    runner = BurstTaskRunner(needs={"fit": {"memory": "8GB"}})
    assert runner.duplicate() == runner == pickle.loads(pickle.dumps(runner))
    assert runner != BurstTaskRunner()


def test_a_command_said_anew_is_checked():
    """A command given for a call has to fit the function's parameters."""
    with pytest.raises(RequestError, match="no such parameter"):
        fit.with_needs(command="tool {nothing}")


def test_what_nothing_can_be_kept_on_is_refused():
    """A task around an object without attributes says what to write instead."""

    class Bare:
        __slots__ = ()

        def __call__(self):
            return 1

    with pytest.raises(RequestError, match="Write a function"):
        task(Bare(), name="bare").with_needs(cores=2)
