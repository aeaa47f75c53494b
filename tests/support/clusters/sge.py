"""A private Grid Engine: its daemons, and what tests do to it. Needs root, for namespaces."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from support.clusters import sge_settings as settings
from support.clusters.cluster import Job, NodeState, PrivateCluster, Size
from support.clusters.errors import CannotHave, ClusterError
from support.clusters.folder import claimed
from support.clusters.packages import obstacle, require
from support.clusters.processes import Process, below, carrying, end, wait_until
from support.clusters.sge_hosts import HEAD
from support.clusters.sge_setup import Setup

PACKAGES = {
    str(settings.LIBRARY / "sge_qmaster"): "gridengine-master",
    str(settings.LIBRARY / "sge_execd"): "gridengine-exec",
    str(settings.LIBRARY / "qsub"): "gridengine-client",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "/usr/sbin/sendmail": "msmtp-mta",  # it must have one; this one is no daemon
}
ANSWERS = [
    f"gridengine-{part} shared/gridengineconfig boolean false"  # no cluster from the package
    for part in ("common", "master", "exec", "client")
]
START_PATIENCE_S = 20.0
JOB_PATIENCE_S = 2.0
SLEEP = "#!/bin/sh\nexec sleep infinity\n"
STATES = {"qw": "pending", "t": "running", "r": "running", "Rt": "running", "Rr": "running"}
MOST_NODES = 200
"""They share one network of 254 addresses."""


class Sge(PrivateCluster):
    """Grid Engine in a folder: a head that schedules, and nodes, each a machine of its own."""

    kind = "sge"
    script = Path(__file__).parents[1] / "sge.py"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.setup = Setup(self.folder)
        self.hosts = self.setup.hosts

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment, with what finds this cluster."""
        return {**os.environ, **self.setup.variables}

    @property
    def enter(self) -> list[str]:
        """Words before a command that run it on the head, as a user of the cluster."""
        return [sys.executable, str(self.script), "run", "--folder", str(self.folder), "--"]

    @property
    def inside(self) -> list[str]:
        """Words before a command that run it on the head; none when we are there already."""
        if self._are_inside():
            return []
        return [*self.hosts.entering(HEAD), "env", f"--chdir={Path.cwd()}"]

    @classmethod
    def obstacle(cls) -> str:
        """Why it cannot be had on this machine; empty when it can."""
        if os.geteuid() != 0:
            return "only root can start a private Grid Engine: it needs namespaces"
        return obstacle(PACKAGES)

    @classmethod
    def around(cls) -> Sge | None:
        """The cluster on whose head this very process runs, started by `enter`; or none."""
        root = Path(os.environ.get("SGE_ROOT", "/"))
        cluster = cls(root.parent)
        return cluster if cluster._are_inside() else None

    def up(self, size: Size, lines: Sequence[str] = (), *, install: bool = False) -> bool:
        """Start it unless it runs; whether it was started now.

        `lines` are "name value" of the scheduler's configuration, as `qconf -ssconf` shows them.
        """
        if os.geteuid() != 0:
            raise CannotHave(self.obstacle())
        if size.nodes > MOST_NODES:
            raise ClusterError(f"at most {MOST_NODES} nodes, not {size.nodes}")
        require(PACKAGES, install=install, answers=ANSWERS)
        with claimed(self.folder, 0o755):
            if self.running():
                return False
            self._stop()
            try:
                self._start(size, lines)
            except BaseException:
                self._stop()
                raise
        return True

    def down(self) -> None:
        """End jobs, daemons and hosts; the logs stay."""
        if self.folder.is_dir():
            with claimed(self.folder, 0o755):
                self._stop()
                for name in ("root", "spool"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                for name in ("hosts", "resolv.conf"):
                    (self.folder / name).unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether the scheduler answers."""
        return bool(self._master()) and HEAD in self.hosts.open_now() and self._answers()

    def jobs(self) -> list[Job]:
        """The jobs that have not ended; Grid Engine gives no reasons with them."""
        return list(_jobs(self.setup.tell("qstat", "-u", "*", "-xml")))

    def nodes(self) -> dict[str, str]:
        """The state of every node: the letters of its queues, or "idle" when there are none."""
        told = self.setup.tell("qstat", "-f")
        there = self.hosts.open_now()
        return {
            name: _node_state(letters) if name in there else "dead"
            for name, letters in _queue_letters(told).items()
        }

    def submit(self, script: str, *words: str) -> str:
        """Submit a script with these options of qsub; the id of the job."""
        return self.run("qsub", "-terse", *words, stdin=script).strip()

    def fill(self, *nodes: str, minutes: int = 10, queue: str = "batch.q") -> list[str]:
        """Occupy whole nodes; the ids of the jobs, all of them running."""
        ids = [self._fill_one(node, minutes, queue) for node in nodes]
        wait_until(lambda: self.all_running(ids), f"the start of {ids} on {nodes}", 20)
        return ids

    def cancel(self, *job_ids: str) -> None:
        """Cancel these jobs, or all."""
        chosen = job_ids or [job.id for job in self.jobs()]
        if chosen:
            self.setup.tell("qdel", *chosen)

    def node_state(self, name: str, state: NodeState) -> None:
        """Cut a node's power, keep jobs off it, or have it back."""
        if state == "down":
            self.kill_node(name)
        elif state == "drain":
            self.setup.tell("qmod", "-d", f"*@{name}")
        else:
            self._revive(name)

    def kill_node(self, name: str) -> None:
        """The node is gone; found out after max_unheard, 20 s here, and its jobs stay listed."""
        self.hosts.close(name)

    def stop_controller(self) -> None:
        """End sge_qmaster; its state is kept."""
        end(self._master(), patience_s=15)

    def start_controller(self) -> None:
        """Start sge_qmaster from its kept state."""
        self.setup.tell("sge_qmaster")
        wait_until(self._answers, "an answer of sge_qmaster", START_PATIENCE_S)

    def processes(self) -> list[Process]:
        """All that belongs to it: daemons, hosts, and all that runs on the nodes."""
        return below([*self._master(), *self.hosts.open_now().values()])

    def _start(self, size: Size, lines: Sequence[str]) -> None:
        self.setup.files()
        self.hosts.open_head(size.names)
        self.setup.initialise()
        self.start_controller()
        for name in size.names:
            self.hosts.open_node(name)
        self.setup.configure(size, lines)
        self.setup.start_nodes(*size.names)
        wait_until(
            lambda: self.nodes() == dict.fromkeys(size.names, "idle"),
            f"a cluster of {size.nodes} idle nodes (logs: {self.folder}/log, "
            f"{self.folder}/spool/*/messages)",
            START_PATIENCE_S,
        )

    def _stop(self) -> None:
        """The scheduler first, which would start the next job; then the nodes lose power."""
        end(self._master())
        jobs = [process for process in self._ours() if "JOB_ID" in process.environ]
        end(below(jobs), patience_s=JOB_PATIENCE_S)
        self.hosts.close(*self.hosts.open_now())

    def _ours(self) -> list[Process]:
        return carrying("SGE_ROOT", str(self.setup.root))

    def _master(self) -> list[Process]:
        return [process for process in self._ours() if process.name == "sge_qmaster"]

    def _are_inside(self) -> bool:
        """Whether this very process is on the head, started by `enter` maybe."""
        head = self.hosts.open_now().get(HEAD)
        return head is not None and _network_of(head.pid) == _network_of(os.getpid())

    def _answers(self) -> bool:
        try:
            self.setup.tell("qconf", "-sh")
            return True
        except ClusterError:
            return False

    def _fill_one(self, node: str, minutes: int, queue: str) -> str:
        slots = re.findall(r"slots=(\d+)", self.setup.tell("qconf", "-se", node))
        words = ["-q", f"{queue}@{node}", "-pe", "smp", slots[0], "-l", f"h_rt={minutes * 60}"]
        quiet = ["-N", "fill", "-o", "/dev/null", "-j", "yes"]
        return self.submit(SLEEP, *words, *quiet)

    def _revive(self, name: str) -> None:
        if self.nodes()[name] in {"dead", "unknown"}:
            self.kill_node(name)
            self.hosts.open_node(name)
            self.setup.start_nodes(name)
        self.setup.tell("qmod", "-e", f"*@{name}")
        wait_until(lambda: self.nodes()[name] == "idle", f"the return of {name}", 60)


def _jobs(xml: str) -> Iterator[Job]:
    for job in ET.fromstring(xml).iter("job_list"):  # noqa: S314 - our own scheduler wrote it
        said = {part.tag: part.text or "" for part in job}
        queue, _, node = said["queue_name"].partition("@")
        state = STATES.get(said["state"], said["state"].lower())
        yield Job(said["JB_job_number"], said["JB_name"], queue, state, node)


def _queue_letters(told: str) -> dict[str, str]:
    """The letters of all queues of each node."""
    letters: dict[str, set[str]] = {}
    for line in told.splitlines():
        # queue@node, kind, slots, load, architecture (or -NA-), letters
        if found := re.match(r"\S+@(\S+)(?:\s+\S+){4}[ \t]*(\S*)", line):
            letters.setdefault(found[1], set()).update(found[2])
    return {name: "".join(sorted(some)) for name, some in letters.items()}


def _node_state(letters: str) -> str:
    """No letters: nothing keeps jobs off it. "u": not heard of yet, or not for a while."""
    return "unknown" if "u" in letters else letters or "idle"


def _network_of(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino
