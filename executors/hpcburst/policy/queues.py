"""The queues of a site, from its config; and what a pilot in them is by default. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.errors import SiteError
from hpcburst.policy.decide import fits
from hpcburst.policy.model import Queue
from hpcburst.policy.values import WHERE, count, dashed, flag, number, pairs, refuse_unknown
from hpcburst.tasks import Shape

NEEDED = ("cores", "memory", "walltime")
"""What must be stated of a queue."""

KEYS = (*NEEDED, "gpus", "total-cores", "price", "burst")
"""What can be stated of a queue."""

USUAL_CORE_MB = 4000
"""Memory of a default pilot for each of its cores, if the node has as much."""


def read_queues(stated: object) -> tuple[Queue, ...]:
    """Queues in the order in which they are stated.

    Raises:
        SiteError: A key is unknown or missing, or a value cannot be read.
        RequestError: An amount cannot be read.
    """
    rows = pairs(stated, "hpcburst.queues")
    return tuple(_queue(str(name), fields) for name, fields in rows)


def allowed(queues: Sequence[Queue], forbidden: Sequence[str]) -> tuple[Queue, ...]:
    """The queues without those that nobody may use.

    Raises:
        SiteError: None is left.
    """
    left = tuple(queue for queue in queues if queue.name not in forbidden)
    if not left:
        raise SiteError(
            f"hpcburst.forbidden names {', '.join(forbidden)}", "no other queue is there", WHERE
        )
    return left


def default_shape(
    stated: Mapping[str, Any], queues: Sequence[Queue], forbidden: Sequence[str] = ()
) -> Shape:
    """What a pilot is when nobody asks for more; its share of a node where nothing is stated.

    Raises:
        SiteError: A value cannot be read, or no queue takes such a job.
        RequestError: An amount cannot be read.
    """
    name = stated["queue"]
    queue = _queue_named(name, queues, forbidden)
    cores = min(count(stated["cores"], "hpcburst.pilot.cores"), queue.max_cores)
    share_mb = min(USUAL_CORE_MB * cores, queue.max_memory_mb * cores // queue.max_cores)
    shape = Shape(
        cores=cores,
        memory_mb=read_memory_mb(stated["memory"]) if stated["memory"] else share_mb,
        gpus=count(stated["gpus"], "hpcburst.pilot.gpus", at_least=0),
        walltime_s=min(read_walltime_s(stated["walltime"]), queue.max_walltime_s),
        queue=name,
    )
    if not fits(shape, queue):
        raise SiteError(
            f"hpcburst.pilot is {shape}", f"queue {queue.name!r} takes no such job", WHERE
        )
    return shape


def _queue_named(name: str | None, queues: Sequence[Queue], forbidden: Sequence[str]) -> Queue:
    queue = next((queue for queue in queues if name in (None, queue.name)), None)
    if queue is None:
        known = f"the queues are {', '.join(queue.name for queue in queues)}"
        found = "the site forbids that queue" if name in forbidden else known
        raise SiteError(f"hpcburst.pilot.queue is {name!r}", found, WHERE)
    return queue


def _queue(name: str, stated: object) -> Queue:
    path = f"hpcburst.queues.{name}"
    fields = dashed(stated, path)
    refuse_unknown(fields, KEYS, path)
    missing = [key for key in NEEDED if key not in fields]
    if missing:
        raise SiteError(f"{path} was read", f"it lacks {', '.join(missing)}", WHERE)
    total = fields.get("total-cores")
    return Queue(
        name=name,
        max_cores=count(fields["cores"], f"{path}.cores"),
        max_memory_mb=read_memory_mb(fields["memory"]),
        max_gpus=count(fields.get("gpus", 0), f"{path}.gpus", at_least=0),
        max_walltime_s=read_walltime_s(fields["walltime"]),
        total_cores=None if total is None else count(total, f"{path}.total-cores"),
        price=number(fields.get("price", 1.0), f"{path}.price", zero=True),
        burst=flag(fields.get("burst", False), f"{path}.burst"),
    )
