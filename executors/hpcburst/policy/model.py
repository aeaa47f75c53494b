"""What a site is: its scheduler, queues, limits and places. Frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcburst.tasks import Shape


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue (partition) and the most that one job in it may ask for.

    Attributes:
        name: Its name for the batch system.
        max_cores: CPU cores of one job.
        max_memory_mb: Memory of one job in MB (10^6 bytes).
        max_gpus: GPUs of one job.
        max_walltime_s: Seconds one job may last.
        total_cores: Cores that all our jobs in it may hold together; None is no such limit.
        total_memory_mb: Memory that all our jobs may hold together; None is no such limit.
        price: Charge factor: what one core-hour in it costs, in core-hours of an ordinary queue.
        burst: Whether it is meant for bursts: taken first when a task could go to several.
    """

    name: str
    max_cores: int
    max_memory_mb: int
    max_gpus: int = 0
    max_walltime_s: float = 86400.0
    total_cores: int | None = None
    total_memory_mb: int | None = None
    price: float = 1.0
    burst: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much we take, and how long we hold it.

    Attributes:
        max_jobs: Jobs at once, pending and running; no run gets more.
        jobs: Jobs at once for a run that asks for no number.
        max_pending: Jobs that may wait in the queue at once: a small backlog is a polite one.
        idle_s: Seconds a pilot may idle before its job ends; None is half of what a new one takes
            to start, 2 s at least and 10 s at most.
        pending_min_age_s: Seconds a waiting job is kept though nothing needs it any more; a new
            task may come, and a place in the queue is worth something.
        status_interval_s: Seconds between two looks at the jobs' states (one call for all jobs).
        connect_s: Seconds a running job may take until its pilot says hello.
        max_sends: How often a task is handed to a pilot when pilots are lost under it.
        max_failed_starts: Jobs in a row that may fail to start before the pool gives up.
        max_cores: Cores at once, of pending and running jobs together; None is no such limit.
        max_core_hours: Core-hours that a run may spend; None is no such limit.
    """

    max_jobs: int = 100
    jobs: int = 10
    max_pending: int = 10
    idle_s: float | None = None
    pending_min_age_s: float = 30.0
    status_interval_s: float = 60.0
    connect_s: float = 120.0
    max_sends: int = 3
    max_failed_starts: int = 4
    max_cores: int | None = None
    max_core_hours: float | None = None


@dataclass(frozen=True, slots=True)
class Paths:
    """Where files go.

    Attributes:
        shared_root: Folder every node sees; envs, locks, run records.
        node_root: Folder on the node's own disk; pilots' scratch.
    """

    shared_root: Path
    node_root: Path


BUILDERS = ("rattler", "conda", "mamba", "micromamba", "pixi")
"""What envs can be built with; the first one is always there."""

PLACES = ("auto", "shared", "local")
"""Where envs can lie."""


@dataclass(frozen=True, slots=True)
class EnvSettings:
    """How envs are built here, and where they lie.

    Attributes:
        channels: Channels for specs that name none.
        mirror: Channel name to the URL to ask instead.
        builder: Who chooses and links packages: "rattler", "conda", "mamba", "micromamba", "pixi".
        place: "shared": under the shared root; "local": linked by each node on its own disk from a
            depot of archives; "auto": local where the shared root is on a network file system.
        offline: Whether nothing is fetched: only what is cached may be used.
        modules_init: Shell file that defines the `module` command; None is looked for.
    """

    channels: tuple[str, ...] = ("conda-forge",)
    mirror: Mapping[str, str] = field(default_factory=dict)
    builder: str = "rattler"
    place: str = "auto"
    offline: bool = False
    modules_init: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Everything policy knows about this machine.

    Attributes:
        scheduler: Name of the batch system ("local" is the embedded queue on this machine).
        queues: Its queues; the first is the default.
        default_shape: What a pilot is when nobody asks for more.
        limits: How much we take.
        paths: Where files go.
        host: Address or name the driver listens on for its pilots.
        envs: How envs are built, and where they lie.
        keep_runs_days: Days a run's record and logs are kept.
        prefer: What counts among queues that hold a task: "soonest" or "cheapest".
        forbidden: Queues that are never used; none of them is in `queues`.
        message: What the centre tells everybody who starts a run; "" is nothing.
        dialect: How the batch system is set up here, where its dialect must be told (arguments of
            the class in `hpcburst.jobs`).
    """

    scheduler: str
    queues: tuple[Queue, ...]
    default_shape: Shape
    limits: Limits
    paths: Paths
    host: str = "127.0.0.1"
    envs: EnvSettings = field(default_factory=EnvSettings)
    keep_runs_days: float = 10.0
    prefer: str = "soonest"
    forbidden: tuple[str, ...] = ()
    message: str = ""
    dialect: Mapping[str, str] = field(default_factory=dict)

    def queue(self, name: str | None) -> Queue | None:
        """The queue of that name, the default queue for None, or None if there is none."""
        if name is None:
            return self.queues[0]
        return next((queue for queue in self.queues if queue.name == name), None)
