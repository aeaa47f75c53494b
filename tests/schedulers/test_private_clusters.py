"""The private batch systems themselves: what the other tests here, and people, may rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from support.clusters import loopback
from support.clusters.cluster import PrivateCluster, Size
from support.clusters.errors import CannotHave, ClusterError
from support.clusters.held import held
from support.clusters.packages import obstacle, require
from support.clusters.processes import alive, end
from support.clusters.sge import Sge
from support.clusters.sge_settings import changed
from support.clusters.slurm import Slurm
from support.clusters.slurm_conf import Installation, configuration
from support.processes import marked, wait_until

pytestmark = pytest.mark.long

TESTS = Path(__file__).parents[1]
SMALL = Size(nodes=2)
START_S = 20.0

HOLDER = """
import sys
from pathlib import Path
from support.clusters import loopback
from support.clusters.cluster import Size
from support.clusters.held import held
from support.clusters.{kind} import {name}
with held({name}, Path({folder!r}), Size(nodes=1)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["slurm", "sge"])
def system(request: pytest.FixtureRequest) -> Iterator[PrivateCluster]:
    """Each of the session's batch systems, as new again afterwards."""
    cluster: PrivateCluster = request.getfixturevalue(request.param)
    yield cluster
    cluster.reset()


@pytest.fixture(params=[Slurm, Sge], ids=["slurm", "sge"])
def kind(request: pytest.FixtureRequest) -> type[PrivateCluster]:
    """A kind of batch system that can be had here, for tests that start their own."""
    kind: type[PrivateCluster] = request.param
    if reason := kind.obstacle():
        pytest.skip(reason)
    return kind


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path."""
    return tmp_path_factory.mktemp("own")


def listening(pids: set[int]) -> dict[str, set[int]]:
    """The ports that these processes listen on, by address."""
    found: dict[str, set[int]] = {}
    for socket in psutil.net_connections("inet"):
        if socket.status == psutil.CONN_LISTEN and socket.pid in pids:
            found.setdefault(socket.laddr.ip, set()).add(socket.laddr.port)
    return found


def listening_now() -> set[int]:
    """The ports that anything on this machine listens on."""
    sockets = psutil.net_connections("inet")
    return {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN}


def pids(cluster: PrivateCluster) -> set[int]:
    """All processes of a cluster."""
    return {process.pid for process in cluster.processes()}


def ended(cluster: PrivateCluster, job_id: str) -> Callable[[], bool]:
    """Whether the cluster has no such job any more."""
    return lambda: cluster.job(job_id) is None


def test_up_twice_is_one_cluster(system: PrivateCluster) -> None:
    """Starting a cluster that runs leaves it, and its jobs, as they are."""
    (job,) = system.fill("n1")
    before = pids(system)
    assert not system.up(Size(nodes=3))
    assert pids(system) >= before
    assert system.all_running([job])


def test_all_nodes_are_idle(slurm: Slurm, sge: Sge) -> None:
    """A new cluster has all its nodes, ready for jobs."""
    assert slurm.nodes() == dict.fromkeys([f"n{number}" for number in range(1, 9)], "idle")
    assert sge.nodes() == dict.fromkeys(["n1", "n2", "n3", "n4"], "idle")


def test_a_job_runs(system: PrivateCluster, tmp_path: Path) -> None:
    """A submitted script runs on a node, and is gone from the list when it has ended."""
    answer = tmp_path / "answer"
    job = system.submit(f"#!/bin/sh\necho ran > {answer}\n", "-o", "/dev/null")
    wait_until(ended(system, job), "the end of the job")
    assert answer.read_text() == "ran\n"


def test_jobs_are_listed_with_their_state(system: PrivateCluster) -> None:
    """The list tells name, state and node of running jobs, and which ones wait."""
    filled = system.fill(*system.nodes())
    waiting = system.submit("#!/bin/sh\n", *(["-N"] if system.kind == "sge" else ["-J"]), "later")
    jobs = {job.id: job for job in system.jobs()}
    assert {jobs[one].node for one in filled} == set(system.nodes())
    assert {jobs[one].name for one in filled} == {"fill"}
    assert (jobs[waiting].name, jobs[waiting].state, jobs[waiting].node) == ("later", "pending", "")
    system.cancel(*filled)
    wait_until(ended(system, waiting), "the turn of the job that waited")


def test_partitions(slurm: Slurm) -> None:
    """Slurm has a short, a default, and two preemptible partitions over all nodes."""
    told = slurm.run("sinfo", "-h", "-o", "%P %l %D")
    assert told.splitlines() == [
        "short 10:00 8",
        "batch* 1-00:00:00 8",
        "scavenge 1:00:00 8",
        "cancelme 1:00:00 8",
    ]


def test_queues(sge: Sge) -> None:
    """Grid Engine has a batch and a short queue, and jobs of several slots in one node."""
    assert sge.run("qconf", "-sql").split() == ["batch.q", "short.q"]
    assert sge.run("qconf", "-spl").split() == ["smp"]
    with pytest.raises(ClusterError, match="unknown queue"):
        sge.submit("#!/bin/sh\n", "-q", "no-such.q")


def test_slurm_listens_on_the_loopback_only(slurm: Slurm) -> None:
    """Nothing of it can be reached from another machine, also while a job runs."""
    slurm.fill("n1")
    found = listening(pids(slurm))
    slurm.reset()
    assert set(found) == {"127.0.0.1"}
    assert len(found["127.0.0.1"]) >= 9  # eight nodes and the controller


def test_slurm_stays_on_the_loopback_whatever_the_machines_name(sge: Sge, folder: Path) -> None:
    """Where the machine's name has an address that others know, it is not listened on either."""
    require({loopback.LIBRARY: loopback.PACKAGE}, install=True)
    command = [sys.executable, str(Slurm.script)]  # the head's name is such a one
    here = ["--folder", str(folder)]
    try:
        sge.run(*command, "up", "--nodes", "2", *here)
        told = sge.run("ss", "--no-header", "--listening", "--tcp", "--numeric", "--processes")
        sge.run(
            *command, "run", *here, "--", "sbatch", "--wait", "-o", "/dev/null", "--wrap", "true"
        )
    finally:
        sge.run(*command, "down", *here)
    addresses = [line.split()[3] for line in told.splitlines() if '"slurm' in line]
    assert len(addresses) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_sge_has_a_network_of_its_own(sge: Sge) -> None:
    """No process of it is in the machine's network, where it would listen on all addresses."""
    if Sge.around():
        pytest.skip("this session runs on the head")
    ours = Path("/proc/self/ns/net").stat().st_ino
    networks = {Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in pids(sge)}
    assert len(networks) == 5  # the head's and four nodes'
    assert ours not in networks


def test_preemption(slurm: Slurm) -> None:
    """A job of a better partition takes the node at once: one victim is requeued, one cancelled."""
    (requeued,) = slurm.fill("n1", queue="scavenge")
    (cancelled,) = slurm.fill("n2", queue="cancelme")
    masters = slurm.fill("n1", "n2", queue="batch")
    wait_until(ended(slurm, cancelled), "the end of the cancelled job")
    victim = slurm.job(requeued)
    assert victim is not None
    assert victim.state == "pending"
    slurm.cancel(*masters)
    wait_until(lambda: slurm.all_running([requeued]), "the victim's second start", 30)
    slurm.reset()


def test_drained_nodes_take_no_jobs(system: PrivateCluster) -> None:
    """Jobs on a drained node go on, and others wait until it is back."""
    everything = list(system.nodes())
    running = system.fill(*everything[1:])
    system.node_state("n1", "drain")
    waiting = system.submit("#!/bin/sh\n", "-o", "/dev/null")
    assert system.all_running(running)
    assert system.nodes()["n1"] != "idle"
    assert system.job(waiting) is not None
    system.node_state("n1", "resume")
    wait_until(ended(system, waiting), "the turn of the job that waited")


def test_a_node_that_goes_down_loses_its_jobs(system: PrivateCluster) -> None:
    """What ran on a node ends with it, and the node takes jobs again when it is resumed."""
    mark = f"HPCBURST_TEST_MARK={time.monotonic_ns()}"
    system.submit(f"#!/bin/sh\n{mark} exec sleep infinity\n", "-o", "/dev/null")
    wait_until(lambda: marked(mark), "the start of the job")
    (node,) = {job.node for job in system.jobs()}
    system.node_state(node, "down")
    wait_until(lambda: not marked(mark), "the end of the job's process", 30)
    system.reset()
    assert system.nodes()[node] == "idle"
    assert system.fill(node)


def test_the_scheduler_can_be_away(system: PrivateCluster) -> None:
    """Without the scheduler commands fail and jobs go on; when it is back it knows them."""
    job = system.fill("n1")
    system.stop_controller()
    assert not system.running()
    with pytest.raises(ClusterError):
        system.jobs()
    system.start_controller()
    wait_until(lambda: system.all_running(job), "the job in the list again")


def test_enter_puts_a_command_where_the_cluster_is(system: PrivateCluster, tmp_path: Path) -> None:
    """After `enter`, a command sees the cluster, and has the pid and folder its starter thinks."""
    code = "import os, sys; print(os.getpid(), os.getcwd(), *os.environ); sys.stdin.read()"
    with subprocess.Popen(
        [*system.enter, sys.executable, "-c", code],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        pid, folder, *names = child.stdout.readline().split()
    assert (int(pid), folder) == (child.pid, str(tmp_path))
    assert set(names) & {"SLURM_CONF", "SGE_ROOT"}


def test_the_head_and_the_nodes_reach_each_other(sge: Sge, tmp_path: Path) -> None:
    """A program on the head and a job find each other by the address each has."""
    listen = (
        "import socket; s = socket.create_server(('', 0)); s.settimeout(20); "
        "print(s.getsockname()[1], flush=True); print(s.accept()[1][0])"
    )
    with subprocess.Popen(
        [*sge.enter, sys.executable, "-c", listen], stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdout is not None
        port = head.stdout.readline().strip()
        script = tmp_path / "call.sh"
        script.write_text(f"#!/bin/bash\nexec 3<>/dev/tcp/head/{port}\n")
        sge.submit(script.read_text(), "-o", "/dev/null", "-j", "yes")
        assert head.stdout.readline().startswith("10.99.0.")


def test_down_leaves_nothing(kind: type[PrivateCluster], folder: Path) -> None:
    """No process, no port and no job is left, not even what a job put aside."""
    mark = f"HPCBURST_TEST_MARK={time.monotonic_ns()}"
    cluster = kind(folder)
    try:
        cluster.up(SMALL)
        cluster.submit(
            f"#!/bin/bash\n{mark} setsid sleep infinity &\ntrap '' TERM\nsleep infinity\n",
            "-o",
            "/dev/null",
        )
        wait_until(lambda: marked(mark), "the start of the job")
        before = pids(cluster)
        ports = listening(before)
    finally:
        cluster.down()
    assert not any(map(alive, before))
    assert not marked(mark)
    assert not cluster.processes()
    assert not listening_now() & {port for some in ports.values() for port in some}
    cluster.down()  # once more does nothing


def test_a_dead_cluster_is_replaced(kind: type[PrivateCluster], folder: Path) -> None:
    """Where a cluster died half, the next start in its folder clears it away and works."""
    cluster = kind(folder)
    try:
        assert cluster.up(SMALL)
        cluster.fill("n1")
        end([one for one in cluster.processes() if one.name in {"slurmctld", "sge_qmaster"}])
        before = pids(cluster)
        assert cluster.up(SMALL)
        assert not any(map(alive, before))
        assert cluster.jobs() == []
        assert cluster.fill("n1", "n2")
    finally:
        cluster.down()


def test_clusters_side_by_side(kind: type[PrivateCluster], folder: Path) -> None:
    """Clusters that are started at the same time are each their own, and start fast."""
    started = time.monotonic()
    pair = [kind(folder / name) for name in ("a", "b")]
    argv = [sys.executable, str(kind.script), "up", "--nodes", "2", "--folder"]
    try:
        starts = [subprocess.Popen([*argv, str(one.folder)]) for one in pair]
        assert [start.wait(60) for start in starts] == [0, 0]
        assert time.monotonic() - started < START_S
        pair[0].fill("n1")
        assert len(pair[0].jobs()) == 1
        assert pair[1].jobs() == []
        pair[0].down()
        assert pair[1].running()
    finally:
        for one in pair:
            one.down()


def test_a_cluster_ends_with_the_one_that_holds_it(
    kind: type[PrivateCluster], folder: Path
) -> None:
    """A test session that is killed leaves no cluster behind."""
    code = HOLDER.format(kind=kind.kind, name=kind.__name__, folder=str(folder))
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"held\n"
        assert kind(folder).processes()
        session.send_signal(signal.SIGKILL)
    wait_until(lambda: not kind(folder).processes(), "the end of the cluster", 30)


def test_a_start_that_fails_says_why_and_leaves_nothing(folder: Path) -> None:
    """A configuration line that Slurm refuses is named, and no daemon stays."""
    if reason := Slurm.obstacle():
        pytest.skip(reason)
    with pytest.raises(ClusterError, match="slurmctld did not start"):
        Slurm(folder).up(SMALL, ["SchedulerType=sched/none-such"])
    assert not Slurm(folder).processes()


def test_the_shell_can_use_it(slurm: Slurm) -> None:
    """The words that `env` prints make a shell a user of the cluster."""
    argv = [sys.executable, str(Slurm.script), "env", "--folder", str(slurm.folder)]
    words = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    told = subprocess.run(
        ["sh", "-c", f"{words}\nsinfo -h -p batch -o %D"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert told == "8\n"


def test_lines_of_ones_own_win(kind: type[PrivateCluster], folder: Path) -> None:
    """A line given at the start replaces what we would have said."""
    line = {"slurm": "KillWait=7", "sge": "max_reservation 5"}[kind.kind]
    asked = {"slurm": ["scontrol", "show", "config"], "sge": ["qconf", "-ssconf"]}[kind.kind]
    with held(kind, folder, Size(nodes=1), line) as cluster:
        told = cluster.run(*asked)
    name, value = line.replace("=", " ").split()
    (found,) = [one for one in told.splitlines() if one.startswith(name)]
    assert value in found.replace("=", " ").split()


def test_what_is_missing_is_named() -> None:
    """Without its programs, the answer says which packages to install, and how."""
    programs = {"no-such-daemon": "no-such-package"}
    with pytest.raises(CannotHave, match=r"apt-get .* install .*no-such-package") as told:
        require(programs, install=False)
    assert "--install" in str(told.value)
    assert obstacle({"sh": "dash"}) == ""


def test_a_long_folder_is_refused(tmp_path: Path) -> None:
    """A folder too deep for Unix sockets is refused in words, not by a daemon's crash."""
    if reason := Slurm.obstacle():
        pytest.skip(reason)
    with pytest.raises(ClusterError, match="too long"):
        Slurm(tmp_path / ("deep" * 20)).up(SMALL)


def test_a_single_node_is_written_as_slurm_wants_it() -> None:
    """A cluster of one node has no ranges in its configuration."""
    place = Installation(Path("/somewhere"), "here", "127.0.1.1", "me", 17000, ["Last=1"])
    text = configuration(Size(nodes=1), place)
    assert "NodeName=n1 NodeHostName=here NodeAddr=127.0.1.1 Port=17001 " in text
    assert text.endswith("Last=1\n")


def test_changed_settings_keep_the_rest() -> None:
    """Only the named settings change, and a new name is added."""
    assert changed("one 1\ntwo   2 2\n", {"two": "3", "four": "4"}) == "one 1\ntwo 3\nfour 4\n"
