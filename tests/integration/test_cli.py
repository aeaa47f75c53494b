"""The command line answers in clear words, and its exit status says whether all is well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcburst import __version__

PROGRAM = Path(sys.executable).with_name("hpcburst")


@pytest.fixture
def hpcburst(tmp_path):
    """Runs `hpcburst ARGUMENTS` in a home of its own, with some config keys in the environment.

    No package channel is asked: what the network gives is not the machine's fault.
    """

    def run(*arguments, **config):
        roots = {"SHARED_ROOT": tmp_path / "shared", "NODE_ROOT": tmp_path}
        stated = {**roots, "ENVS__CHANNELS": "[]", **config}
        environ = {**os.environ, "HOME": str(tmp_path), "COLUMNS": "80"}
        environ |= {f"DASK_HPCBURST__{key}": str(value) for key, value in stated.items()}
        return subprocess.run(
            [PROGRAM, *arguments],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def _findings(done):
    return {row["about"]: row for row in json.loads(done.stdout)}


def test_the_version_is_told(hpcburst):
    """`hpcburst --version` tells the version that is installed."""
    done = hpcburst("--version")
    assert (done.returncode, done.stdout) == (0, f"hpcburst {__version__}\n")


def test_without_a_verb_the_verbs_are_shown(hpcburst):
    """`hpcburst` alone shows what there is to say, and is no success."""
    done = hpcburst()
    assert done.returncode == 2
    assert "doctor" in done.stdout
    assert "env" in done.stdout


def test_an_unknown_verb_is_refused(hpcburst):
    """A misspelt verb is refused beside the verbs there are."""
    done = hpcburst("docter")
    assert done.returncode == 2
    assert "doctor" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_finds_a_good_machine_good(hpcburst, tmp_path):
    """Where a burst can run, `hpcburst doctor` says so for people and exits with 0."""
    done = hpcburst("doctor")
    assert done.returncode == 0, done.stdout
    assert "BAD" not in done.stdout
    assert str(tmp_path / "shared") in done.stdout
    assert done.stderr == ""


def test_the_doctor_speaks_json(hpcburst):
    """`hpcburst doctor --json` gives the same findings to programs."""
    done = hpcburst("doctor", "--json")
    findings = _findings(done)
    assert done.returncode == 0
    assert {"Python", "config", "shared root", "node root", "distributed"} <= set(findings)
    assert {row["verdict"] for row in findings.values()} <= {"ok", "note"}


def test_the_doctor_leaves_nothing_behind(hpcburst, tmp_path):
    """Looking changes nothing: no file or folder is left by the doctor."""
    hpcburst("doctor")
    assert list(tmp_path.iterdir()) == []


def _a_file_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "shared"


def _others_can_write_to_it(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    return tmp_path / "open"


def _the_kernel_owns_it(_):
    return Path("/proc/hpcburst")


@pytest.mark.parametrize(
    "place", [_a_file_is_in_the_way, _others_can_write_to_it, _the_kernel_owns_it]
)
def test_a_shared_root_that_will_not_do_is_found(hpcburst, tmp_path, place):
    """A shared root no run could use is bad news with a way out, and the exit status is 1."""
    root = place(tmp_path)
    done = hpcburst("doctor", "--json", SHARED_ROOT=root)
    finding = _findings(done)["shared root"]
    assert done.returncode == 1
    assert finding["verdict"] == "bad"
    assert str(root) in finding["found"]
    assert "hpcburst.shared-root" in finding["found"] + finding["todo"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"MAX_JOB": 3}, "hpcburst.max-job"),
        ({"MAX_JOBS": "many"}, "hpcburst.max-jobs"),
        ({"SCHEDULER": "cron"}, "'cron'"),
        ({"PILOT__MEMORY": "9000TB"}, "hpcburst.pilot"),
    ],
)
def test_a_wrong_config_is_told_by_its_key(hpcburst, config, words):
    """A wrong key or value in the config is named, with where to correct it; no traceback."""
    done = hpcburst("doctor", **config)
    assert done.returncode == 1
    assert words in done.stdout
    assert "~/.config/dask" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error_to_shout_about(hpcburst, tmp_path):
    """`hpcburst doctor | head -0` ends without a traceback."""
    command = f"'{PROGRAM}' doctor --json | true"
    environ = {**os.environ, "HOME": str(tmp_path), "DASK_HPCBURST__ENVS__CHANNELS": "[]"}
    done = subprocess.run(
        ["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
