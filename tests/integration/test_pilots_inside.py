"""Pilots inside an env of the user's: plain Dask work, checked before anything is submitted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import distributed
import pytest
from distributed import Client

from hpcburst import BurstCluster
from hpcburst.errors import EnvError, RequestError
from hpcburst.tasks import Burst, Command
from support.processes import wait_until

WAIT_S = 90.0
"""For what takes two seconds on a quiet machine."""


def _env(folder):
    """A prefix with this Python and nothing else."""
    argv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(argv, check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    return packages


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """An env with the driver's distributed and without hpcburst: its path file is not followed."""
    folder = tmp_path_factory.mktemp("env") / "it's an env"
    packages = _env(folder)
    (packages / "more.pth").write_text(f"{Path(distributed.__file__).parents[1]}\n")
    return folder


def _site(folder):
    roots = {"shared-root": str(folder / "shared"), "node-root": str(folder / "node")}
    queues = {"local": {"cores": 4, "memory": "8GB", "walltime": "1h", "total-cores": 4}}
    return {**roots, "queues": queues, "pilot": {"memory": "1GB"}, "idle-timeout": "1s"}


def test_dask_tasks_run_in_the_env(env, tmp_path):
    """Dask's tasks run in the env's own Python, which knows no hpcburst; the pilot leaves."""
    with (
        BurstCluster(env=env, max_jobs=1, site=_site(tmp_path)) as cluster,
        Client(cluster) as dask,
    ):
        assert dask.submit(eval, "__import__('sys').prefix").result(WAIT_S) == str(env)
        spec = "__import__('importlib.util').util.find_spec('hpcburst')"
        assert dask.submit(eval, spec).result(WAIT_S) is None
        assert dask.gather(dask.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert "-m pilot tls://" in cluster.job_script()
        left = (tmp_path / "node").iterdir
        wait_until(lambda: not list(left()), "the end of the pilot and of its files", WAIT_S)


def test_tasks_with_an_env_of_their_own_are_refused(env, tmp_path):
    """Such a cluster says at once what it is not for."""
    with (
        BurstCluster(env=env, site=_site(tmp_path)) as cluster,
        pytest.raises(RequestError, match="without env="),
    ):
        cluster.launch(Burst("fit", Command(("true",), "/", {})))


def _without_distributed(packages):
    return "No module named 'distributed'"


def _with_another(packages):
    (packages / "distributed").mkdir()
    (packages / "distributed" / "__init__.py").write_text("__version__ = '1.0'\n")
    return f"distributed 1.0 on Python .*driver has distributed {distributed.__version__}"


def _that_does_not_start(packages):
    (packages.parents[2] / "bin" / "python").unlink()
    (packages.parents[2] / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    (packages.parents[2] / "bin" / "python").chmod(0o755)
    return "status 3"


@pytest.mark.parametrize("spoil", [_without_distributed, _with_another, _that_does_not_start])
def test_an_env_that_cannot_hold_pilots_is_refused_before_a_job_is(tmp_path, spoil):
    """What is missing is named when the cluster is made; no job was submitted."""
    packages = _env(tmp_path / "env")
    words = spoil(packages)
    with pytest.raises(EnvError, match=words):
        BurstCluster(env=tmp_path / "env", site=_site(tmp_path))
    (run,) = (tmp_path / "shared" / "runs").iterdir()
    assert not (run / "secret").exists()
    assert list((run / "logs").iterdir()) == []
