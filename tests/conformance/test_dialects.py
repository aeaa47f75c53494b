"""What every batch system must do for us, asked through its dialect: real jobs, real ends.

The embedded queue is real; the others are fakes made of commands on PATH, whose jobs are real.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import uuid

import pytest

from hpcburst.errors import SiteError, SubmitError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import JobState
from hpcburst.jobs.directives import with_section
from hpcburst.jobs.known import DIALECTS
from hpcburst.jobs.local import LocalDialect
from hpcburst.policy.present import detect
from hpcburst.tasks import Shape
from support.batchsystem import System, job_of
from support.fakescheduler import FLAVOURS, FakeScheduler
from support.processes import wait_until

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

NO_SUCH_JOB = str(2**30)


def local_system(tmp_path):
    """The embedded queue."""
    (tmp_path / "spool").mkdir()
    return System(LocalDialect(tmp_path / "spool"), tmp_path, uuid.uuid4().hex)


def fake_system(flavour, tmp_path, monkeypatch):
    """A fake, its commands on PATH."""
    fake = FakeScheduler(flavour, tmp_path / "batch")
    monkeypatch.setenv("PATH", fake.path)
    (tmp_path / "logs").mkdir()
    return System(DIALECTS[flavour](), tmp_path / "logs", uuid.uuid4().hex, fake)


@pytest.fixture(params=["local", *FLAVOURS])
def system(request, tmp_path, monkeypatch):
    """Each batch system; what a failed test leaves behind is ended."""
    local = request.param == "local"
    made = local_system(tmp_path) if local else fake_system(request.param, tmp_path, monkeypatch)
    yield made
    if made.fake is not None:
        made.fake.close()
    for pid in made.processes:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def embedded(tmp_path):
    """The embedded queue alone: what only it promises."""
    made = local_system(tmp_path)
    yield made
    for pid in made.processes:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=FLAVOURS)
def faulty(request, tmp_path, monkeypatch):
    """Each batch system whose commands can be made to fail."""
    made = fake_system(request.param, tmp_path, monkeypatch)
    with made.fake:
        yield made


def test_a_job_runs_and_its_output_is_in_its_log(system):
    """A submitted job runs; what it prints, on either stream, is in the log it was given."""
    job_id = system.submit("echo hello; echo oops >&2")
    system.await_end(job_id)
    assert sorted(system.log(job_id).read_text().split()) == ["hello", "oops"]
    assert not system.processes


def test_a_job_outlives_the_command_that_submitted_it(system):
    """A job goes on when its submitter is gone, without a terminal and without input."""
    job_id = system.submit("cat; echo input is over; exec sleep 60")
    system.await_text(system.log(job_id), "input is over")
    assert system.state(job_id) is JobState.RUNNING
    system.cancel(job_id)


def test_a_job_knows_its_own_id(system):
    """A job finds its id where the dialect says, so that a pilot can tell which job it is in."""
    variable = system.dialect.job_id_variable
    job_id = system.submit(f'echo "${{{variable or "NONE"}-}}"')
    system.await_end(job_id)
    assert system.log(job_id).read_text().strip() == (job_id if variable else "")


def test_states_of_many_jobs_are_one_command(system):
    """One call tells the states of all jobs asked about, of unknown ones too, and of no others."""
    ended, running = system.submit("true"), system.submit("exec sleep 60")
    system.await_end(ended)
    system.await_state(running, JobState.RUNNING)
    before = len(system.fake.calls) if system.fake else 0
    states = system.states(running, NO_SUCH_JOB, ended)
    assert list(states) == [running, NO_SUCH_JOB, ended]
    assert states[running] is JobState.RUNNING
    assert states[NO_SUCH_JOB] is JobState.UNKNOWN
    assert states[ended] is (JobState.UNKNOWN if system.forgets else JobState.ENDED)
    assert system.fake is None or len(system.fake.calls) == before + 1
    assert system.states() == {}
    system.cancel(running)


def test_a_cancelled_job_is_gone(system):
    """When jobs are cancelled, by one command, they end and none of their processes is left."""
    job_ids = [system.submit("sleep 60 & exec sleep 60") for _ in range(2)]
    for job_id in job_ids:
        system.await_state(job_id, JobState.RUNNING)
    wait_until(lambda: len(system.processes) >= 4, "both jobs at work")
    system.cancel(*job_ids)
    wait_until(lambda: not system.processes, "the end of all processes")
    for job_id in job_ids:
        system.await_end(job_id)


def test_cancelling_what_is_not_there_is_harmless(system):
    """A job that has ended, or never was, can be cancelled without an error."""
    ended = system.submit("true")
    system.await_end(ended)
    system.cancel(ended, NO_SUCH_JOB)
    system.cancel()


def test_a_job_ends_with_its_script(system):
    """What a job's script leaves in the background does not stay on the node."""
    job_id = system.submit("setsid sleep 60 & sleep 60 & exit 3")
    system.await_end(job_id)
    wait_until(lambda: not system.processes, "the end of all processes")


def test_a_job_is_told_and_ended_at_its_walltime(system):
    """At its walltime a job gets a signal it can act on, and then it is over."""
    if system.dialect.name in ("slurm", "lsf"):
        pytest.skip("keeps its walltimes in whole minutes")
    body = "trap 'echo told; exit 0' TERM; echo begun; while :; do sleep 0.1; done"
    job_id = system.submit(body, walltime_s=2)
    system.await_end(job_id)
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


def test_a_job_that_will_not_die_leaves_nothing(embedded):
    """Processes that ignore SIGTERM and flee into sessions of their own end with their job."""
    (embedded.folder / "stubborn.py").write_text(STUBBORN)
    job_id = embedded.submit(f"exec {sys.executable} {embedded.folder}/stubborn.py")
    wait_until(lambda: embedded.log(job_id).read_text().count("ready") == 2, "both processes")
    assert len(embedded.processes) >= 2
    embedded.cancel(job_id)
    wait_until(lambda: not embedded.processes, "the end of all processes")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_names_and_never_commands(tmp_path, name):
    """Any folder and file name works for scripts, logs and the queue's own files."""
    folder = tmp_path / name
    (folder / "spool").mkdir(parents=True)
    system = System(LocalDialect(folder / "spool"), folder, uuid.uuid4().hex)
    job_id = system.submit("echo hello", name=f"{name}.sh")
    system.await_state(job_id, JobState.ENDED)
    assert system.log(job_id).read_text() == "hello\n"
    assert not [path for path in tmp_path.iterdir() if path != folder]


def test_a_job_that_cannot_be_taken_is_refused_with_the_reason(embedded):
    """A refused submission fails at once and says why; no job and no process is left."""
    with pytest.raises(SubmitError, match=r"missing\.sh"):
        asyncio.run(probe.submit(embedded.dialect, str(embedded.folder / "missing.sh"), ""))
    nowhere = System(embedded.dialect, embedded.folder / "logs", embedded.mark)
    nowhere.folder.mkdir()
    text = nowhere.script("sleep 60", Shape()).replace("/logs/", "/no/folder/")
    script = nowhere.folder / "job.sh"
    script.write_text(text)
    with pytest.raises(SubmitError, match="No such file or directory"):
        asyncio.run(probe.submit(embedded.dialect, str(script), text))
    assert not embedded.processes


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


def test_a_command_that_hangs_is_an_answer(system, monkeypatch):
    """A scheduler command that never answers is ended and told of; nothing of it is left."""
    argv = ["sh", "-c", f"export HPCBURST_TEST_MARK={system.mark}; sleep 600 & wait"]
    monkeypatch.setattr(type(system.dialect), "states_argv", lambda *_: argv)
    monkeypatch.setattr(probe, "COMMAND_TIMEOUT_S", 0.2)
    with pytest.raises(SiteError, match=r"No answer within 0\.2 s"):
        system.state("1")
    assert not system.processes


# -- batch systems that do not behave -------------------------------------------------------


def test_a_refused_submission_says_why_and_the_next_one_works(faulty):
    """A batch system that takes no job for a while is told in its own words, and no job is left."""
    faulty.fake.refuse(2)
    for _ in range(2):
        with pytest.raises(SubmitError, match="closed for a moment"):
            faulty.submit("exec sleep 60")
    assert not faulty.fake.job_ids
    job_id = faulty.submit("exec sleep 60")
    faulty.await_state(job_id, JobState.RUNNING)


def test_a_bad_queue_is_refused_with_its_name(faulty):
    """The name of a queue that is not there is in the error of the submission."""
    if faulty.dialect.name == "htcondor":
        pytest.skip("has no queues")
    script = faulty.script("true", Shape(queue="nope"))
    path = faulty.folder / "bad.sh"
    path.write_text(script)
    with pytest.raises(SubmitError, match="nope"):
        asyncio.run(probe.submit(faulty.dialect, str(path), script))


def test_a_batch_system_that_is_down_loses_no_job(faulty):
    """While the batch system is away its jobs are not called gone; then all is known again."""
    job_id = faulty.submit("exec sleep 60")
    faulty.await_state(job_id, JobState.RUNNING)
    faulty.fake.be_down()
    with pytest.raises(SiteError):
        faulty.state(job_id)
    with pytest.raises(SiteError):
        faulty.cancel(job_id)
    faulty.fake.be_down(down=False)
    assert faulty.state(job_id) is JobState.RUNNING


def test_a_slow_batch_system_is_waited_for(faulty):
    """An answer that takes its time is an answer."""
    job_id = faulty.submit("exec sleep 60")
    faulty.await_state(job_id, JobState.RUNNING)
    faulty.fake.be_silent(1.0)
    assert faulty.state(job_id) is JobState.RUNNING


def test_banners_change_nothing(faulty):
    """A message of the day before every answer hides no job and makes none up."""
    faulty.fake.print_first("Welcome! 12 users, 87 % full\nLmod Warning: 3 | modules | are | old")
    job_id = faulty.submit("exec sleep 60")
    faulty.await_state(job_id, JobState.RUNNING)
    assert faulty.fake.job_ids == [re.match("[0-9]+", job_id)[0]]
    faulty.cancel(job_id)
    wait_until(lambda: not faulty.fake.alive, "the end of the job")


def test_a_waiting_job_is_told_as_waiting(faulty):
    """A job that waits in the queue is pending until it starts, and can be cancelled there."""
    faulty.fake.hold()
    first, second = faulty.submit("exec sleep 60"), faulty.submit("echo ran")
    assert faulty.state(first) is JobState.PENDING
    assert not faulty.news(first).host
    faulty.cancel(first)
    wait_until(lambda: len(faulty.fake.alive) == 1, "the end of the first")
    faulty.fake.let_go()
    faulty.await_end(second)
    assert faulty.log(second).read_text() == "ran\n"


def test_the_batch_system_is_found_by_its_commands(faulty):
    """Which batch system is here is known from its commands alone."""
    found = detect(
        faulty.fake.which,
        lambda argv: subprocess.run(argv, capture_output=True, text=True, check=False).stderr,
    )
    assert found == faulty.fake.flavour


@pytest.mark.parametrize(("cores", "gpus"), [(1, 0), (4, 2)])
def test_every_shape_is_taken(faulty, cores, gpus):
    """Jobs of every shape, nodes excluded, are accepted as they are written."""
    shape = Shape(cores=cores, memory_mb=1500, gpus=gpus, walltime_s=90, queue="batch")
    options = faulty.dialect.job_options(shape, str(faulty.folder), ["n1", "n2"])
    job = job_of(faulty.dialect, shape, with_section(options, {}), python="exec true #")
    path = faulty.folder / "job.sh"
    path.write_text(job.job_script())
    faulty.await_end(asyncio.run(probe.submit(faulty.dialect, str(path), job.job_script())))
