"""One flow, two envs of two Python minors: each body sees its own env, and nothing of ours."""

from __future__ import annotations

import sys

import pytest
from prefect import flow, task

from hpcburst import needs
from hpcburst.errors import EnvError
from prefect_hpcburst import BurstTaskRunner

pytestmark = pytest.mark.channel

OURS = ("prefect", "dask", "distributed", "cloudpickle", "hpcburst")
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@task
@needs(env="a.yaml")
def in_a(x):
    return look(x)


@task
@needs(env="b.yaml")
def in_b(x):
    return look(x)


@task
@needs(env="unknown.yaml")
def in_unknown():
    return 1


@task(retries=1)
@needs(env="unsatisfiable.yaml")
def in_unsatisfiable():
    return 1


@task
def in_the_flows_own(xs):
    return sum(x["value"] for x in xs)


def look(x):
    import importlib.util
    import sys

    import toylib

    return {
        "value": x * 2,
        "python": tuple(sys.version_info[:2]),
        "toylib": toylib.__version__,
        "prefix": sys.prefix,
        "ours": [name for name in OURS if importlib.util.find_spec(name)],
    }


@pytest.fixture(scope="module")
def minors():
    """Python 3.12 if there is one, else the running minor; and another minor if there is one."""
    from support.testchannel import two_pythons

    found = [python.minor for python in two_pythons()]
    first = "3.12" if "3.12" in found else RUNNING
    return first, next((minor for minor in found if minor != first), first)


@pytest.fixture
def run(prefect_api, channel_url, minors, tmp_path, monkeypatch):
    """Runs a flow in a folder with the env files, on pilots of its own."""
    first, second = minors
    monkeypatch.chdir(tmp_path)
    files = {
        "a.yaml": [f"python={first}", "toylib=1.0"],
        "b.yaml": [f"python={second}", "toylib=2.0"],
        "unsatisfiable.yaml": ["app1", "app2"],
    }
    for name, packages in files.items():
        (tmp_path / name).write_text(f"dependencies: {packages}\n")
    site = {"shared-root": str(tmp_path / "shared"), "envs": {"channels": [channel_url]}}

    def start(a_flow):
        return a_flow.with_options(task_runner=BurstTaskRunner(max_jobs=2, site=site))()

    return start


def test_each_body_sees_its_own_env(run, minors):
    """Two tasks of one flow return the Python and package versions of their own envs."""

    @flow
    def two():
        a = in_a.submit(1)
        b = in_b.submit(2)
        return a.result(), b.result(), in_the_flows_own.submit([a, b]).result()

    a, b, total = run(two)
    assert a["python"] == tuple(map(int, minors[0].split(".")))
    assert b["python"] == tuple(map(int, minors[1].split(".")))
    assert (a["toylib"], b["toylib"]) == ("1.0", "2.0")
    assert a["prefix"] != b["prefix"]
    assert a["ours"] == b["ours"] == []
    assert total == 6


def test_a_bad_env_fails_its_task_alone(run):
    """Unknown and unsatisfiable env files fail their tasks with one clear message each."""

    @flow
    def mixed():
        unknown, unsatisfiable = in_unknown.submit(), in_unsatisfiable.submit()
        good = in_a.submit(1).result()
        unknown.wait()
        unsatisfiable.wait()
        return good, unknown.state, unsatisfiable.state

    good, unknown, unsatisfiable = run(mixed)
    assert good["value"] == 2
    assert unknown.name == unsatisfiable.name == "Failed"
    assert isinstance(unknown.result(raise_on_failure=False), EnvError)
    assert "unknown.yaml" in unknown.message
    assert isinstance(unsatisfiable.result(raise_on_failure=False), EnvError)
    assert "unsatisfiable.yaml" in unsatisfiable.message
    assert "toylib" in unsatisfiable.message
