"""What a task asks for is what its body runs in: on the node's disk, with modules, by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hpcburst import BurstCluster
from hpcburst.answers import value_of
from hpcburst.bodies import call_of
from hpcburst.errors import EnvError
from hpcburst.tasks import Burst, Needs
from support.modules import environment_modules

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
WAIT_S = 120
TOOL = environment_modules()

needs_modules = pytest.mark.skipif(TOOL is None, reason="Environment Modules is not installed")


@pytest.fixture
def folder(tmp_path):
    """A shared root, a node's disk and a place for files, all the test's own."""
    return tmp_path


@pytest.fixture
def modulefiles(folder, monkeypatch):
    """Two modules: one with a library path and a variable, one with a Python of its own."""
    assert TOOL is not None
    where = folder / "modulefiles"
    python = folder / "site-python"
    (python / "bin").mkdir(parents=True)
    (python / "bin/python3").symlink_to(sys.executable)
    TOOL.write(where, "gcc/13", [("set", "CC", "gcc-13"), ("prepend", "PATH", "/opt/gcc/bin")])
    TOOL.write(where, "python/site", [("prepend", "PATH", str(python / "bin"))])
    monkeypatch.setenv("MODULEPATH", str(where))
    return python


def environment_file(folder: Path, *dependencies: str, **more: object) -> str:
    path = folder / "environment.yml"
    path.write_text(json.dumps({"dependencies": list(dependencies), **more}))
    return str(path)


def run(function, folder: Path, channel: str = "", place: str = "shared", **needs):
    """The value of a function that runs as a task with these needs, on a pilot."""
    site = {
        "shared-root": str(folder / "shared"),
        "node-root": str(folder / "node"),
        "envs": {"place": place, "mirror": {"conda-forge": channel}},
    }
    (folder / "node").mkdir(exist_ok=True)
    stated = Needs(**needs)
    with BurstCluster(max_jobs=1, site=site) as cluster:
        burst = Burst("t", call_of(function, (), {}), stated, cluster.env_for(stated))
        return value_of(cluster.launch(burst).result(WAIT_S), "t")


def seen():
    """What a body sees of its env."""
    import os
    import sys

    names = ("CONDA_PREFIX", "CC", "PATH", "LOADEDMODULES", "HPCTOOL_HOME")
    return {"prefix": sys.prefix, **{name: os.environ.get(name) for name in names}}


@pytest.mark.channel
def test_a_body_runs_in_an_env_on_its_nodes_disk(folder, channel_url):
    """With `place: local` the env is linked under the node root, activation and all."""
    env = environment_file(folder, f"python {RUNNING}.*", "hpctool")
    found = run(seen, folder, channel_url, "local", env=env)

    assert found["prefix"].startswith(str(folder / "node"))
    assert found["CONDA_PREFIX"] == found["prefix"]
    assert found["HPCTOOL_HOME"] == found["prefix"] + "/share/hpctool"
    assert not list((folder / "shared/envs/envs").iterdir()), "nothing is run from the shared root"


@pytest.mark.channel
@needs_modules
@pytest.mark.parametrize("place", ["shared", "local"])
def test_modules_are_loaded_before_the_env(folder, channel_url, modulefiles, place):
    """The env's programs come before the modules', whose variables are there, wherever it lies."""
    env = environment_file(folder, f"python {RUNNING}.*", "hpctool")
    found = run(seen, folder, channel_url, place, env=env, modules=("gcc/13",))

    path = found["PATH"].split(":")
    assert found["CC"] == "gcc-13"
    assert found["LOADEDMODULES"] == "gcc/13"
    assert path.index(found["prefix"] + "/bin") < path.index("/opt/gcc/bin")
    assert found["HPCTOOL_HOME"] == found["prefix"] + "/share/hpctool"


@pytest.mark.channel
@needs_modules
def test_an_environment_file_may_name_modules(folder, channel_url, modulefiles):
    """`modules:` in the file means the same as in @needs."""
    env = environment_file(folder, f"python {RUNNING}.*", modules=["gcc/13"])
    assert run(seen, folder, channel_url, env=env)["CC"] == "gcc-13"


@needs_modules
def test_modules_alone_bring_their_own_python(folder, modulefiles):
    """Without an env the body runs in the python3 that the modules put on PATH."""
    found = run(seen, folder, modules=("python/site", "gcc/13"))

    assert found["CC"] == "gcc-13"
    assert found["PATH"].split(":")[:2] == ["/opt/gcc/bin", str(modulefiles / "bin")]


@needs_modules
def test_a_module_that_does_not_load_fails_the_task_with_the_tools_own_words(folder, modulefiles):
    """Nothing is queued for modules that are not there; what `module` says is in the error."""
    with pytest.raises(EnvError, match="cuda/99"):
        run(seen, folder, modules=("cuda/99",))


@pytest.mark.channel
def test_an_env_of_conda_is_found_by_its_name(folder, channel_url, monkeypatch):
    """`env="stats"` is the env of that name, with no conda command on this machine."""
    monkeypatch.setenv("HOME", str(folder / "home"))
    prefix = folder / "anywhere/envs/stats"
    env = environment_file(folder, f"python {RUNNING}.*")
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.model import EnvSettings

    settings = EnvSettings(mirror={"conda-forge": channel_url})
    EnvStore(folder / "other", settings).place(env, prefix)
    (folder / "home/.conda").mkdir(parents=True)
    (folder / "home/.conda/environments.txt").write_text(f"{prefix}\n")

    assert run(seen, folder, env="stats")["prefix"] == str(prefix)
