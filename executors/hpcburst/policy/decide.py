"""Grant or refuse, before anything is queued. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hpcburst.errors import RequestError
from hpcburst.policy.model import Queue, Site
from hpcburst.tasks import START_S, Needs, Shape


def grant(needs: Needs, site: Site, shapes: Sequence[Shape] = ()) -> Shape:
    """The shape of pilot that a task with these needs will run on.

    The smallest of `shapes` (or the site's default shape) that holds the task; when none does, the
    default shape grown to what the task asks, if a queue allows it.

    Args:
        needs: What the task asks for.
        site: What the site allows.
        shapes: Shapes the user configured; when given, each task must fit one of them.

    Raises:
        RequestError: No queue, or none of the configured shapes, can hold the task.
    """
    there = [replace(shape, placement=needs.placement) for shape in shapes or (site.default_shape,)]
    choices = [shape for shape in there if shape.holds(needs)]
    if choices:
        return min(choices, key=_size)
    if shapes:
        raise RequestError(
            f"A task asks for {_words(needs)}",
            f"none of the shapes holds it ({'; '.join(map(str, shapes))})",
            "add a shape that does, or ask for less",
        )
    return _grown(needs, site)


def longest_s(granted: Shape, needs: Needs, site: Site, shapes: Sequence[Shape] = ()) -> float:
    """Walltime of the longest pilot that a task with this grant may get.

    Args:
        granted: What `grant` gave it.
        needs: What the task asks for.
        site: What the site allows.
        shapes: Shapes the user configured; when given, no other ones are used.
    """
    if shapes:
        there = [granted, *(replace(shape, placement=needs.placement) for shape in shapes)]
        return max(shape.walltime_s for shape in there if shape.holds(needs))
    queue = site.queue(granted.queue)
    return queue.max_walltime_s if queue else granted.walltime_s


def fits(shape: Shape, queue: Queue) -> bool:
    """Whether the queue takes a job of this shape at all."""
    return not _excess(shape, queue)


def _grown(needs: Needs, site: Site) -> Shape:
    base = site.default_shape
    shape = replace(
        base,
        cores=max(base.cores, needs.cores),
        memory_mb=max(base.memory_mb, needs.memory_mb or 0),
        gpus=max(base.gpus, needs.gpus),
        walltime_s=max(base.walltime_s, _least_walltime_s(needs)),
        queue=needs.queue or base.queue,
        placement=needs.placement,
    )
    wanted = [queue for queue in site.queues if shape.queue in (None, queue.name)]
    if not wanted:
        raise RequestError(
            f"Queue {shape.queue!r} was asked for",
            "this site has no such queue",
            f"the queues are {', '.join(queue.name for queue in site.queues)}",
        )
    for queue in wanted:
        if fits(shape, queue):
            named = shape.queue or (None if queue is site.queues[0] else queue.name)
            return replace(shape, queue=named, walltime_s=_walltime_s(shape, needs, queue))
    best = min(wanted, key=lambda queue: (len(_excess(shape, queue)), -queue.max_cores))
    raise RequestError(
        f"A task asks for {_words(needs)}",
        f"that is more than any queue has: {'; '.join(_excess(shape, best))}",
        "ask for less, or split the task",
    )


def _least_walltime_s(needs: Needs) -> float:
    return needs.walltime_s + START_S if needs.walltime_s else 0.0


def _walltime_s(shape: Shape, needs: Needs, queue: Queue) -> float:
    """Long enough for two such tasks, one after the other, if the queue allows it.

    A job that is just long enough for one would have no time for a second when the first is quick,
    and a second job would have to queue for it.
    """
    two_s = 2 * (needs.walltime_s or 0.0) + START_S
    return max(shape.walltime_s, min(two_s, queue.max_walltime_s))


def _excess(shape: Shape, queue: Queue) -> list[str]:
    rows = (
        ("cores", shape.cores, queue.max_cores),
        ("MB of memory", shape.memory_mb, queue.max_memory_mb),
        ("GPUs", shape.gpus, queue.max_gpus),
        (
            f"s of walltime (its start takes {START_S:g} of them)",
            shape.walltime_s,
            queue.max_walltime_s,
        ),
    )
    return [
        f"queue {queue.name!r} gives at most {limit:g} {what}"
        for what, asked, limit in rows
        if asked > limit
    ]


def _size(shape: Shape) -> tuple[float, ...]:
    return (shape.gpus, shape.cores, shape.memory_mb, shape.walltime_s)


def _words(needs: Needs) -> str:
    words = [f"{needs.cores} cores" if needs.cores > 1 else "1 core"]
    if needs.memory_mb:
        words.append(f"{needs.memory_mb} MB of memory")
    if needs.gpus:
        words.append(f"{needs.gpus} GPUs")
    if needs.walltime_s:
        words.append(f"{needs.walltime_s:g} s of walltime")
    if needs.queue:
        words.append(f"queue {needs.queue!r}")
    return ", ".join(words)
