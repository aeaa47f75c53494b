"""What LSF says of its queues (`bqueues -l`, `bparams`, `lshosts -w`). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

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
from hpcburst.policy.discovery.readings import count, is_unlimited, memory_mb
from hpcburst.policy.model import Queue

_QUEUE = re.compile(r"^QUEUE:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_MAXIMUM = re.compile(r"^ ?MAXIMUM LIMITS:[^\n]*\n(.*?)(?:^\w|\Z)", re.MULTILINE | re.DOTALL)
_LIMIT = re.compile(r"^ *([A-Z]+(?:LIMIT))\b[^\n]*\n([^\n]*)", re.MULTILINE)
_PARAMETERS = re.compile(r"^PRIO\b([^\n]*)\n([^\n]*)", re.MULTILINE)
_DEFAULTS = re.compile(r"^Default Queues?:(.*)$", re.MULTILINE)
_MINUTES = re.compile(r" *([0-9]{1,9})(?:\.[0-9]{1,3})? min", re.ASCII)
_MEMORY = re.compile(r" *([0-9]{1,12}(?:\.[0-9]{1,6})?) *([KMGT])B?\b", re.ASCII)
_GPUS = re.compile(r"\bngpus[:=]([0-9]{1,4})\b", re.ASCII)
_WHO = re.compile(r"^(USERS|HOSTS):[ \t]*(.*)$", re.MULTILINE)


def read(answers: Mapping[str, str]) -> Found:
    """Queues by their own limits and the hosts there are."""
    nodes = list(_nodes(answers.get("hosts", "")))
    defaults = _defaults(answers.get("parameters", ""))
    parts = _QUEUE.split(answers.get("queues", ""))[1:]
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return joined(_queue(name, text, nodes, defaults) for name, text in pairs)


SYSTEM = System(
    first={
        "queues": ("bqueues", "-l"),
        "parameters": ("bparams",),
        "hosts": ("lshosts", "-w"),
    },
    read=read,
)


def _defaults(text: str) -> str:
    """The first of the default queues."""
    found = _DEFAULTS.search(text)
    words = found[1].split() if found else []
    return words[0] if words else ""


def _nodes(text: str) -> Iterator[Node]:
    """Hosts that run jobs, by the columns that lshosts names."""
    head: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["HOST_NAME"]:
            head = words
        elif head and len(words) >= len(head) - 1:
            told = dict(zip(head, words, strict=False))
            cores = count(told.get("ncpus", ""))
            if cores and told.get("server") != "No":
                yield Node(cores, memory_mb(told.get("maxmem", "")) or 0)


def _queue(name: str, text: str, nodes: Sequence[Node], default: str) -> FoundQueue:
    node, guesses = largest(nodes)
    limits = _limits(text)
    minutes = _MINUTES.match(limits.get("RUNLIMIT", ""))
    limit_s = int(minutes[1]) * 60.0 if minutes else 0.0
    if not limit_s:
        guesses["walltime"] = "no limit is told; a day"
    if not limits.get("MEMLIMIT") and "memory" not in guesses:
        guesses["memory"] = "what the largest host has"
    return FoundQueue(
        Queue(
            name=name,
            max_cores=limited(node.cores, _most_tasks(limits)),
            max_memory_mb=limited(node.memory_mb, _memory_mb(limits.get("MEMLIMIT", ""))),
            max_gpus=max(map(int, _GPUS.findall(text)), default=0),
            max_walltime_s=limit_s or UNTOLD_WALLTIME_S,
        ),
        guesses=guesses,
        remarks=tuple(_remarks(text)),
        is_default=name == default,
        priority=count(_parameters(text).get("PRIO", "")),
        closed=_closed(_parameters(text).get("STATUS", "")),
    )


def _limits(text: str) -> dict[str, str]:
    """Maximum limits, by name; a name stands over its value."""
    found = _MAXIMUM.search(text)
    return dict(_LIMIT.findall(found[1])) if found else {}


def _most_tasks(limits: Mapping[str, str]) -> int | None:
    """The last of "least, default, most" tasks of a job."""
    words = (limits.get("TASKLIMIT") or limits.get("PROCLIMIT") or "").split()
    return count(words[-1]) if words else None


def _memory_mb(text: str) -> int | None:
    found = _MEMORY.match(text)
    return memory_mb("".join(found.groups())) if found else None


def _parameters(text: str) -> dict[str, str]:
    found = _PARAMETERS.search(text)
    if found is None:
        return {}
    return dict(zip(["PRIO", *found[1].split()], found[2].split(), strict=False))


def _closed(status: str) -> str:
    if status.startswith("Closed"):
        return f"it takes no jobs ({status})"
    if status.endswith(":Inact_Adm"):
        return f"its jobs are not started ({status})"
    return ""


def _remarks(text: str) -> Iterator[str]:
    for who, names in _WHO.findall(text):
        if names.split() and names.split()[0] != "all":
            yield f"{who.lower()}: {' '.join(names.split())}"
    most = _parameters(text).get("JL/U", "-")
    if not is_unlimited(most):
        yield f"one user has at most {most} slots in it (JL/U)"
