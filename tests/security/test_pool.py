"""A run among strangers: its ports, folders, processes and shared memory are its owner's alone."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed.comm.utils import to_frames
from distributed.core import Status
from distributed.protocol.utils import pack_frames_prelude

from hpcburst import BurstCluster
from hpcburst.bodies import call_of
from hpcburst.tasks import Burst, Command, Needs
from support.processes import below, descriptors, listening, ours, wait_until
from support.stranger import Stranger

pytestmark = [pytest.mark.usefixtures("careless"), pytest.mark.timeout(300)]

WAIT_S = 120.0

SECRET = "a-key-that-the-user-has-in-a-variable"  # noqa: S105 - it opens nothing


def hold(data: bytes, started: str, release: str) -> bytes:
    """A body that has data in shared memory, and keeps it there until it is released."""
    import pathlib
    import time

    pathlib.Path(started).touch()
    while not pathlib.Path(release).exists():
        time.sleep(0.05)
    return data[::-1]


@dataclass
class Victim:
    """A run at work.

    Attributes:
        cluster: Its cluster.
        street: The folder in which its roots are.
        pids: All its processes, the driver's too.
        shared_memory: What lay in `/dev/shm` before it.
    """

    cluster: BurstCluster
    street: Path
    pids: list[int]
    shared_memory: frozenset[Path]

    @property
    def roots(self) -> list[Path]:
        """Its shared root and its node root."""
        return [self.street / "home" / "shared", self.street / "node"]


@pytest.fixture(scope="module")
def victim(street: Path, careless: None) -> Iterator[Victim]:
    """A pilot that runs a body with ten megabytes in shared memory."""
    before = frozenset(Path("/dev/shm").iterdir())
    node = street / "node"
    node.mkdir()
    node.chmod(0o1777)
    site = {
        "shared-root": str(street / "home" / "shared"),
        "node-root": str(node),
        "idle-timeout": "5m",
    }
    started, release = street / "home" / "started", street / "home" / "release"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_KEY_OF_THE_USER", SECRET)
        with BurstCluster(max_jobs=1, site=site) as cluster:
            call = call_of(hold, (os.urandom(10_000_000), str(started), str(release)), {})
            future = cluster.launch(Burst("hold", call, Needs()))
            wait_until(started.exists, "the body at work", WAIT_S)
            theirs = {each for pid in ours(str(cluster.run_folder)) for each in below(pid)}
            pids = [os.getpid(), *sorted(theirs - {os.getpid()})]
            yield Victim(cluster, street, pids, before)
            release.touch()
            assert future.result(WAIT_S).ok


# -- ports ---------------------------------------------------------------------------------------


def _ports(victim: Victim) -> list[tuple[str, int]]:
    """The scheduler's port and the pilots'."""
    assert victim.cluster.status is Status.running
    addresses = [victim.cluster.scheduler.address, *victim.cluster.scheduler.workers]
    assert len(addresses) == 2
    found = [re.fullmatch(r"\w+://(.+):(\d+)", address) for address in addresses]
    return [(each[1], int(each[2])) for each in found if each]


def test_a_run_has_one_port_for_each_process_and_none_for_everybody(victim, tally):
    """Driver and pilot listen on one named address each, guests and dashboards on none."""
    ports = listening(victim.pids)
    tally.note("ports", "a port on all interfaces", [row for row in ports if row[0] in ANYWHERE])
    tally.note("ports", "a port that is none of Dask's", sorted(ports - set(_ports(victim))))


ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what must not be found


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def _told(message: dict) -> str:
    """A message as Dask writes it on a line, in hex."""
    frames = asyncio.run(to_frames(message, serializers=("dask", "pickle")))
    frames = [pack_frames_prelude(frames), *frames]
    size = sum(memoryview(frame).nbytes for frame in frames)
    return b"".join([size.to_bytes(8, "little"), *map(bytes, frames)]).hex()


def _orders(path: Path) -> list[str]:
    """A greeting, and the order to run something on the other side."""
    greeting = {"compression": None, "python": (3, 11), "pickle-protocol": 5}
    order = {
        "op": "run_function",
        "function": pickle.dumps(_Touch(path)),
        "args": pickle.dumps(()),
        "kwargs": pickle.dumps({}),
        "wait": True,
        "reply": True,
    }
    on_worker = {**order, "op": "run"}
    return [_told(greeting), _told(order), _told(on_worker)]


@pytest.fixture(scope="module")
def foreign_certificate(street: Path) -> Path:
    """A certificate that a stranger made himself, of the same kind as ours."""
    from distributed.security import Security

    made = Security.temporary()
    path = street / "foreign.pem"
    path.write_text(str(made.tls_ca_file) + str(made.tls_scheduler_key))
    path.chmod(0o644)
    return path


def _heard(told: dict[str, str]) -> str:
    """What a stranger was told, beside a TLS alert."""
    answer = bytes.fromhex(told["answer"])
    return "" if answer[:2] == b"\x15\x03" else answer[:40].hex()


@pytest.mark.parametrize("door", ["plain", "TLS without a certificate", "TLS with his own"])
def test_orders_of_a_stranger_are_not_heard(
    victim, stranger: Stranger, tally, foreign_certificate, door
):
    """Who has not the run's own certificate gets no answer from scheduler or pilot, over plain
    TCP, TLS or TLS with a certificate of his own; nothing that he sends is run."""
    canary = victim.street / f"run-by-a-stranger-{door.count('TLS')}"
    for host, port in _ports(victim):
        orders = _orders(canary)
        if door == "plain":
            told = stranger.tries("say", host, port, *orders)
        else:
            certificate = foreign_certificate if door.endswith("own") else ""
            told = stranger.tries("say_tls", host, port, certificate, *orders)
        tally.note("ports", f"orders over {door}", _heard(told) or canary.exists())


def test_there_is_no_page(victim, stranger: Stranger, tally):
    """Neither driver nor pilot has a web page: not a dashboard, not metrics, not names of tasks."""
    pages = ("/", "/status", "/info/main/workers.html", "/metrics", "/health", "/json/counts.json")
    for host, port in _ports(victim):
        statuses = stranger.tries("ask", host, port, *(f"GET {page}" for page in pages))
        for page, status in zip(pages, statuses, strict=True):
            tally.note("ports", f"GET {page}", status)


# -- files ---------------------------------------------------------------------------------------


def test_the_folders_of_a_run_are_closed(victim, stranger: Stranger, tally):
    """A stranger lists, reads and changes nothing of a run, whatever the user's umask: not its
    folder, secrets, logs, job scripts and spool, not the pilot's and guest's scratch."""
    brought = stranger.tries("search", *victim.roots)
    allowed = {str(victim.street / "node")}
    for verb, paths in brought.items():
        tally.note("files", f"{verb} below the roots", sorted(set(paths) - allowed))


def test_knowing_the_names_does_not_help(victim, stranger: Stranger, tally):
    """Every file of a run, named exactly, can be neither read nor written nor moved."""
    files = [path for root in victim.roots for path in root.rglob("*") if not path.is_symlink()]
    assert any(path.name == "tls.key" for path in files), "the search has not found the key"
    assert any(path.name.startswith("guest-") for path in files), "nor the guest's home"
    brought = stranger.tries("read", *files)
    for path in files:
        tally.note("files", f"{path}", [v for v, found in brought.items() if str(path) in found])


def test_no_folder_of_a_run_can_be_put_away(victim, stranger: Stranger, tally):
    """Where temporary folders are shared, the pilot's cannot be renamed and replaced."""
    for folder in (victim.street / "node").iterdir():
        tally.note("files", "swap of scratch", stranger.tries("swap", folder)["swapped"])


def test_the_key_is_in_one_file(victim, tally):
    """The run's key and the user's own secrets are in no other file: no log, script or record."""
    key = victim.cluster.run_folder / "secret" / "tls.key"
    inner = key.read_text().splitlines()[3]
    for root in victim.roots:
        for path in root.rglob("*"):
            if path.is_file() and path != key:
                data = path.read_bytes()
                held = [word for word in (inner, SECRET) if word.encode() in data]
                tally.note("files", f"a secret in {path.name}", held)


# -- processes -----------------------------------------------------------------------------------


def test_processes_tell_nothing(victim, stranger: Stranger, tally):
    """No secret is in any argument; environment, memory, open files and folder of our processes
    are closed to others, and so are signals to them."""
    key = (victim.cluster.run_folder / "secret" / "tls.key").read_text().splitlines()[3]
    brought = stranger.tries("processes", *victim.pids)
    assert brought["argv"], "arguments are there for everybody to see"
    shown = [argv for argv in brought["argv"] if key in argv or SECRET in argv]
    tally.note("processes", "a secret in an argument", shown)
    tally.note("processes", "environment, memory, descriptors, signals", brought["open"])


def test_shared_memory_has_no_name(victim, stranger: Stranger, tally):
    """Data between pilot and guest lie in memory without a name: there is nothing to open."""
    fresh = set(Path("/dev/shm").iterdir()) - victim.shared_memory
    mine = [path for path in fresh if path.name.startswith("hpcburst")]
    brought = stranger.tries("search", *mine)
    tally.note("shared memory", "segments by name", [*brought["read"], *brought["changed"]])


def test_no_socket_has_a_name(victim, tally):
    """Pilot, guests and warm servers talk over inherited sockets; none can be connected to."""
    held = descriptors(victim.pids[1:])
    named = []
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if f"socket:[{fields[6]}]" in held and len(fields) > 7:
            named.append(fields[7])
    tally.note("processes", "a unix socket with a name", named)


def test_nothing_of_a_run_is_left_when_it_ends(street, tally):
    """When a run has ended its secrets, scripts and scratch are gone."""
    site = {"shared-root": str(street / "home" / "second"), "node-root": str(street / "home" / "n")}
    with BurstCluster(max_jobs=1, site=site) as cluster:
        environ = dict(os.environ)
        future = cluster.launch(Burst("true", Command(("true",), "/", environ), Needs()))
        assert future.result(WAIT_S).ok
        run = cluster.run_folder
    wait_until(lambda: not ours(str(run)), "the end of its processes", WAIT_S)
    left = [
        str(path) for path in (run / "secret", *(street / "home" / "n").glob("*")) if path.exists()
    ]
    tally.note("files", "what is left of a run", left)
