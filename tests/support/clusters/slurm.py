"""A private Slurm: its daemons, and what tests do to it. Once installed it needs no root."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from support.clusters import loopback, slurm_conf
from support.clusters.cluster import Job, NodeState, PrivateCluster, Size
from support.clusters.errors import ClusterError
from support.clusters.folder import claimed, emptied
from support.clusters.packages import SYSTEM_PATH, obstacle, program, require
from support.clusters.ports import free_ports
from support.clusters.processes import Process, below, carrying, end, wait_until

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
}
START_PATIENCE_S = 20.0
JOB_PATIENCE_S = 3.0
"""What jobs get to end by themselves when the whole cluster ends."""

DAEMONS = frozenset({"slurmctld", "slurmscriptd", "slurmd", "munged"})
SILENT = frozenset({"dead", "unknown"})
OUT_OF_SERVICE = re.compile("down|drain|fail")

SLEEP = "#!/bin/sh\nexec sleep infinity\n"


class Slurm(PrivateCluster):
    """Slurm in a folder: one controller, its nodes, and a munge of its own, all on the loopback."""

    kind = "slurm"
    script = Path(__file__).parents[1] / "slurm.py"

    @property
    def conf(self) -> Path:
        """The configuration; SLURM_CONF names it for every command and every job."""
        return self.folder / "slurm.conf"

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment, with this cluster's SLURM_CONF."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    @property
    def enter(self) -> list[str]:
        """The variable is all it takes."""
        return ["env", f"SLURM_CONF={self.conf}"]

    @property
    def inside(self) -> list[str]:
        """No words: everything on this machine reaches it."""
        return []

    @classmethod
    def obstacle(cls) -> str:
        """Why it cannot be had on this machine; empty when it can."""
        return obstacle(_packages())

    def up(self, size: Size, lines: Sequence[str] = (), *, install: bool = False) -> bool:
        """Start it unless it runs; whether it was started now. `lines` are added to slurm.conf."""
        require(_packages(), install=install)
        mode = 0o755 if os.geteuid() == 0 else 0o700  # root's cluster is for every user
        with claimed(self.folder, mode):
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
        """End jobs, daemons and what jobs left behind; the logs stay."""
        if self.folder.is_dir():
            with claimed(self.folder, self.folder.stat().st_mode & 0o777):
                self._stop()
                for name in ("state", "spool", "run"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                for name in ("slurm.conf", "cgroup.conf"):
                    (self.folder / name).unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether the controller answers."""
        return bool(self._daemons("slurmctld")) and self._answers()

    def jobs(self) -> list[Job]:
        """The jobs that have not ended."""
        # The reason comes last: it may contain anything.
        told = self.run("squeue", "-h", "-r", "-a", "-o", "%i|%j|%P|%T|%N|%r")
        return [_job(line) for line in told.splitlines()]

    def nodes(self) -> dict[str, str]:
        """The state of every node, as sinfo says it; "dead" without its slurmd."""
        told = self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%N %T")
        daemons = {process.pid for process in self._daemons("slurmd")}
        return {
            name: _node_state(state) if self._slurmd(name) in daemons else "dead"
            for name, state in (line.split() for line in told.splitlines())
        }

    def submit(self, script: str, *words: str) -> str:
        """Submit a script with these options of sbatch; the id of the job."""
        return self.run("sbatch", "--parsable", *words, stdin=script).strip()

    def fill(self, *nodes: str, minutes: int = 10, queue: str = "batch") -> list[str]:
        """Occupy whole nodes; the ids of the jobs, all of them running."""
        ids = [self._fill_one(node, minutes, queue) for node in nodes]
        wait_until(lambda: self.all_running(ids), f"the start of {ids} on {nodes}", 20)
        return ids

    def cancel(self, *job_ids: str) -> None:
        """Cancel these jobs, or all."""
        chosen = job_ids or [job.id for job in self.jobs()]
        if chosen:
            self.run("scancel", *chosen)

    def node_state(self, name: str, state: NodeState) -> None:
        """Break a node, keep jobs off it, or have it back; a dead slurmd is started again."""
        if state == "resume":
            self._revive(name)
        elif self.nodes()[name] != {"down": "down", "drain": "drained"}[state]:
            words = [f"nodename={name}", f"state={state}", "reason=test"]
            self.run("scontrol", "update", *words)

    def kill_node(self, name: str) -> None:
        """The node dies without a word, with all that runs on it; found out after SlurmdTimeout."""
        daemons = [slurmd for slurmd in self._daemons("slurmd") if slurmd.pid == self._slurmd(name)]
        steps = [job for job in self._job_processes() if job.environ.get("SLURMD_NODENAME") == name]
        end(daemons)
        end(below(steps))

    def stop_controller(self) -> None:
        """End slurmctld; its state is kept."""
        end(self._daemons("slurmctld"), patience_s=15)
        end(self._daemons("slurmscriptd"))

    def start_controller(self) -> None:
        """Start slurmctld from its kept state."""
        self._daemon("slurmctld")
        wait_until(self._answers, "an answer of slurmctld", START_PATIENCE_S)

    def processes(self) -> list[Process]:
        """All that belongs to it: daemons, jobs, what comes from these."""
        return below([*self._daemons(*DAEMONS), *self._job_processes()])

    def _start(self, size: Size, lines: Sequence[str]) -> None:
        emptied(self.folder, "state", "spool", "log", "run")
        with free_ports(slurm_conf.ports_needed(size)) as first_port:
            self._write_configuration(size, lines, first_port)
            self._start_munge()
            self._daemon("slurmctld", "-c")
            for name in size.names:
                self._daemon("slurmd", "-N", name)
            wait_until(
                lambda: self._all_idle(size),
                f"a cluster of {size.nodes} idle nodes (logs: {self.folder / 'log'})",
                START_PATIENCE_S,
            )

    def _write_configuration(self, size: Size, lines: Sequence[str], first_port: int) -> None:
        user = pwd.getpwuid(os.geteuid()).pw_name
        place = slurm_conf.Installation(
            folder=self.folder,
            host=loopback.host_name(),
            address=loopback.own_address() or loopback.LOOPBACK,
            user=user,
            first_port=first_port,
            lines=lines,
        )
        self.conf.write_text(slurm_conf.configuration(size, place))
        if _version() >= slurm_conf.NO_CGROUPS_SINCE:
            (self.folder / "cgroup.conf").write_text(slurm_conf.NO_CGROUPS)

    def _start_munge(self) -> None:
        key = self.folder / "run" / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        run, log = self.folder / "run", self.folder / "log"
        self._daemon(
            "munged",
            "--force",  # the folder may be below one that others write to, as /tmp is
            f"--key-file={key}",
            f"--socket={run / 'munge.sock'}",
            f"--pid-file={run / 'munged.pid'}",
            f"--seed-file={run / 'munged.seed'}",
            f"--log-file={log / 'munged.log'}",
            "--num-threads=2",
        )

    def _daemon(self, name: str, *words: str) -> None:
        """Start a daemon, which goes to the background by itself once it is set up."""
        log = self.folder / "log" / f"{name}.err"
        with log.open("ab") as said:
            status = subprocess.run(
                [program(name), *words],
                env={
                    "PATH": SYSTEM_PATH,
                    "SLURM_CONF": str(self.conf),
                    **loopback.environ(self.folder / "run"),
                },
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
            ).returncode
        if status:
            raise ClusterError(f"{name} did not start: {_tail(log)} (logs: {log.parent})")

    def _stop(self) -> None:
        """The controller first, which would start the next job; munge last, which all need."""
        end(self._daemons("slurmctld", "slurmscriptd"))
        end(self._daemons("slurmd"))
        work = below(self._job_processes())
        end([one for one in work if one.name != "slurmstepd"], patience_s=JOB_PATIENCE_S)
        # Their keepers would try to report for minutes; and some work starts more while it ends.
        end(below(self._job_processes()))
        end(self._daemons("munged"))

    def _daemons(self, *names: str) -> list[Process]:
        return [process for process in self._ours() if process.name in names]

    def _job_processes(self) -> list[Process]:
        """The steps' keepers and all that has a job's number; a user's shell has none."""
        return [
            process
            for process in self._ours()
            if process.name == "slurmstepd" or "SLURM_JOB_ID" in process.environ
        ]

    def _ours(self) -> list[Process]:
        return carrying("SLURM_CONF", str(self.conf))

    def _slurmd(self, name: str) -> int:
        """The pid that the slurmd of a node wrote down; 0 when it did not yet."""
        with suppress(OSError, ValueError):
            return int((self.folder / "run" / f"slurmd.{name}.pid").read_text())
        return 0

    def _answers(self) -> bool:
        try:
            status = subprocess.run(
                ["sinfo", "-h"], env=self.environ, capture_output=True, timeout=5, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return False
        return status == 0

    def _all_idle(self, size: Size) -> bool:
        if not self._daemons("slurmctld"):  # it goes to the background before it reads all
            log = self.folder / "log" / "slurmctld.log"
            raise ClusterError(f"slurmctld did not start: {_tail(log)} (logs: {log.parent})")
        return self._answers() and self.nodes() == dict.fromkeys(size.names, "idle")

    def _fill_one(self, node: str, minutes: int, queue: str) -> str:
        words = ["-p", queue, "-t", str(minutes), "-w", node, "--exclusive", "--mem=0"]
        return self.submit(SLEEP, "-J", "fill", "-o", "/dev/null", *words)

    def _revive(self, name: str) -> None:
        if self.nodes()[name] in SILENT:
            self.kill_node(name)
            self._daemon("slurmd", "-N", name)
            wait_until(lambda: self.nodes()[name] not in SILENT, f"word from {name}", 60)
        if OUT_OF_SERVICE.match(self.nodes()[name]):
            with suppress(ClusterError):  # a node that was silent comes back by itself
                self.run("scontrol", "update", f"nodename={name}", "state=resume")
        wait_until(
            lambda: not OUT_OF_SERVICE.match(self.nodes()[name]), f"the return of {name}", 60
        )


def _packages() -> dict[str, str]:
    return {**PACKAGES, **loopback.packages()}


def _node_state(said: str) -> str:
    """One word for nodes that the controller has not heard of, or not for a while."""
    return "unknown" if said.startswith("unk") or said.endswith("*") else said


def _job(line: str) -> Job:
    job_id, name, queue, state, node, reason = line.split("|", 5)
    waits = state in {"PENDING", "CONFIGURING"}
    return Job(
        job_id, name, queue, "pending" if waits else state.lower(), node, reason if waits else ""
    )


def _version() -> tuple[int, int]:
    told = subprocess.run([program("slurmd"), "-V"], capture_output=True, text=True, check=True)
    major, minor = re.findall(r"\d+", told.stdout)[:2]
    return int(major), int(minor)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])
