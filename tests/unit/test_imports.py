"""Importing costs nothing and does nothing, in whatever order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hpcburst

HEAVY = {"dask", "dask_jobqueue", "distributed", "numpy", "prefect", "rattler", "snakemake", "yaml"}

ROOT = Path(hpcburst.__file__).parent

MODULES = sorted(
    ".".join(("hpcburst", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py"
)

IMPORT_EACH_ALONE = """
import importlib, json, os, sys, threading
for name in sys.argv[1:]:
    told, tell = os.pipe()
    if os.fork() == 0:
        try:
            importlib.import_module(name)
            answer = {"threads": threading.active_count(), "modules": list(sys.modules)}
        except BaseException as error:
            answer = {"error": repr(error)}
        os.write(tell, json.dumps(answer).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as answer:
        print(json.dumps([name, json.load(answer)]))
    os.wait()
"""


def _fresh(code, *arguments):
    """What a fresh interpreter prints."""
    argv = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _loaded(code):
    """Modules that a fresh interpreter has loaded after some code."""
    return json.loads(_fresh(f"{code}; import json, sys; print(json.dumps(list(sys.modules)))"))


@pytest.fixture(scope="module")
def alone():
    """How each module of the core is imported by an interpreter that has imported nothing yet."""
    rows = _fresh(IMPORT_EACH_ALONE, *MODULES).splitlines()
    return dict(json.loads(row) for row in rows)


def _heavy(modules):
    return {name.split(".")[0] for name in modules} & HEAVY


def test_importing_the_package_loads_nothing_heavy():
    """`import hpcburst`, `needs` and `shell` cost milliseconds: no Dask, no NumPy, no solver."""
    assert _heavy(_loaded("import hpcburst; from hpcburst import needs, shell")) == set()


def test_public_names_are_there_when_asked_for():
    """`from hpcburst import BurstCluster, needs` works, and a wrong name is an AttributeError."""
    code = "import hpcburst; from hpcburst import BurstCluster, needs, shell; print(dir(hpcburst))"
    assert "BurstCluster" in _fresh(code)
    with pytest.raises(AttributeError, match="BurstCloister"):
        _ = hpcburst.BurstCloister


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported_alone(alone, module):
    """Each module of the core imports first and alone, and starts no thread."""
    assert "error" not in alone[module], alone[module]["error"]
    assert alone[module]["threads"] == 1


LIGHT = (
    "amounts", "answers", "bodies", "cli", "comms", "envs", "errors", "jobs", "policy", "programs",
    "tasks", "templates",
)  # fmt: skip


@pytest.mark.parametrize("part", LIGHT)
def test_all_that_decides_is_light(alone, part):
    """What decides, and the command line, load no Dask and no engine until they act."""
    mine = [name for name in MODULES if name.split(".")[1:2] == [part]]
    assert mine
    assert {name: found for name in mine if (found := _heavy(alone[name]["modules"]))} == {}


def test_the_guest_is_the_standard_library_alone(alone):
    """What runs inside a task's env imports nothing that the env might lack."""
    at_start = {name.split(".")[0] for name in _loaded("pass")}
    ours = [name for name in MODULES if name.startswith("hpcburst.workers.guest.")]
    assert ours
    for name in ours:
        parts = {module.split(".")[0] for module in alone[name]["modules"]}
        assert parts <= at_start | set(sys.stdlib_module_names) | {"hpcburst"}
