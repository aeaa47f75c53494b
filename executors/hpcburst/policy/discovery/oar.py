"""What OAR says of its resources (`oarnodes -J`); its queues it tells to administrators. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpcburst.policy.discovery.found import (
    UNTOLD_WALLTIME_S,
    Found,
    FoundQueue,
    Node,
    System,
    joined,
    largest,
)
from hpcburst.policy.discovery.readings import count, memory_mb
from hpcburst.policy.model import Queue

_MEMORY = ("memnode", "mem", "memory")


def read(answers: Mapping[str, str]) -> Found:
    """The default queue, as large as the largest node."""
    nodes = list(_nodes(_resources(answers.get("resources", ""))))
    if not nodes:
        return Found()
    node, guesses = largest(nodes)
    guesses["walltime"] = "OAR tells no limit; a day"
    queue = Queue(
        name="default",
        max_cores=node.cores,
        max_memory_mb=node.memory_mb,
        max_gpus=node.gpus,
        max_walltime_s=UNTOLD_WALLTIME_S,
    )
    remark = "OAR tells no queues; this is the usual one, `besteffort` the one whose jobs give way"
    return joined([FoundQueue(queue, guesses, remarks=(remark,), is_default=True)])


SYSTEM = System(first={"resources": ("oarnodes", "-J")}, read=read)


def _resources(text: str) -> list[Mapping[str, Any]]:
    """The resources that can be used, from the first JSON in the text."""
    try:
        document, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
    except (ValueError, RecursionError):
        return []
    rows = document.values() if isinstance(document, dict) else []
    return [row for row in rows if isinstance(row, dict) and row.get("state") != "Dead"]


def _nodes(resources: Sequence[Mapping[str, Any]]) -> Iterator[Node]:
    """Resources are cores (or their threads); a node has those of its address."""
    addresses = [str(row.get("network_address") or "") for row in resources]
    sizes = Counter(address for address in addresses if address)
    for address, row in {a: row for a, row in zip(addresses, resources, strict=True) if a}.items():
        memory = next((str(row[key]) for key in _MEMORY if row.get(key)), "")
        gpus = str(row.get("gpu_count") or "")
        yield Node(sizes[address], memory_mb(memory) or 0, count(gpus) or 0)
