"""Whole bursts on the local queue: real jobs and pilots, real deaths, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client
from distributed.security import Security

from hpcburst import BurstCluster
from hpcburst.comms.credentials import Credentials
from hpcburst.comms.staging import private_folder, sweep_runs
from hpcburst.errors import Cancelled, PilotLost, RequestError
from hpcburst.policy.load import load_site
from hpcburst.policy.model import Paths
from hpcburst.pools.planner import Phase
from hpcburst.results import Fault
from hpcburst.tasks import Burst, Command, Needs, Shape
from support.processes import marked, ours, wait_until

WAIT_S = 90.0
"""For what takes two seconds on a quiet machine."""

QUEUES = {"local": {"cores": 4, "memory": "8GB", "walltime": "1h", "total-cores": 4}}
"""A machine of four small cores, whatever this one is."""

HOSTILE = 'it\'s a "root" of $HOME `id` %j %s'
"""A folder name that a shell, a job script or a template would read as more than a name."""


def _site(folder, **more):
    roots = {"shared-root": str(folder / "shared"), "node-root": str(folder / "node")}
    return {**roots, "queues": QUEUES, "pilot": {"memory": "1GB"}, **more}


def _burst(*argv, mark="", **needs):
    environ = {**os.environ, "HPCBURST_TEST_MARK": mark}
    return Burst(argv[-1][:40], Command(argv, "/", environ), Needs(**needs))


def _shell(text, **more):
    return _burst("sh", "-c", text, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the module's cluster."""
    folder = tmp_path_factory.mktemp("cluster") / HOSTILE
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def warm(folder):
    """Up to two pilots, in folders with hostile names, that stay from test to test."""
    site = load_site(_site(folder, **{"idle-timeout": "5m"}))
    literal = Paths(folder / "shared", folder / "node")  # the config would fill in "$HOME"
    with BurstCluster(max_jobs=2, site=replace(site, paths=literal)) as cluster:
        yield cluster


@pytest.fixture
def launch(warm):
    """Launches tasks on the module's pilots; what a test leaves running is cancelled."""
    futures = []

    def launch(*args):
        futures.append(warm.launch(*args))
        return futures[-1]

    yield launch
    for future in futures:
        future.cancel()


@pytest.fixture
def mark():
    """Is in the environment of what a test starts; what a failed test leaves is ended."""
    mark = uuid.uuid4().hex
    yield mark
    for pid in marked(f"HPCBURST_TEST_MARK={mark}"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _alive(mark):
    return marked(f"HPCBURST_TEST_MARK={mark}")


def _pilots(cluster):
    return {
        pid: command
        for pid, command in ours(str(cluster.run_folder)).items()
        if "hpcburst.workers.pilot" in command
    }


# -- work ------------------------------------------------------------------------------------


def test_a_burst_of_commands_runs_on_a_few_pilots(launch):
    """Many commands run to their end on the pilots there are; each outcome says where it ran."""
    outcomes = [future.result(WAIT_S) for future in [launch(_burst("true")) for _ in range(64)]]
    assert all(outcome.ok and outcome.returncode == 0 for outcome in outcomes)
    assert 1 <= len({outcome.where.pilot for outcome in outcomes}) <= 2
    for outcome in outcomes:
        assert outcome.where.job_id
        assert Path(outcome.where.log).is_file()


def test_the_first_result_does_not_wait_for_the_last(launch):
    """A short task's result is there while long ones still run."""
    long = [launch(_burst("sleep", "600")) for _ in range(2)]
    short = launch(_burst("true"))
    long[0].cancel()
    done, _ = wait([short, long[1]], timeout=WAIT_S, return_when=FIRST_COMPLETED)
    assert done == {short}


def test_what_a_command_prints_comes_home_while_it_runs(launch):
    """Output arrives line by line before the command has ended, and again with its outcome."""
    heard = []
    burst = _shell("echo first; echo second >&2; exec sleep 600")
    future = launch(burst, lambda lines: heard.extend(line.text for line in lines))
    wait_until(lambda: len(heard) == 2, "the output", WAIT_S)
    assert set(heard) == {"first", "second"}  # two pipes: which is read first is not promised
    assert not future.done()


def test_a_failed_command_is_a_failure_with_its_status(launch):
    """A command that ends badly is told with its exit status or its signal."""
    failed = launch(_shell("exit 3")).result(WAIT_S)
    killed = launch(_shell("kill -9 $$")).result(WAIT_S)
    absent = launch(_burst("no-such-program")).result(WAIT_S)
    assert (failed.returncode, failed.failure.fault) == (3, Fault.NONZERO)
    assert (killed.failure.fault, killed.failure.kind) == (Fault.DIED, "SIGKILL")
    assert "no-such-program" in absent.failure.message


def test_a_cancelled_command_leaves_no_process(launch, mark):
    """Cancelling a running task's future ends its processes, also those that ignore SIGTERM."""
    future = launch(_shell("trap '' TERM; sleep 600 & sleep 600", mark=mark))
    wait_until(lambda: len(_alive(mark)) >= 3, "the command at work", WAIT_S)
    future.cancel()
    wait_until(lambda: not _alive(mark), "the end of its processes", WAIT_S)


def test_a_command_cancelled_at_once_does_not_run_on(launch, mark):
    """A task cancelled in the moment it is handed to a pilot does not hold that pilot."""
    for _ in range(20):
        launch(_burst("sleep", "600", mark=mark)).cancel()
    assert launch(_burst("true", cores=1)).result(WAIT_S).ok
    wait_until(lambda: not _alive(mark), "the end of its processes", WAIT_S)


def test_a_command_over_its_time_is_stopped(launch, mark):
    """A task that runs longer than it may is stopped, and told as a time-out."""
    burst = replace(_shell("sleep 600 & sleep 600", mark=mark), timeout_s=0.3)
    outcome = launch(burst).result(WAIT_S)
    assert outcome.failure.fault is Fault.TIMEOUT
    wait_until(lambda: not _alive(mark), "the end of its processes", WAIT_S)


@pytest.mark.parametrize(
    "asked",
    [{"memory_mb": 10**6}, {"cores": 5}, {"gpus": 1}, {"walltime_s": 1e6}, {"queue": "far"}],
)
def test_what_no_queue_can_give_is_refused_at_once(warm, asked):
    """A task that asks for more than any queue has is refused when it is launched."""
    with pytest.raises(RequestError):
        warm.launch(_burst("true", **asked))


def test_plain_dask_works_and_pilots_come_for_it(tmp_path):
    """A Dask client on the cluster is all plain Dask needs: pilots come for its tasks."""
    with (
        BurstCluster(max_jobs=2, site=_site(tmp_path, **{"idle-timeout": "1s"})) as cluster,
        Client(cluster) as client,
    ):
        assert not cluster.plan
        assert client.submit(sum, [1, 2]).result(WAIT_S) == 3
        assert client.gather(client.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert cluster.observed
        assert "BurstCluster" in repr(cluster)
        wait_until(lambda: not cluster.plan, "the leave of all pilots", WAIT_S)


def test_held_pilots_stay_and_idle_ones_leave(tmp_path, mark):
    """`scale(1)` holds one pilot without work; let go, it leaves, and with it every process."""
    with BurstCluster(max_jobs=2, site=_site(tmp_path, **{"idle-timeout": "1s"})) as cluster:
        cluster.scale(1)
        futures = [cluster.launch(_burst("sleep", "1")) for _ in range(2)]
        assert all(future.result(WAIT_S).ok for future in futures)
        wait_until(lambda: len(_pilots(cluster)) == 1, "the leave of the one not held", WAIT_S)
        (held,) = _pilots(cluster)
        assert len(cluster.plan) == 1
        cluster.scale(0)
        wait_until(lambda: not cluster.plan, "the leave of the other", WAIT_S)
        wait_until(lambda: not ours(str(cluster.run_folder)), "the end of all processes", WAIT_S)
        assert held not in _pilots(cluster)
        assert list((tmp_path / "node").iterdir()) == []
    report = (cluster.run_folder / "report.txt").read_text()
    assert "2 tasks (0 failed)" in report


def test_two_shapes_work_at_once(tmp_path):
    """Pilots of two shapes serve one burst, each the tasks it holds."""
    shapes = [{"cores": 1, "memory": "1GB"}, Shape(cores=2, memory_mb=2000)]
    with BurstCluster(shapes=shapes, site=_site(tmp_path)) as cluster:
        meet = tmp_path / "meet"
        meet.mkdir()
        # Each waits for the other: they end only if both run at once.
        text = f"touch '{meet}'/$0; while [ $(ls '{meet}' | wc -l) -lt 2 ]; do sleep 0.05; done"
        small = cluster.launch(_burst("sh", "-c", text, "small"))
        large = cluster.launch(_burst("sh", "-c", text, "large", cores=2))
        outcomes = [small.result(WAIT_S), large.result(WAIT_S)]
        assert all(outcome.ok for outcome in outcomes)
        cores = [cluster.record.pilots[o.where.pilot].shape.cores for o in outcomes]
        assert cores == [1, 2]
        with pytest.raises(RequestError, match="shapes"):
            cluster.launch(_burst("true", cores=3))


@pytest.mark.parametrize(
    "shape", [{"cores": 0}, {"cores": 99}, {"queue": "far"}, {"memory": "9TB"}]
)
def test_a_shape_that_cannot_be_is_refused_at_the_start(tmp_path, shape):
    """A shape no queue takes is refused when the cluster is made, not waited for."""
    with pytest.raises(RequestError):
        BurstCluster(shapes=[shape], site=_site(tmp_path))
    assert not (tmp_path / "shared").exists()


def test_the_sites_limit_on_jobs_is_never_exceeded(tmp_path):
    """`max_jobs` and `adapt` take as much as the site allows, never more."""
    with BurstCluster(max_jobs=50, site=_site(tmp_path, **{"max-jobs": 3})) as cluster:
        assert cluster.site.limits.max_jobs == 3
        cluster.adapt(maximum=40)
        assert cluster.site.limits.max_jobs == 3


def test_a_cluster_works_inside_an_event_loop(tmp_path):
    """`async with BurstCluster(asynchronous=True)` is a cluster as well."""

    async def burst():
        async with BurstCluster(asynchronous=True, site=_site(tmp_path)) as cluster:
            future = cluster.launch(_burst("true"))
            return await asyncio.wait_for(asyncio.wrap_future(future), WAIT_S), cluster.run_folder

    outcome, run_folder = asyncio.run(burst())
    assert outcome.ok
    assert not (run_folder / "secret").exists()


def test_a_closed_cluster_refuses_tasks_and_closes_again(tmp_path):
    """After its end a cluster has an answer for every task, and closing it twice is harmless."""
    with BurstCluster(site=_site(tmp_path)) as cluster:
        waiting = cluster.launch(_burst("sleep", "600"))
    cluster.close()
    assert isinstance(waiting.exception(WAIT_S), Cancelled)
    assert isinstance(cluster.launch(_burst("true")).exception(WAIT_S), Cancelled)


# -- lost pilots -----------------------------------------------------------------------------

KILL_PILOT = "kill -9 $PPID; exec sleep 600"


def test_a_task_whose_pilot_is_killed_ends_well_on_another(tmp_path, mark):
    """A pilot killed under a task costs a second way, nothing else; nothing of the first stays."""
    flag = tmp_path / "flag"
    text = f"if [ -e '{flag}' ]; then echo again; else touch '{flag}'; {KILL_PILOT}; fi"
    with BurstCluster(max_jobs=1, site=_site(tmp_path)) as cluster:
        outcome = cluster.launch(_shell(text, mark=mark)).result(WAIT_S)
        assert outcome.ok
        assert outcome.sends == 2
        assert [line.text for line in outcome.lines] == ["again"]
        wait_until(lambda: not _alive(mark), "the end of the first attempt", WAIT_S)


@pytest.mark.parametrize("last_words", ["kill -9 $$", "exit 3"])
def test_who_ends_a_job_does_not_fail_its_tasks(tmp_path, mark, last_words):
    """Ending a job signals all its processes; that a body hears it first is not its fault."""
    pids = tmp_path / "pids"
    begin = f"trap '{last_words}' TERM; echo $$ $PPID > '{pids}.new'; mv '{pids}.new' '{pids}'"
    text = f"if [ -e '{pids}' ]; then echo again; else {begin}; while :; do sleep 0.01; done; fi"
    with BurstCluster(max_jobs=1, site=_site(tmp_path)) as cluster:
        future = cluster.launch(_shell(text, mark=mark))
        wait_until(pids.exists, "the body at work", WAIT_S)
        body, pilot = map(int, pids.read_text().split())
        os.kill(body, signal.SIGTERM)
        time.sleep(0.05)  # a batch system's signals come one after the other
        os.kill(pilot, signal.SIGTERM)
        outcome = future.result(WAIT_S)
        assert outcome.ok, outcome.failure
        assert outcome.sends == 2


def test_a_pilot_that_is_warned_takes_no_more_tasks(tmp_path, mark):
    """At the warning signal a pilot ends what it runs, and what comes later goes to another."""
    with BurstCluster(max_jobs=1, site=_site(tmp_path)) as cluster:
        pids = tmp_path / "pids"
        begin = f"echo $PPID > '{pids}.new'; mv '{pids}.new' '{pids}'"
        text = f"{begin}; while [ ! -e '{tmp_path}/go' ]; do sleep 0.01; done"
        first = cluster.launch(_shell(text, mark=mark))
        wait_until(pids.exists, "the first task at work", WAIT_S)
        (pilot,) = cluster._keeper.pilots
        os.kill(int(pids.read_text()), signal.SIGUSR1)
        wait_until(lambda: pilot.phase is Phase.DRAINING, "the warning", WAIT_S)
        second = cluster.launch(_shell("true", mark=mark))
        (tmp_path / "go").touch()
        outcomes = [future.result(WAIT_S) for future in (first, second)]
        assert [outcome.sends for outcome in outcomes] == [1, 1]
        assert outcomes[0].where.pilot != outcomes[1].where.pilot


def test_a_task_that_always_kills_its_pilot_is_given_up(tmp_path, mark):
    """A task that takes down every pilot ends with PilotLost and the job to look at."""
    site = load_site(_site(tmp_path))
    site = replace(site, limits=replace(site.limits, max_sends=2))
    with BurstCluster(max_jobs=1, site=site) as cluster:
        error = cluster.launch(_shell(KILL_PILOT, mark=mark)).exception(WAIT_S)
        assert isinstance(error, PilotLost)
        assert Path(error.log).is_file()
        assert str(error.job_id) in str(error)
        wait_until(lambda: not _alive(mark), "the end of all attempts", WAIT_S)


# -- strangers -------------------------------------------------------------------------------


def _sockets(pid):
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            match = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
            found |= {match[1]} if match else set()
    return found


def _listening(pid):
    """Addresses that a process listens on, as /proc/net writes them, with the port."""
    mine, found = _sockets(pid), []
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        for local, state, inode in ((row.split()[i] for i in (1, 3, 9)) for row in rows):
            if state == "0A" and inode in mine:
                address, port = local.split(":")
                found.append((address, int(port, 16)))
    return found


def test_nothing_listens_beyond_this_machine(warm, launch):
    """Driver and pilots listen on the loopback address only, each on one port."""
    assert launch(_burst("true")).result(WAIT_S).ok
    pilots = _pilots(warm)
    assert pilots
    for pid in (os.getpid(), *pilots):
        listening = _listening(pid)
        assert [address for address, _ in listening] == ["0100007F"] * len(listening)
        assert listening
    for pid in pilots:
        assert len(_listening(pid)) == 1


def _with_nothing(_):
    return Security(require_encryption=True)


def _with_another_runs(folder):
    return Credentials.make(private_folder(folder / "another")).security()


async def _connect(address, security):
    async with Client(address, security=security, timeout=2, asynchronous=True) as client:
        return await client.submit(sum, [1, 2])


@pytest.mark.parametrize("credentials", [_with_nothing, _with_another_runs])
def test_a_client_without_the_certificate_is_refused(warm, tmp_path, credentials):
    """Who knows the address but has not the run's certificate cannot connect."""
    assert asyncio.run(_connect(warm.scheduler_address, warm.security)) == 3
    with pytest.raises((OSError, TypeError)):
        asyncio.run(_connect(warm.scheduler_address, credentials(tmp_path)))


def test_a_plain_connection_is_refused(warm):
    """Without TLS nobody is listened to, whatever the client's settings."""
    assert warm.scheduler_address.startswith("tls://127.0.0.1:")
    with pytest.raises(OSError):
        asyncio.run(_connect(warm.scheduler_address.replace("tls://", "tcp://"), None))


def test_what_a_run_writes_is_closed_to_others(warm, launch, folder):
    """Every folder of a run is 0700; every file in its secret folder and every log is 0600."""
    assert launch(_burst("true")).result(WAIT_S).ok
    shared, run = folder / "shared", warm.run_folder
    for path in (shared, shared / "runs", run, run / "logs", run / "secret"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    files = [path for path in (run / "secret").iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"tls.crt", "tls.key"}
    for path in (*files, *(run / "logs").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (folder / "node").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_no_secret_is_in_a_command_line_or_job_script(warm, launch):
    """What `ps` and the batch system show of a job names the key's file, and holds no key."""
    assert launch(_burst("true")).result(WAIT_S).ok
    secret = warm.run_folder / "secret"
    lines = (secret / "tls.key").read_text().splitlines()[1:-1]
    shown = [warm.job_script(), *ours(str(warm.run_folder)).values()]
    shown += [path.read_text() for path in (secret / "spool").glob("*.sh")]
    shown += [path.read_text() for path in (warm.run_folder / "logs").iterdir()]
    assert len(shown) > 3
    assert not [text for text in shown if any(line in text for line in lines)]
    assert not list(secret.glob("*.sh"))


# -- a driver's end --------------------------------------------------------------------------

DRIVER = """\
import os, sys
from hpcburst import BurstCluster
from hpcburst.tasks import Burst, Command

shared, node = sys.argv[1:]
site = {"shared-root": shared, "node-root": node, "pilot": {"memory": "500MB"}}
site["queues"] = {"local": {"cores": 4, "memory": "8GB", "walltime": "1h"}}
work = Command(("sh", "-c", "echo up; sleep 600 & sleep 600"), "/", dict(os.environ))
with BurstCluster(max_jobs=2, site=site) as cluster:
    tell = lambda lines: print("at work", flush=True)
    futures = [cluster.launch(Burst("sleeper", work), tell) for _ in range(5)]
    print(futures[0].result())
"""


@pytest.fixture
def driver(tmp_path, mark):
    """A driver in a process of its own, with two pilots at work and three tasks waiting."""
    (tmp_path / "driver.py").write_text(DRIVER)
    argv = [sys.executable, "driver.py", tmp_path / "shared", tmp_path / "node"]
    environ = {**os.environ, "HPCBURST_TEST_MARK": mark}
    process = subprocess.Popen(
        argv, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        for _ in range(2):
            assert process.stdout.readline() == "at work\n", process.stderr.read()
        yield process
        process.kill()


def test_a_killed_driver_leaves_nothing_behind(driver, tmp_path, mark):
    """After `kill -9` of a driver no process, job or folder is left, and its secrets are swept."""
    assert len(_alive(mark)) > 5
    driver.send_signal(signal.SIGKILL)
    driver.wait(WAIT_S)
    wait_until(lambda: not _alive(mark), "the end of all processes", WAIT_S)
    assert list((tmp_path / "node").iterdir()) == []
    (secret,) = (tmp_path / "shared" / "runs").glob("*/secret")
    sweep_runs(tmp_path / "shared", keep_days=1)
    assert not secret.exists()


def test_an_interrupted_driver_leaves_nothing_behind(driver, tmp_path, mark):
    """After Ctrl-C no process, job, folder on the node or secret is left; the report is there."""
    driver.send_signal(signal.SIGINT)
    _, complaints = driver.communicate(timeout=WAIT_S)
    assert driver.returncode != 0
    assert "KeyboardInterrupt" in complaints
    wait_until(lambda: not _alive(mark), "the end of all processes", WAIT_S)
    assert list((tmp_path / "node").iterdir()) == []
    (run,) = (tmp_path / "shared" / "runs").iterdir()
    assert not (run / "secret").exists()
    assert (run / "report.txt").exists()


def test_a_cluster_nobody_closes_ends_with_its_process(tmp_path, mark):
    """A script that forgets to close its cluster leaves nothing behind either."""
    script = (
        "import sys; from hpcburst import BurstCluster; from hpcburst.tasks import *; "
        "site = {'shared-root': sys.argv[1], 'node-root': sys.argv[2]}; "
        "cluster = BurstCluster(max_jobs=1, site=site); "
        "print(cluster.launch(Burst('t', Command(('true',), '/', {}))).result().ok)"
    )
    argv = [sys.executable, "-c", script, tmp_path / "shared", tmp_path / "node"]
    environ = {**os.environ, "HPCBURST_TEST_MARK": mark}
    begun = time.monotonic()
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environ, timeout=WAIT_S, check=False
    )
    assert done.stdout == "True\n", done.stderr
    assert time.monotonic() - begun < WAIT_S
    wait_until(lambda: not _alive(mark), "the end of all processes", WAIT_S)
    assert not list((tmp_path / "shared" / "runs").glob("*/secret"))
    assert list((tmp_path / "node").iterdir()) == []
