"""What Slurm says of its partitions (`sinfo`, `scontrol show`; read against 22.05). Pure."""

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
from hpcburst.policy.discovery.readings import cells, count, is_unlimited, memory_mb, walltime_s
from hpcburst.policy.model import Queue

NODES_FORMAT = "%P|%a|%l|%c|%m|%Z|%D|%G"
"""Partition, availability, time limit, CPUs, MiB, threads of a core, nodes of this kind, GRES."""

_GPUS = re.compile(r"(?:^|,)gpu(?::[^:,()]+)?:([0-9]{1,6})(?=[,(]|$)", re.ASCII)
_PARAMETER = re.compile(r"bf_max_job_user=([0-9]{1,9})", re.ASCII)
_OPEN_TO = ("AllowGroups", "AllowAccounts", "AllowQos", "AllocNodes")
_CLOSED_TO = ("DenyAccounts", "DenyQos")


def read(answers: Mapping[str, str]) -> Found:
    """Partitions from their nodes and their own records; either may be missing."""
    kinds = _kinds(answers.get("nodes", ""))
    partitions = dict(_partitions(answers.get("partitions", "")))
    config = dict(_config(answers.get("config", "")))
    names = list(dict.fromkeys([*kinds, *partitions]))
    queues = [_queue(name, kinds.get(name, []), partitions.get(name, {})) for name in names]
    if config.get("PreemptType", "").endswith("partition_prio"):
        queues = _preemptible_marked(queues, partitions)
    found = joined(queues)
    most = _PARAMETER.search(config.get("SchedulerParameters", ""))
    if most is None or not int(most[1]):
        return found
    why = "Slurm looks ahead for no more jobs of a user than these (bf_max_job_user)"
    return replace(found, settings={"max-pending": int(most[1])}, guesses={"max-pending": why})


SYSTEM = System(
    first={
        # Without -a both show only what this user may use.
        "nodes": ("sinfo", "-h", "-e", "-o", NODES_FORMAT),
        "partitions": ("scontrol", "show", "partition", "--oneliner"),
        "config": ("scontrol", "show", "config"),
    },
    read=read,
)


def _kinds(text: str) -> dict[str, list[tuple[list[str], Node]]]:
    """Rows of sinfo and the kind of node each tells, by partition."""
    kinds: dict[str, list[tuple[list[str], Node]]] = {}
    for row in cells(text, NODES_FORMAT.count("|") + 1):
        cores, nodes = count(row[3]), count(row[6])
        if row[0] and cores is not None and nodes is not None:
            gpus = sum(map(int, _GPUS.findall(row[7])))
            node = Node(cores, memory_mb(row[4]) or 0, gpus, nodes)
            kinds.setdefault(row[0].rstrip("*"), []).append((row, node))
    return kinds


def _partitions(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if line.startswith("PartitionName=") and fields["PartitionName"]:
            yield fields["PartitionName"], fields


def _config(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, between, value = line.partition("=")
        if between:
            yield name.strip(), value.strip()


def _queue(
    name: str, kinds: Sequence[tuple[Sequence[str], Node]], told: Mapping[str, str]
) -> FoundQueue:
    rows = [row for row, _ in kinds]
    node, guesses = largest(node for _, node in kinds)
    limit_s = walltime_s(told.get("MaxTime") or next((row[2] for row in rows), ""))
    if limit_s is None:
        guesses["walltime"] = "no limit is told; a day"
    if any(count(row[5]) not in (None, 0, 1) for row in rows):
        guesses.setdefault("cores", "Slurm counts hardware threads as CPUs")
    cores = limited(node.cores, count(told.get("MaxCPUsPerNode", "")))
    price, why = _price(told.get("TRESBillingWeights", ""))
    return FoundQueue(
        Queue(
            name=name,
            max_cores=cores,
            max_memory_mb=_memory_mb(node.memory_mb, cores, told),
            max_gpus=node.gpus,
            max_walltime_s=limit_s or UNTOLD_WALLTIME_S,
            price=price,
        ),
        guesses={**guesses, **why},
        remarks=tuple(_remarks(told)),
        is_default=told.get("Default") == "YES" or any(row[0].endswith("*") for row in rows),
        priority=count(told.get("PriorityTier", "")),
        closed=_closed(rows, told),
    )


def _memory_mb(of_node_mb: int, cores: int, told: Mapping[str, str]) -> int:
    of_core_mb = memory_mb(told.get("MaxMemPerCPU", ""))
    return limited(
        of_node_mb,
        memory_mb(told.get("MaxMemPerNode", "")),
        of_core_mb * cores if of_core_mb else None,
    )


def _price(weights: str) -> tuple[float, dict[str, str]]:
    found = re.search(r"(?:^|,)CPU=([0-9]{1,6}(?:\.[0-9]{1,6})?)(?=,|$)", weights, re.ASCII)
    if found is None or not float(found[1]):
        return 1.0, {}
    return float(found[1]), {"price": "what a CPU counts in TRESBillingWeights"}


def _closed(rows: Sequence[Sequence[str]], told: Mapping[str, str]) -> str:
    state = told.get("State", "UP")
    if state != "UP" or (rows and all(row[1] != "up" for row in rows)):
        return f"it is {state if state != 'UP' else rows[0][1]}"
    if told.get("RootOnly") == "YES":
        return "only root may submit to it"
    if told.get("ReqResv") == "YES":
        return "it takes jobs of reservations only"
    return "" if rows else "no node of it is told"


def _remarks(told: Mapping[str, str]) -> Iterator[str]:
    for key in _OPEN_TO:
        if told.get(key, "ALL") != "ALL":
            yield f"{key}={told[key]}"
    if memory_mb(told.get("MaxMemPerCPU", "")):
        yield f"a job gets {told['MaxMemPerCPU']} MiB for each of its CPUs at most (MaxMemPerCPU)"
    for key in _CLOSED_TO:
        if not is_unlimited(told.get(key, "")):
            yield f"{key}={told[key]}"
    if not is_unlimited(told.get("QoS", "")):
        yield f"the limits of QOS {told['QoS']} hold as well; Slurm does not tell them here"


def _preemptible_marked(
    queues: Sequence[FoundQueue], partitions: Mapping[str, Mapping[str, str]]
) -> list[FoundQueue]:
    top = max((row.priority or 0 for row in queues), default=0)
    marked = []
    for row in queues:
        mode = partitions.get(row.queue.name, {}).get("PreemptMode", "OFF")
        remark = f"its jobs give way to those of other partitions (PreemptMode={mode})"
        yields = mode != "OFF" and (row.priority or 0) < top
        marked.append(replace(row, remarks=(*row.remarks, remark)) if yields else row)
    return marked
