"""Batch jobs of one task each, on the local queue and on every batch system's commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid

import pytest

from hpcburst.errors import Cancelled, RequestError, SubmitError
from hpcburst.placement import ONE_NODE, Placement, Spread
from hpcburst.policy.load import load_site
from hpcburst.pools import own_jobs
from hpcburst.pools.own_jobs import OwnJobs
from hpcburst.results import Fault
from hpcburst.tasks import Burst, Command, Needs
from support.fakescheduler import FLAVOURS, FakeScheduler
from support.processes import marked, wait_until

WITHIN_S = 30.0
MARK = "HPCBURST_TEST_MARK"
NOTHING_STATED = Needs()
QUEUE = {"cores": 4, "memory": "8GB", "walltime": "1h", "gpus": 2}


class Bench:
    """One batch system, and commands to run on it."""

    def __init__(self, folder, scheduler, fake=None):
        self.folder, self.fake, self.mark = folder, fake, uuid.uuid4().hex
        queues = {} if fake is None else {"queues": {"batch": QUEUE}}
        self.site = load_site(
            {
                "scheduler": scheduler,
                "shared-root": str(folder / "shared"),
                "status-interval": 0.5,
                **queues,
            }
        )
        self.jobs = OwnJobs(self.site, max_jobs=4)

    def launch(self, script, spread=ONE_NODE, needs=NOTHING_STATED, timeout_s=None, **environ):
        """A shell script as a job of its own; its future and its log."""
        log = self.folder / f"{uuid.uuid4().hex}.log"
        command = Command(
            ("/bin/sh", "-c", script),
            cwd=str(self.folder),
            environ={"PATH": os.environ["PATH"], MARK: self.mark, **environ},
            log=str(log),
        )
        return self.jobs.launch(Burst("rule", command, needs, timeout_s=timeout_s), spread), log

    @property
    def alive(self):
        return marked(f"{MARK}={self.mark}")


def bench(folder, scheduler, monkeypatch):
    if scheduler == "local":
        return Bench(folder, scheduler)
    fake = FakeScheduler(scheduler, folder / "batch")
    monkeypatch.setenv("PATH", fake.path)
    return Bench(folder, scheduler, fake)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Ends are looked for more often than a shared file system would like."""
    monkeypatch.setattr(own_jobs, "TICK_S", 0.05)


@pytest.fixture(params=["local", *FLAVOURS])
def anywhere(request, tmp_path, monkeypatch):
    """Each batch system."""
    made = bench(tmp_path, request.param, monkeypatch)
    yield made
    made.jobs.close()
    if made.fake:
        made.fake.close()


@pytest.fixture
def local(tmp_path, monkeypatch):
    """The local queue."""
    made = bench(tmp_path, "local", monkeypatch)
    yield made
    made.jobs.close()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Slurm's commands."""
    made = bench(tmp_path, "slurm", monkeypatch)
    yield made
    made.jobs.close()
    made.fake.close()


def test_a_command_runs_in_a_batch_job_of_its_own(anywhere):
    """It has its folder, environment and log; status, host, job and usage come home.

    Several nodes and processes are asked for in the words of each batch system.
    """
    asked = 'echo "$WORD in $PWD"; exit 3'
    one_node = anywhere.site.scheduler == "htcondor"
    spread = ONE_NODE if one_node else Spread(nodes=2, tasks=4)
    future, log = anywhere.launch(asked, spread, Needs(cores=2), WORD="it's $HOME")
    told = future.result(WITHIN_S)
    assert (told.failure.fault, told.returncode) == (Fault.NONZERO, 3)
    assert told.where.job_id
    assert told.where.host
    assert told.usage.wall_s > 0
    assert log.read_text() == f"it's $HOME in {anywhere.folder}\n"
    assert log.read_text() in told.failure.traceback


def test_a_job_that_ends_well_says_so(local):
    """Status 0 is success."""
    assert local.launch("true")[0].result(WITHIN_S).ok


def test_one_status_call_is_for_all_jobs(slurm):
    """However many jobs there are, the batch system is asked once an interval."""
    futures = [slurm.launch("while [ ! -e go ]; do sleep 0.1; done")[0] for _ in range(3)]
    wait_until(lambda: len(slurm.fake.job_ids) == 3, "three jobs")
    before = len([call for call in slurm.fake.calls if "squeue" in str(call)])
    wait_until(
        lambda: len([call for call in slurm.fake.calls if "squeue" in str(call)]) > before,
        "a status call",
    )
    (slurm.folder / "go").touch()
    assert all(future.result(WITHIN_S).ok for future in futures)


def test_a_job_that_is_withdrawn_is_ended(slurm):
    """Cancelling the future ends the job and every process of it."""
    future, _ = slurm.launch("touch begun; sleep 600")
    wait_until((slurm.folder / "begun").exists, "the begin of the job", within_s=WITHIN_S)
    future.cancel()
    wait_until(lambda: not slurm.alive, "the end of the job", within_s=WITHIN_S)


def test_closing_ends_all_jobs_and_refuses_more(local):
    """After close no process is left, who waits is told, and nothing secret stays on disk."""
    future, _ = local.launch("touch begun; sleep 600", OPEN_WITH="sesame")
    wait_until((local.folder / "begun").exists, "the begin of the job", within_s=WITHIN_S)
    local.jobs.close()
    with pytest.raises(Cancelled):
        future.result(0)
    wait_until(lambda: not local.alive, "the end of the job", within_s=WITHIN_S)
    with pytest.raises(Cancelled):
        local.launch("true")
    kept = [path for path in (local.folder / "shared").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"sesame" in path.read_bytes()]


def test_a_time_limit_is_kept_and_told(local):
    """A command that runs longer than it may is stopped, and that is what is said of it."""
    future, _ = local.launch("sleep 600", timeout_s=0.5)
    assert future.result(WITHIN_S).failure.fault is Fault.TIMEOUT


def test_a_job_that_vanishes_is_a_failure_with_a_reason(local, monkeypatch):
    """When a job ends and cannot tell how, its task fails; nobody waits for ever."""
    monkeypatch.setattr(own_jobs, "GRACE_S", 0.2)
    future, _ = local.launch("kill -9 $PPID; sleep 600")
    outcome = future.result(WITHIN_S)
    assert outcome.failure.fault is Fault.DIED
    assert "without a word" in outcome.failure.message
    wait_until(lambda: not local.alive, "the end of the job", within_s=WITHIN_S)


def test_a_refused_submission_is_told_in_the_batch_systems_words(slurm):
    """A job that is not taken fails with the reason, and the next one is submitted."""
    slurm.fake.refuse(1)
    with pytest.raises(SubmitError, match="closed for a moment"):
        slurm.launch("true")[0].result(WITHIN_S)
    assert slurm.launch("true")[0].result(WITHIN_S).ok


def test_what_a_batch_system_cannot_say_is_refused_before_anything_is_queued(slurm):
    """A constraint that is no constraint, or a queue that is not there, is told at once."""
    for needs in (Needs(placement=Placement(constraint="a; rm -rf /")), Needs(queue="nope")):
        with pytest.raises(RequestError):
            slurm.launch("true", needs=needs)
    assert not slurm.fake.job_ids
    assert slurm.launch("true")[0].result(WITHIN_S).ok


DRIVER = """
import json, sys
from hpcburst.placement import Spread
from hpcburst.policy.load import load_site
from hpcburst.pools import own_jobs
from hpcburst.pools.own_jobs import OwnJobs
from hpcburst.tasks import Burst, Command
own_jobs.HEARTBEAT_S = 0.2
folder, environ = sys.argv[1], json.loads(sys.argv[2])
jobs = OwnJobs(load_site({"shared-root": folder + "/shared"}), 1)
command = Command(("/bin/sh", "-c", "touch begun; sleep 600"), folder, environ)
jobs.launch(Burst("rule", command), Spread()).result()
"""


def test_a_job_ends_when_its_driver_is_gone(tmp_path):
    """After kill -9 of the driver its job does not hold the node for as long as it may."""
    mark = uuid.uuid4().hex
    environ = {"PATH": os.environ["PATH"], MARK: mark}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), json.dumps(environ)],
        cwd=tmp_path,
    ) as driver:
        wait_until((tmp_path / "begun").exists, "the begin of the job", within_s=WITHIN_S)
        driver.send_signal(signal.SIGKILL)
    wait_until(lambda: not marked(f"{MARK}={mark}"), "the end of the job", within_s=WITHIN_S)
