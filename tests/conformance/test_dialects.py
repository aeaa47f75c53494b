"""What every batch system must do for us, asked through its dialect: real jobs, real ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcburst.errors import SiteError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect, JobState
from hpcburst.jobs.local import LocalDialect
from hpcburst.tasks import Shape
from support.processes import marked, wait_until

HOSTILE = [
    "two words",
    'it\'s "quoted"',
    "$HOME `id` $(id)",
    "semi;colon&|<>*?",
    "line\nbreak",
    "%j%s",
    "-n",
]
"""Names that a shell, a template or an option parser would read as more than a name."""


@dataclass
class System:
    """A batch system, spoken to as the fleet speaks to it.

    Attributes:
        dialect: The dialect under test.
        folder: Where scripts and logs go.
        mark: Is in the environment of every process of every job.
    """

    dialect: Dialect
    folder: Path
    mark: str

    def submit(self, body, *, walltime_s=60, log="%j.log", name="job.sh"):
        """Submit a job whose script is `body`; returns its id."""
        header = self.dialect.header(Shape(walltime_s=walltime_s), str(self.folder / log))
        script = self.folder / name
        script.write_text("\n".join(["#!/bin/sh", *header, textwrap.dedent(body)]))
        done = self.submit_script(script)
        assert done.returncode == 0, done.stderr
        script.unlink()  # the batch system keeps a copy of its own
        return re.search(r"\d+", done.stdout)[0]

    def submit_script(self, script):
        """Run the submit command."""
        environ = {**os.environ, "HPCBURST_TEST_MARK": self.mark}
        argv = [*self.dialect.submit_argv(), str(script)]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=False, env=environ
        )

    def states(self, *job_ids):
        """The states of some jobs, by one command."""
        return asyncio.run(probe.states(self.dialect, job_ids))

    def state(self, job_id):
        """The state of one job."""
        return self.states(job_id)[job_id]

    def cancel(self, *job_ids):
        """End some jobs, by one command."""
        asyncio.run(probe.cancel(self.dialect, job_ids))

    def await_state(self, job_id, state, within_s=30):
        """Wait until a job is in a state."""
        wait_until(lambda: self.state(job_id) is state, f"job {job_id} {state}", within_s)

    def await_text(self, path, text):
        """Wait until a file holds a text."""
        wait_until(lambda: path.exists() and text in path.read_text(), f"{text!r} in {path}")

    def log(self, job_id):
        """The log of a job."""
        return self.folder / f"{job_id}.log"

    @property
    def processes(self):
        """Live processes of all its jobs."""
        return marked(f"HPCBURST_TEST_MARK={self.mark}")


@pytest.fixture(params=[LocalDialect])
def system(request, tmp_path):
    """Each batch system; what a failed test leaves behind is ended."""
    (tmp_path / "spool").mkdir()
    system = System(request.param(tmp_path / "spool"), tmp_path, uuid.uuid4().hex)
    yield system
    for pid in system.processes:
        os.kill(pid, signal.SIGKILL)


def test_a_job_runs_and_its_output_is_in_its_log(system):
    """A submitted job runs; what it prints, on either stream, is in the log it was given."""
    job_id = system.submit("echo hello; echo oops >&2")
    system.await_state(job_id, JobState.ENDED)
    assert sorted(system.log(job_id).read_text().split()) == ["hello", "oops"]
    assert not system.processes


def test_a_job_outlives_the_command_that_submitted_it(system):
    """A job goes on when its submitter is gone, without a terminal and without input."""
    job_id = system.submit("cat; echo input is over; exec sleep 60")
    system.await_text(system.log(job_id), "input is over")
    assert system.state(job_id) is JobState.RUNNING
    system.cancel(job_id)


def test_states_of_many_jobs_are_one_command(system):
    """One call tells the states of all jobs asked about, of unknown ones too, and of no others."""
    ended, running = system.submit("true"), system.submit("exec sleep 60")
    system.await_state(ended, JobState.ENDED)
    system.await_state(running, JobState.RUNNING)
    unknown = str(2**30)
    assert system.states(running, unknown, ended) == {
        running: JobState.RUNNING,
        unknown: JobState.UNKNOWN,
        ended: JobState.ENDED,
    }
    assert system.states() == {}
    system.cancel(running)


@pytest.mark.parametrize("text", ["", "garbage", "no such job\n\n1 2 3\n", "7 exploding"])
def test_any_answer_is_read_as_states(system, text):
    """Whatever a status command prints, every id that was asked about has a state."""
    assert system.dialect.read_states(text, ["7", "8"]) == dict.fromkeys("78", JobState.UNKNOWN)


def test_a_cancelled_job_is_gone(system):
    """When cancelling returns, the job has ended and none of its processes is left."""
    job_ids = [system.submit("sleep 60 & exec sleep 60") for _ in range(2)]
    for job_id in job_ids:
        system.await_state(job_id, JobState.RUNNING)
    wait_until(lambda: len(system.processes) >= 4, "both jobs at work")
    system.cancel(*job_ids)
    wait_until(lambda: not system.processes, "the end of all processes")
    assert set(system.states(*job_ids).values()) == {JobState.ENDED}


def test_cancelling_what_is_not_there_is_harmless(system):
    """A job that has ended, or never was, can be cancelled without an error."""
    ended = system.submit("true")
    system.await_state(ended, JobState.ENDED)
    system.cancel(ended, str(2**30))
    system.cancel()


def test_a_job_ends_with_its_script(system):
    """What a job's script leaves in the background does not stay on the node."""
    job_id = system.submit("setsid sleep 60 & sleep 60 & exit 3")
    system.await_state(job_id, JobState.ENDED)
    wait_until(lambda: not system.processes, "the end of all processes")


def test_a_job_is_told_and_ended_at_its_walltime(system):
    """At its walltime a job gets a signal it can act on, and then it is over."""
    body = "trap 'echo told; exit 0' TERM; echo begun; while :; do sleep 0.1; done"
    job_id = system.submit(body, walltime_s=2)
    system.await_state(job_id, JobState.ENDED)
    wait_until(lambda: not system.processes, "the end of all processes")
    log = system.log(job_id).read_text()
    assert log.startswith("begun")
    assert log.endswith("told\n")


STUBBORN = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_job_that_will_not_die_leaves_nothing(system):
    """Processes that ignore SIGTERM and flee into sessions of their own end with their job."""
    (system.folder / "stubborn.py").write_text(STUBBORN)
    job_id = system.submit(f"exec {sys.executable} {system.folder}/stubborn.py")
    wait_until(lambda: system.log(job_id).read_text().count("ready") == 2, "both processes")
    assert len(system.processes) >= 2
    system.cancel(job_id)
    wait_until(lambda: not system.processes, "the end of all processes")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_names_and_never_commands(request, tmp_path, name):
    """Any folder and file name works for scripts, logs and the queue's own files."""
    folder = tmp_path / name
    (folder / "spool").mkdir(parents=True)
    system = System(LocalDialect(folder / "spool"), folder, uuid.uuid4().hex)
    job_id = system.submit("echo hello", name=f"{name}.sh")
    system.await_state(job_id, JobState.ENDED)
    assert system.log(job_id).read_text() == "hello\n"
    assert not [path for path in tmp_path.iterdir() if path != folder]


def test_a_job_that_cannot_be_taken_is_refused_with_the_reason(system):
    """A refused submission fails at once and says why; no job and no process is left."""
    missing = system.submit_script(system.folder / "missing.sh")
    assert missing.returncode != 0
    assert "missing.sh" in missing.stderr
    script = system.folder / "job.sh"
    header = system.dialect.header(Shape(), str(system.folder / "no" / "folder" / "%j.log"))
    script.write_text("\n".join(["#!/bin/sh", *header, "sleep 60"]))
    lost = system.submit_script(script)
    assert lost.returncode != 0
    assert "No such file or directory" in lost.stderr
    assert not system.processes


def test_a_command_that_is_not_there_is_an_answer(system, monkeypatch):
    """A missing scheduler command is told by its name, not as a traceback."""
    monkeypatch.setattr(type(system.dialect), "states_argv", lambda *_: ["no-such-squeue"])
    with pytest.raises(SiteError, match="no-such-squeue"):
        system.state("1")


def test_a_command_that_fails_is_an_answer(system, monkeypatch):
    """A scheduler command that fails is told with its own last words."""
    argv = ["sh", "-c", "echo slurmctld is away >&2; exit 7"]
    monkeypatch.setattr(type(system.dialect), "states_argv", lambda *_: argv)
    with pytest.raises(SiteError, match=r"status 7[\s\S]*slurmctld is away"):
        system.state("1")
