"""A cached result depends on the body as it travels, on the env, and on the inputs."""

from __future__ import annotations

import importlib.util

import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE

from hpcburst import needs

MODULE = """
import os
from prefect import task
from prefect.cache_policies import INPUTS, TASK_SOURCE
SCALE = 2

def helper(x):
    return SCALE * x

@task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
def fit(x):
    return helper(x) + 1, os.getpid()
"""


@pytest.fixture
def science(tmp_path):
    """Loads the module a task is in, with an edit; each load is the file as a new run sees it."""
    count = iter(range(100))

    def load(old="", new=""):
        text = MODULE.replace(old, new) if old else MODULE
        path = tmp_path / f"edit{next(count)}" / "science.py"
        path.parent.mkdir()
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("science", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@flow
def outcome(a_task, x):
    state = a_task.submit(x, return_state=True)
    return [state.name, state.result(raise_on_failure=False)]


def test_same_body_and_inputs_hit(burst, science):
    """The same body with the same inputs is not run again, in this flow run or another."""
    first = burst(outcome, science().fit, 1)
    assert first[0] == "Completed"
    assert burst(outcome, science().fit, 1) == ["Cached", first[1]]
    assert burst(outcome, science().fit, 2)[0] == "Completed"


def test_code_above_the_body_does_not_count(burst, science):
    """Editing what a body does not use keeps its cached result."""
    burst(outcome, science().fit, 11)
    assert burst(outcome, science("import os", "import os\n\nUNUSED = 5\n").fit, 11)[0] == "Cached"


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("+ 1", "+ 5", 47), ("SCALE * x", "SCALE * x + 100", 143), ("SCALE = 2", "SCALE = 4", 85)],
    ids=["body", "helper", "global"],
)
def test_editing_the_body_or_what_it_uses_misses(burst, science, old, new, value):
    """Editing the body, a helper of it or a global it uses invalidates its results."""
    burst(outcome, science().fit, 21)
    name, (result, _) = burst(outcome, science(old, new).fit, 21)
    assert (name, result) == ("Completed", value)


def test_a_failed_body_is_not_cached(burst, tmp_path):
    """Only results are cached: what failed runs again."""
    fixed = tmp_path / "fixed"

    @task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
    def fragile(x):
        if not fixed.exists():
            raise OSError("broken")
        return x

    assert burst(outcome, fragile, 1)[0] == "Failed"
    fixed.write_text("")
    assert burst(outcome, fragile, 1) == ["Completed", 1]


def test_results_are_kept_by_the_flow(burst, tmp_path):
    """`persist_result` writes the value where the flow process keeps results, not on the pilot."""
    storage = tmp_path / "results"

    @task(persist_result=True, result_storage_key="answer-{parameters[x]}", cache_policy=None)
    def answer(x):
        return x * 2

    @flow
    def pipeline():
        return answer.submit(21).result()

    from prefect.filesystems import LocalFileSystem

    storage.mkdir()
    where = LocalFileSystem(basepath=str(storage))
    where.save("kept-results", overwrite=True)
    value = burst(pipeline.with_options(result_storage=where, persist_result=True))
    assert value == 42
    assert (storage / "answer-21").exists()


@pytest.mark.channel
def test_another_env_misses(burst, channel_url, tmp_path):
    """The same body in another env is another computation."""
    file = tmp_path / "env.yaml"

    @task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
    @needs(env=str(file))
    def version():
        import toylib

        return toylib.__version__

    @flow
    def pipeline():
        state = version.submit(return_state=True)
        return state.name, state.result()

    def use(release):
        file.write_text(f"channels: [{channel_url!r}]\ndependencies: [python, toylib={release}]\n")

    use("1.0")
    assert burst(pipeline) == ("Completed", "1.0")
    assert burst(pipeline) == ("Cached", "1.0")
    use("2.0")
    assert burst(pipeline) == ("Completed", "2.0")
    use("1.0")
    assert burst(pipeline) == ("Cached", "1.0")
