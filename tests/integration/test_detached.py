"""`hpcburst snakemake`: the main process in a batch job, looked at and ended from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from support.fakescheduler import FakeScheduler
from support.processes import marked, wait_until

WITHIN_S = 60.0
MARK = "HPCBURST_TEST_RUN"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The user's environment with a shared root of its own and a mark."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")}
    root = str(tmp_path / "shared")
    return {**kept, "DASK_HPCBURST__SHARED_ROOT": root, MARK: uuid.uuid4().hex}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a workflow whose name no shell would leave alone."""
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    (folder / "Snakefile").write_text(
        'envvars: "TOKEN"\n'
        'rule slow:\n    output: "slow.txt"\n    shell: "touch begun; sleep 600; touch {output}"\n'
        'rule quick:\n    output: "quick.txt"\n    params: word=config.get("word")\n'
        '    shell: "printf \'%s|%s\' {params.word:q} \\"$TOKEN\\" > {output}"\n'
    )
    return folder


def hpcburst(folder, environ, *words):
    """Run the verb; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcburst.cli.main", "snakemake", *words],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(folder, environ, job_id):
    """What `--list` says of a job."""
    rows = json.loads(hpcburst(folder, environ, "--list", "--json"))
    return next(row["state"] for row in rows if row["job_id"] == job_id)


def test_snakemake_runs_as_a_job_with_all_it_was_given(folder, environ):
    """Arguments, folder and environment arrive as they are; the log is where it was said to be."""
    environ = {**environ, "TOKEN": "v a$l'ue"}
    words = ("quick.txt", "--jobs", "2", "--config", 'word=it\'s "$HOME" & more')
    told = json.loads(hpcburst(folder, environ, "--json", "--", *words))
    log, gone = Path(told["log"]), f"{MARK}={environ[MARK]}"
    wait_until(lambda: log.exists() and "100%) done" in log.read_text(), "the end", WITHIN_S)
    assert (folder / "quick.txt").read_text() == "it's \"$HOME\" & more|v a$l'ue"
    left = [path for path in Path(told["folder"]).rglob("*") if path.is_file()]
    assert not [path for path in left if b"v a$l" in path.read_bytes()], "the environment is kept"
    wait_until(lambda: not marked(gone), "the end of all", WITHIN_S)


def test_cancelling_the_job_ends_all_its_jobs(folder, environ):
    """The user is told how to cancel; that ends the main process, its pilots and its rules."""
    environ = {**environ, "TOKEN": "x"}
    told = hpcburst(folder, environ, "--", "slow.txt", "--jobs", "2")
    wait_until((folder / "begun").exists, "the begin of the rule", WITHIN_S)
    (cancel,) = [line for line in told.splitlines() if "cancel:" in line]
    job_id = cancel.split("--cancel ")[1]
    assert f"--cancel {job_id}" in told
    hpcburst(folder, environ, "--cancel", job_id)
    wait_until(lambda: not marked(f"{MARK}={environ[MARK]}"), "the end of all", WITHIN_S)
    assert state(folder, environ, job_id) == "ended"


def test_on_a_batch_system_it_waits_in_the_queue_and_can_be_cancelled_there(
    folder, environ, tmp_path
):
    """Options become directives; a waiting job is listed as such, and cancelled for good.

    A dry run shows the script, with no text of the user's in it, and writes nothing.
    """
    queues = {"batch": {"cores": 4, "memory": "8GB", "walltime": "2d"}}
    with FakeScheduler("slurm", tmp_path / "batch") as batch:
        batch.hold()
        environ |= {
            "PATH": batch.path,
            "DASK_HPCBURST__SCHEDULER": "slurm",
            "DASK_HPCBURST__QUEUES": json.dumps(queues),
        }
        words = ("--account", "physics", "--walltime", "90m", "--queue", "batch")
        shown = hpcburst(folder, environ, *words, "--dry-run", "--", "a.txt", "--config", "w=$(id)")
        script, _, command = shown.partition("# would run: ")
        told = {"#SBATCH -A physics", "#SBATCH -t 1:31:00", "#SBATCH -p batch"}
        assert told <= set(script.splitlines())
        assert "$(id)" not in script
        assert "--executor hpcburst a.txt --config 'w=$(id)'" in command
        assert not (tmp_path / "shared" / "detached").exists()
        job_id = json.loads(hpcburst(folder, environ, *words, "--json", "--", "slow.txt"))["job_id"]
        assert state(folder, environ, job_id) == "pending"
        hpcburst(folder, environ, "--cancel", job_id)
        wait_until(lambda: not batch.alive, "the end of the job", WITHIN_S)
