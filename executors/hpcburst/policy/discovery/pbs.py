"""What PBS and Torque say of their queues (`qstat -Qf`, `qstat -Bf`, `pbsnodes -a`). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hpcburst.policy.discovery.found import (
    UNTOLD_WALLTIME_S,
    Found,
    FoundQueue,
    Node,
    System,
    joined,
    largest,
    limited,
)
from hpcburst.policy.discovery.readings import count, memory_mb, records, walltime_s
from hpcburst.policy.model import Queue

_QUEUE = re.compile(r"Queue: (\S+)")
_SERVER = re.compile(r"Server: (\S+)")
_NODE = re.compile(r"([^\s=:]+)")
_PHYSICAL_MEMORY = re.compile(r"\bphysmem=([0-9]+[a-zA-Z]*)", re.ASCII)
_LIMITS = ("max_run", "max_queued", "max_user_run", "max_user_queuable")


def read(answers: Mapping[str, str]) -> Found:
    """Execution queues by their own limits and their nodes, routes by those they lead to."""
    server = next((told for _, told in records(answers.get("server", ""), _SERVER)), {})
    queues = dict(records(answers.get("queues", ""), _QUEUE))
    nodes = _nodes(answers.get("nodes", ""))
    runs = {
        name: _queue(name, told, server, nodes)
        for name, told in queues.items()
        if not told.get("queue_type", "").startswith("R")
    }
    rows = [runs.get(name) or _route(name, told, server, runs) for name, told in queues.items()]
    return joined(rows, remarks=_remarks(server))


SYSTEM = System(
    first={
        "queues": ("qstat", "-Q", "-f"),
        "server": ("qstat", "-B", "-f"),
        "nodes": ("pbsnodes", "-a"),
    },
    read=read,
)


def _nodes(text: str) -> list[tuple[str, Node]]:
    """Each node, and the queue that it belongs to alone."""
    return [
        (told.get("queue", told.get("resources_available.Qlist", "")), _node(told))
        for name, told in records(text, _NODE)
    ]


def _node(told: Mapping[str, str]) -> Node:
    """PBS tells resources, Torque `np`, `gpus` and what the node itself reports."""
    reported = _PHYSICAL_MEMORY.search(told.get("status", ""))
    memory = told.get("resources_available.mem", reported[1] if reported else "")
    cores = told.get("resources_available.ncpus", told.get("np", told.get("pcpus", "")))
    gpus = told.get("resources_available.ngpus", told.get("gpus", ""))
    return Node(count(cores) or 0, memory_mb(memory, unit="b") or 0, count(gpus) or 0)


def _queue(
    name: str,
    told: Mapping[str, str],
    server: Mapping[str, str],
    nodes: Sequence[tuple[str, Node]],
) -> FoundQueue:
    own = [node for queue, node in nodes if name in queue.split(",")]
    node, guesses = largest(own or [node for queue, node in nodes if not queue])
    limits = {**_limits(server), **_limits(told)}
    limit_s = walltime_s(limits.get("walltime", ""), bare_s=1)
    if limit_s is None:
        guesses["walltime"] = "no limit is told; a day"
    cores = limits.get("ncpus", limits.get("procct", ""))
    return FoundQueue(
        Queue(
            name=name,
            max_cores=limited(node.cores, count(cores)),
            max_memory_mb=limited(node.memory_mb, memory_mb(limits.get("mem", ""), unit="b")),
            max_gpus=limited(node.gpus, count(limits.get("ngpus", ""))),
            max_walltime_s=limit_s or UNTOLD_WALLTIME_S,
        ),
        guesses=guesses,
        remarks=tuple(_remarks(told)),
        is_default=server.get("default_queue") == name,
        priority=count(told.get("Priority", "")),
        closed=_closed(told),
    )


def _route(
    name: str,
    told: Mapping[str, str],
    server: Mapping[str, str],
    runs: Mapping[str, FoundQueue],
) -> FoundQueue:
    """A queue that hands jobs on: it takes what any of its destinations takes."""
    ways = [runs[way] for way in told.get("route_destinations", "").split(",") if way in runs]
    if not ways:
        lost = FoundQueue(Queue(name, 1, 1))
        return replace(lost, closed=_closed(told) or "it leads to no queue of this server")
    most = max((way.queue for way in ways), key=lambda queue: (queue.max_cores, queue.max_gpus))
    longest_s = max(way.queue.max_walltime_s for way in ways)
    why = f"it hands jobs on to {', '.join(way.queue.name for way in ways)}"
    return FoundQueue(
        replace(most, name=name, max_walltime_s=longest_s),
        guesses={"cores": why, "memory": why, "walltime": why},
        remarks=tuple(_remarks(told)),
        is_default=server.get("default_queue") == name,
        closed=_closed(told),
    )


def _limits(told: Mapping[str, str]) -> dict[str, str]:
    """`resources_max.NAME`, by NAME."""
    head = "resources_max."
    return {name[len(head) :]: text for name, text in told.items() if name.startswith(head)}


def _closed(told: Mapping[str, str]) -> str:
    if told.get("enabled", "True") != "True":
        return "it takes no jobs (enabled = False)"
    if told.get("started", "True") != "True":
        return "its jobs are not started (started = False)"
    if told.get("from_route_only") == "True":
        return "jobs come to it from a routing queue only"
    return ""


def _remarks(told: Mapping[str, str]) -> Iterator[str]:
    for key in _LIMITS:
        if told.get(key):
            yield f"{key} = {told[key]}"
    for key in ("acl_users", "acl_groups"):
        if told.get(key) and told.get(f"{key[:-1]}_enable", "True") == "True":
            yield f"only for {key[4:]} {told[key]}"
