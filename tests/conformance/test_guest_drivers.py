"""Drivers and envs of other Python, numpy, pandas and Arrow versions understand each other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import guest_driver
from support.places import CACHE
from support.pythons import PYTHONS

EXECUTORS = Path(__file__).parents[2] / "executors"
LIBRARIES = ("numpy", "pandas", "pyarrow")

OLD = ("3.11", "numpy==1.26.4", "pandas==2.1.4", "pyarrow==14.0.2")
NEW = ("3.13", "numpy==2.3.4", "pandas==2.3.3", "pyarrow==22.0.0")


def told_by(driver, env, folder, libraries=()):
    """What the driver program found; run with nothing but the core's sources."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(driver), guest_driver.__file__, str(env), str(folder), *libraries],
        env={**environ, "PYTHONPATH": str(EXECUTORS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def private(tmp_path):
    folder = tmp_path / "pilot"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize("env", PYTHONS)
@pytest.mark.parametrize("driver", [v for v in PYTHONS if int(v.split(".")[1]) >= 11])
def test_every_driver_calls_every_env(driver, env, private):
    """A driver of any Python from 3.11 on runs bodies in any env from 3.8 on, with no package."""
    told = told_by(PYTHONS[driver], PYTHONS[env], private)
    assert set(told.values()) == {"ok"}, told


@pytest.mark.parametrize(("driver", "env"), [(OLD, NEW), (NEW, OLD)], ids=["old-new", "new-old"])
def test_arrays_frames_and_tables_cross_versions(driver, env, private):
    """numpy 1 and 2, pandas and Arrow of different years: what goes out and comes back is equal."""
    told = told_by(_venv(driver), _venv(env), private, LIBRARIES)
    assert {name.partition(":")[0] for name in told} >= {"array", "frame", "table"}
    assert set(told.values()) == {"ok"}, told


def test_a_frame_that_the_env_cannot_read_is_refused_with_a_reason(private):
    """An env without pandas says so; it does not crash, and the next call is served."""
    told = told_by(_venv(NEW), PYTHONS["{}.{}".format(*sys.version_info[:2])], private, ["pandas"])
    assert "cannot be read in Python" in told["frame: plain"]
    assert "No module named 'pandas'" in told["frame: plain"]
    assert told["a closure"] == "ok"


def _venv(wanted):
    """A virtual environment with these packages, made once and kept."""
    minor, *packages = wanted
    if minor not in PYTHONS:
        pytest.skip(f"Python {minor} is not on this machine")
    folder = CACHE / "guests" / "-".join([minor, *packages]).replace("==", "_")
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            _install(aside, PYTHONS[minor], packages)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder / "bin" / "python"


def _install(folder, python, packages):
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", python, str(folder)], check=True)
    argv = [uv, "pip", "install", "--quiet", "--only-binary", ":all:"]
    done = subprocess.run(
        [*argv, "--python", str(folder / "bin" / "python"), *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the package index is not to be had: {done.stderr[-300:]}")
