"""Where and on whose account a job runs, and over how many nodes it spreads: frozen data."""

from __future__ import annotations

from dataclasses import dataclass, fields

DISK_STEP_MB = 1000


@dataclass(frozen=True, slots=True)
class Placement:
    """What a job states beside its size. Tasks share a pilot only with those of an equal one.

    A batch system that has no such thing refuses what is stated; the embedded queue, which is one
    node for one user, takes no notice.

    Attributes:
        account: Account (project) that is charged; None is the user's own.
        qos: Quality of service; None is the site's.
        constraint: Features a node must have, joined by "&": names, or name=value where the batch
            system has values. Slurm reads all of its own syntax.
        reservation: Name of the reservation to run in.
        gpu_model: Model of the GPUs.
        disk_core_mb: Local disk for each core in MB (10^6 bytes); 0 asks for none.
    """

    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    gpu_model: str | None = None
    disk_core_mb: int = 0

    def __bool__(self) -> bool:
        return self != ANYWHERE

    def __str__(self) -> str:
        stated = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(f"{name} {value}" for name, value in stated if value)


ANYWHERE = Placement()
"""The site's defaults."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A job over several nodes, or of several processes that the batch system counts.

    The shape of such a job says what it has on each node.

    Attributes:
        nodes: Nodes.
        tasks: Processes over all of them (MPI ranks); spread evenly.
    """

    nodes: int = 1
    tasks: int = 1

    @property
    def tasks_per_node(self) -> int:
        """Processes on each node, rounded up."""
        return -(-self.tasks // self.nodes)


ONE_NODE = Spread()


def disk_core_mb(disk_mb: float, cores: int) -> int:
    """Disk for each core, rounded up to a step so that tasks with nearly equal needs share pilots.

    >>> [disk_core_mb(size, 2) for size in (0, 1, 2000, 5000)]
    [0, 1000, 1000, 4000]
    """
    if disk_mb <= 0:
        return 0
    size = DISK_STEP_MB
    while size * cores < disk_mb:
        size *= 2
    return size
