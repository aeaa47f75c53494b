"""Ctrl-C in the middle of a burst: the flow script ends, and nothing of ours is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.processes import marked, wait_until

LIMIT_S = 12.0

SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from prefect import flow, task
from prefect_hpcburst import BurstTaskRunner

HERE = Path(sys.argv[1])
SITE = {"shared-root": str(HERE / "shared"), "node-root": str(HERE / "node")}

@task(retries=2, retry_delay_seconds=60)
def work(number):
    (HERE / f"begun-{number}").write_text("")
    subprocess.Popen(["sleep", "600"])
    time.sleep(600)

@flow(task_runner=BurstTaskRunner(max_jobs=2, site=SITE))
def pipeline():
    return work.map(range(40)).result()

if __name__ == "__main__":
    pipeline()
"""


@pytest.fixture
def interrupted(script, prefect_api, tmp_path):
    """Starts the script, sends it a signal when bodies run, and gives it back when it has ended."""
    (tmp_path / "node").mkdir()
    mark = f"HPCBURST_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
    name, _, value = mark.partition("=")
    started: list[subprocess.Popen[str]] = []

    def run(send):
        log = (tmp_path / "output").open("w")
        process = subprocess.Popen(
            [sys.executable, str(script(SCRIPT)), str(tmp_path)],
            env={**os.environ, "PREFECT_API_URL": prefect_api, name: value},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        log.close()
        started.append(process)
        wait_until(lambda: _begun(tmp_path, process), "the start of two bodies", within_s=60)
        assert process.poll() is None, (tmp_path / "output").read_text()
        since = time.monotonic()
        send(process)
        process.wait(LIMIT_S * 2)
        return process, time.monotonic() - since, mark

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def _begun(folder, process):
    return process.poll() is not None or len(list(folder.glob("begun-*"))) == 2


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGINT), id="ctrl-c"),
        pytest.param(lambda process: process.send_signal(signal.SIGINT), id="sigint"),
        pytest.param(lambda process: process.send_signal(signal.SIGTERM), id="sigterm"),
    ],
)
def test_an_interrupted_flow_leaves_nothing(interrupted, tmp_path, send):
    """The script ends in seconds, by the signal's word; no process, socket or folder is left."""
    process, took_s, mark = interrupted(send)
    output = (tmp_path / "output").read_text()
    assert took_s < LIMIT_S, output
    assert process.returncode != 0
    wait_until(lambda: not marked(mark), f"the end of {marked(mark)}", within_s=5)
    assert not list((tmp_path / "node").iterdir())
    (run,) = (tmp_path / "shared" / "runs").iterdir()
    assert not (run / "secret").exists()
    assert not [path for path in Path(run).rglob("*") if path.is_socket()]
    assert len(list(tmp_path.glob("begun-*"))) == 2, "an interrupted run started more bodies"


def test_killed_outright(interrupted, tmp_path):
    """Even after `kill -9` of the script its pilots, their bodies and folders go by themselves."""
    _, _, mark = interrupted(lambda process: process.kill())
    wait_until(lambda: not marked(mark), "the end of the pilots", within_s=30)
    wait_until(lambda: not list((tmp_path / "node").iterdir()), "the end of the pilots' folders")
