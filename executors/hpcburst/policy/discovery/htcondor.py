"""What HTCondor says of its slots (`condor_status`): it has no queues and no walltimes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

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

POOL = "pool"
"""What the one queue is called here; HTCondor never hears the name."""

ATTRIBUTES = ("TotalSlotCpus", "TotalSlotMemory", "TotalSlotGPUs", "TotalSlots", "Machine")


def read(answers: Mapping[str, str]) -> Found:
    """One queue, as large as the largest slot."""
    rows = [line.split() for line in answers.get("slots", "").splitlines()]
    slots = [_slot(row) for row in rows if len(row) == len(ATTRIBUTES)]
    slots = [slot for slot in slots if slot.cores]
    if not slots:
        return Found()
    node, guesses = largest(slots)
    guesses["walltime"] = "HTCondor knows no walltime; a day"
    queue = Queue(
        name=POOL,
        max_cores=node.cores,
        max_memory_mb=node.memory_mb,
        max_gpus=node.gpus,
        max_walltime_s=UNTOLD_WALLTIME_S,
    )
    remark = "HTCondor has no queues: this one stands for the whole pool"
    return joined([FoundQueue(queue, guesses, remarks=(remark,), is_default=True)])


SYSTEM = System(
    first={
        # Slots that were cut out of others are as they are only while a job runs.
        "slots": (
            *("condor_status", "-startd", "-constraint", 'SlotType =!= "Dynamic"'),
            *("-autoformat", *ATTRIBUTES),
        )
    },
    read=read,
)


def _slot(row: list[str]) -> Node:
    """What cannot be read ("undefined") is not told."""
    return Node(count(row[0]) or 0, memory_mb(row[1]) or 0, count(row[2]) or 0)
