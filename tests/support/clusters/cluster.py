"""What every private cluster can do, whichever batch system it is."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from support.clusters.errors import ClusterError
from support.clusters.processes import Process, wait_until

NodeState = Literal["down", "drain", "resume"]
"""Down: jobs on it are lost now. Drain: they may finish, none starts. Resume: back in service, by
way of a restart of the node if it is dead or has not reported."""

COMMAND_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Size:
    """How much a cluster pretends to have; cores and memory are of each node."""

    nodes: int = 8
    cores: int = 4
    memory_mb: int = 8000

    @property
    def names(self) -> list[str]:
        """The names of the nodes: n1, n2, ..."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]


@dataclass(frozen=True)
class Job:
    """A job that the batch system still has.

    Attributes:
        id: The batch system's number for it.
        name: The name it was submitted with.
        queue: Its queue or partition.
        state: "pending", "running", or else the batch system's own word, in small letters.
        node: Where it runs; empty while it does not.
        reason: Why it is pending, where the batch system tells.
    """

    id: str
    name: str
    queue: str
    state: str
    node: str = ""
    reason: str = ""


class PrivateCluster(ABC):
    """A real batch system in a folder: to be started, used, broken on purpose, and ended.

    Args:
        folder: Where all its files are.
    """

    kind: ClassVar[str]
    script: ClassVar[Path]

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    @abstractmethod
    def environ(self) -> dict[str, str]:
        """The environment of a user of this cluster: this process's, and what finds the cluster."""

    @property
    @abstractmethod
    def enter(self) -> list[str]:
        """Words to put before a command so that it runs as a user of this cluster.

        The process keeps its pid and its working folder; it gets `environ` by itself.
        """

    @property
    @abstractmethod
    def inside(self) -> list[str]:
        """As `enter`, but faster, for a process with our working folder that has `environ`."""

    @classmethod
    @abstractmethod
    def obstacle(cls) -> str:
        """Why it cannot be had on this machine, what to do included; empty when it can."""

    @abstractmethod
    def up(self, size: Size, lines: Sequence[str] = (), *, install: bool = False) -> bool:
        """Start it unless it runs; whether it was started now.

        Raises:
            ClusterError: It cannot be had here, or did not start; says where the logs are.
        """

    @abstractmethod
    def down(self) -> None:
        """End it and all that it left behind; nothing happens when there is none."""

    @abstractmethod
    def running(self) -> bool:
        """Whether its scheduler answers."""

    @abstractmethod
    def jobs(self) -> list[Job]:
        """The jobs that have not ended."""

    @abstractmethod
    def submit(self, script: str, *words: str) -> str:
        """Submit a script with these options of the submit command; the id of the job."""

    @abstractmethod
    def fill(self, *nodes: str, minutes: int = 10, queue: str = "") -> list[str]:
        """Occupy whole nodes by jobs that last until cancelled or `minutes` have passed.

        Returns:
            The ids of the jobs, all of them running.
        """

    @abstractmethod
    def cancel(self, *job_ids: str) -> None:
        """Cancel these jobs, or all when none is named; returns at once."""

    @abstractmethod
    def node_state(self, name: str, state: NodeState) -> None:
        """Break a node, keep jobs off it, or have it back; returns when it is so."""

    @abstractmethod
    def stop_controller(self) -> None:
        """End the scheduler; jobs that run go on, commands fail until it is back."""

    @abstractmethod
    def start_controller(self) -> None:
        """Have the scheduler back, with all its jobs; returns when it answers.

        Nodes may be unknown for a while: Grid Engine's report after half a minute at worst.
        """

    @abstractmethod
    def nodes(self) -> dict[str, str]:
        """The state of every node, in the batch system's own word.

        Three words are ours: "idle" takes jobs, "unknown" has not reported to the scheduler, "dead"
        has no daemon, whether the scheduler knows that or not.
        """

    @abstractmethod
    def kill_node(self, name: str) -> None:
        """The node is gone without a word, with all that ran on it, as when its power fails."""

    @abstractmethod
    def processes(self) -> list[Process]:
        """All that belongs to it: daemons, jobs, and what comes from these."""

    def run(self, *argv: str, stdin: str = "") -> str:
        """What a command says, run as a user of the cluster.

        Raises:
            ClusterError: It failed; with what it said.
        """
        done = subprocess.run(
            [*self.inside, *argv],
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_PATIENCE_S,
            check=False,
        )
        if done.returncode:
            said = done.stderr or done.stdout
            raise ClusterError(f"{' '.join(argv)} ended with status {done.returncode}: {said}")
        return done.stdout

    def all_running(self, job_ids: Sequence[str]) -> bool:
        """Whether these jobs run, all at the same time."""
        return set(job_ids) <= {job.id for job in self.jobs() if job.state == "running"}

    def job(self, job_id: str) -> Job | None:
        """The job of this id; nothing when it has ended."""
        return next((job for job in self.jobs() if job.id == job_id), None)

    def reset(self) -> None:
        """No jobs, all nodes in service, the scheduler there: as it was when it started."""
        if not self.running():
            self.start_controller()
        for name, state in self.nodes().items():
            if state != "idle":
                self.node_state(name, "resume")
        self.cancel()
        wait_until(lambda: not self.jobs(), "the end of all cancelled jobs", 60)
        wait_until(lambda: set(self.nodes().values()) == {"idle"}, "all nodes idle", 60)
