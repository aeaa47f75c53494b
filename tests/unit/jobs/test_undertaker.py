"""Jobs of a driver that was killed are ended; of one that ends its own, nothing is left to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from hpcburst.jobs.undertaker import Undertaker
from support.processes import wait_until

CANCEL = """#!/bin/sh
[ -e {folder}/down ] && rm {folder}/down && exit 1
echo "$@" >> {folder}/ended
"""

DRIVER = """
import os, sys
from hpcburst.jobs.undertaker import Undertaker
undertaker = Undertaker([sys.argv[1]], os.environ)
for job_id in ("41", "42", "43"):
    undertaker.watch(job_id)
undertaker.forget(["42"])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cancel(tmp_path):
    """A command that ends jobs: it writes down which."""
    command = tmp_path / "cancel"
    command.write_text(CANCEL.format(folder=tmp_path))
    command.chmod(0o755)
    return command


def ended(cancel):
    path = cancel.with_name("ended")
    return path.read_text().split() if path.exists() else []


def killed_driver(cancel):
    """A driver with jobs 41 and 43, after `kill -9`."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, cancel],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with driver:
        assert driver.stdout.readline() == "ready\n"
        os.kill(driver.pid, signal.SIGKILL)


def test_jobs_of_a_killed_driver_are_ended(cancel):
    """After `kill -9` the jobs it had are ended by one command, those that had ended left alone."""
    killed_driver(cancel)
    wait_until(lambda: ended(cancel), "the end of the jobs")
    assert ended(cancel) == ["41", "43"]


def test_who_ends_its_jobs_itself_leaves_nothing_to_do(cancel):
    """A driver that ended all its jobs has no process beside it, and no job is ended twice."""
    undertaker = Undertaker([str(cancel)], os.environ)
    undertaker.watch("51")
    process = undertaker._process
    undertaker.forget(["51"])
    assert process.returncode == 0
    assert ended(cancel) == []


def test_the_next_burst_is_watched_too(cancel):
    """Jobs that come after all others had ended do not outlive the driver either."""
    undertaker = Undertaker([str(cancel)], os.environ)
    undertaker.watch("51")
    undertaker.forget(["51"])
    undertaker.watch("52")
    undertaker._process.communicate()  # as the kernel does when the driver is gone
    assert ended(cancel) == ["52"]


def test_a_batch_system_that_is_down_is_asked_again(cancel, monkeypatch):
    """What could not be ended is ended when the batch system answers again."""
    from hpcburst.jobs import undertaker

    monkeypatch.setattr(undertaker, "PAUSES_S", (0.01, 0.01))
    cancel.with_name("down").touch()
    undertaker.main([str(cancel)], iter(["+7\n"]))
    assert ended(cancel) == ["7"]
