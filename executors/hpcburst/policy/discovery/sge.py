"""What Grid Engine says of its queues (`qconf`, `qhost`; read against 8.1.9). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
from hpcburst.policy.discovery.readings import count, is_unlimited, memory_mb, walltime_s
from hpcburst.policy.model import Queue

MOST_ENVIRONMENTS = 20
"""Parallel environments that are looked at: each is a command of its own."""

MEMORY_RESOURCES = ("h_vmem", "mem_free", "virtual_free", "s_vmem", "h_rss")
"""Names that sites make consumable for memory, the usual one first."""

_NAME = re.compile(r"[\w.-]{1,128}", re.ASCII)
_PART = re.compile(r"\[(@?[^=\[\]]+)=([^\]]*)\]")
_ENVIRONMENT = "environment-"


def read(answers: Mapping[str, str]) -> Found:
    """Queues by their own limits and the hosts there are."""
    hosts = _hosts(answers.get("hosts", ""))
    free_mb = _free_mb(answers.get("free", ""))
    blocks = [told for told in _blocks(answers.get("queues", ""), "qname") if told["qname"]]
    found = joined(_queue(told, hosts, free_mb) for told in sorted(blocks, key=_sequence_number))
    dialect, guesses = _dialect(answers)
    remarks = ["Grid Engine has no default queue: a job that names none may go to any"]
    return replace(found, dialect=dialect, guesses=guesses, remarks=tuple(remarks))


def then(answers: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    """The parallel environments, one command for each, and what hosts have of memory to count."""
    memory = _memory_resource(answers.get("resources", ""))
    free = {"free": ("qhost", "-F", memory)} if memory else {}
    words = answers.get("environments", "").split()
    names = [word for word in words if _NAME.fullmatch(word) and not word.startswith("-")]
    rules = {_ENVIRONMENT + name: ("qconf", "-sp", name) for name in names[:MOST_ENVIRONMENTS]}
    return {**free, **rules}


SYSTEM = System(
    first={
        "queues": ("qconf", "-sq", "*"),
        "hosts": ("qhost",),
        "resources": ("qconf", "-sc"),
        "environments": ("qconf", "-spl"),
    },
    then=then,
    read=read,
)


def _blocks(text: str, first: str) -> Iterator[dict[str, str]]:
    """Blocks of "name   value" lines that begin with the name `first`; some lines are broken."""
    block: dict[str, str] = {}
    for line in re.sub(r"\\\r?\n\s*", " ", text).splitlines():
        name, _, value = line.strip().partition(" ")
        if name == first:
            if block:
                yield block
            block = {}
        if name == first or block:
            block.setdefault(name, value.strip())
    if block:
        yield block


def _hosts(text: str) -> dict[str, Node]:
    """Cores and memory of the hosts, by the columns that qhost names."""
    head: list[str] = []
    hosts = {}
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["HOSTNAME"]:
            head = words
        elif head and len(words) == len(head) and words[0] != "global":
            told = dict(zip(head, words, strict=True))
            cores, memory = count(told.get("NCPU", "")), memory_mb(told.get("MEMTOT", ""))
            hosts[words[0].split(".")[0]] = Node(cores or 0, memory or 0)
    return hosts


def _sequence_number(told: Mapping[str, str]) -> int:
    """Where sites sort queues by number, the least is filled first."""
    return count(_split(told.get("seq_no", ""))[0]) or 0


def _queue(told: Mapping[str, str], hosts: Mapping[str, Node], free_mb: int | None) -> FoundQueue:
    slots, own = _split(told.get("slots", ""))
    nodes = _nodes(slots, own, hosts)
    node, guesses = largest(nodes)
    limit_s = _least_s(told.get("h_rt", ""))
    if limit_s is None:
        guesses["walltime"] = "no limit is told; a day"
    if "memory" not in guesses:
        free = "what a host has free now of the resource that memory is counted by"
        guesses["memory"] = free if free_mb else "what the hosts have, and nobody counts"
    if [node.cores for node in nodes] != [host.cores for host in hosts.values()]:
        guesses.setdefault("cores", "its slots on the host that has most")
    return FoundQueue(
        Queue(
            name=told["qname"],
            max_cores=node.cores,
            max_memory_mb=limited(node.memory_mb, _of_job_mb(told, node.cores), free_mb),
            max_walltime_s=limit_s or UNTOLD_WALLTIME_S,
        ),
        guesses=guesses,
        remarks=tuple(_remarks(told)),
        closed=_closed(told),
    )


def _of_job_mb(told: Mapping[str, str], slots: int) -> int | None:
    """A queue's limit holds for each slot."""
    text = _split(told.get("h_vmem", ""))[0]
    of_slot_mb = None if is_unlimited(text) else memory_mb(text, unit="b")
    return of_slot_mb * slots if of_slot_mb else None


def _free_mb(text: str) -> int | None:
    """The most that a host has of the one resource asked for."""
    found = re.findall(r"\bh[cl]:[\w.-]+=(\S+)", text)
    return max((memory_mb(value, unit="b") or 0 for value in found), default=None)


def _nodes(slots: str, own: Mapping[str, str], hosts: Mapping[str, Node]) -> list[Node]:
    """What the queue has on each host: its slots there, the host's memory."""
    everywhere = count(slots) or 0
    named = {host.split(".")[0]: count(text) or 0 for host, text in own.items() if host[0] != "@"}
    grouped = max((count(text) or 0 for host, text in own.items() if host[0] == "@"), default=0)
    usual = max(everywhere, grouped)
    if not hosts:
        return [Node(cores, 0) for cores in {usual, *named.values()} if cores]
    return [replace(node, cores=named.get(host, usual)) for host, node in hosts.items()]


def _split(text: str) -> tuple[str, dict[str, str]]:
    """A value of a queue and what it is on some hosts: "1,[n1=4],[@big=64]"."""
    return text.split(",", maxsplit=1)[0].split("[", maxsplit=1)[0].strip(), dict(
        _PART.findall(text)
    )


def _least_s(text: str) -> float | None:
    """The least time limit on any host: a job within it fits everywhere."""
    usual, own = _split(text)
    limits = [walltime_s(part, bare_s=1) for part in (usual, *own.values())]
    return min((limit for limit in limits if limit), default=None)


def _closed(told: Mapping[str, str]) -> str:
    kinds = _split(told.get("qtype", "BATCH"))[0].split()
    if "BATCH" not in kinds and is_unlimited(told.get("pe_list", "")):
        return "it takes no batch jobs"
    if told.get("initial_state", "default") == "disabled":
        return "it is disabled"
    return ""


def _remarks(told: Mapping[str, str]) -> Iterator[str]:
    for key in ("user_lists", "xuser_lists", "projects", "xprojects"):
        if not is_unlimited(told.get(key, "")):
            yield f"{key} {told[key]}"
    if not is_unlimited(told.get("subordinate_list", "")):
        yield f"it suspends jobs of {told['subordinate_list']}"


def _dialect(answers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    dialect, guesses = {}, {}
    whole = [name for name, rule in _rules(answers).items() if rule == "$pe_slots"]
    if whole:
        dialect["parallel-environment"] = whole[0]
        guesses["parallel-environment"] = (
            f"of those that give slots of one host: {', '.join(whole)}"
        )
    memory = _memory_resource(answers.get("resources", ""))
    if memory:
        dialect["memory-resource"] = memory
        guesses["memory-resource"] = "it is consumable, and counted for each slot"
    return dialect, guesses


def _rules(answers: Mapping[str, str]) -> dict[str, str]:
    """How each parallel environment gives slots."""
    texts = [text for name, text in answers.items() if name.startswith(_ENVIRONMENT)]
    blocks = [block for text in texts for block in _blocks(text, "pe_name")]
    return {block["pe_name"]: block.get("allocation_rule", "") for block in blocks}


def _memory_resource(text: str) -> str | None:
    """The consumable resource of type MEMORY, if there is one of a usual name."""
    rows = [line.split() for line in text.splitlines()]
    consumable = {
        row[0] for row in rows if len(row) >= 6 and row[2] == "MEMORY" and row[5] == "YES"
    }
    return next((name for name in MEMORY_RESOURCES if name in consumable), None)
