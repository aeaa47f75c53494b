"""What a batch system was found to be: queues, and every value that had to be guessed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from hpcburst.policy.model import Queue

UNTOLD_WALLTIME_S = 86400.0
"""Taken where no limit is told: ours are short jobs, and a day is within what most sites give."""

UNTOLD_CORES = 1
"""Taken where nobody tells how many cores a node has: one is there for certain."""

UNTOLD_MEMORY_MB = 1000
"""Taken where nobody tells how much memory a node has."""

BURST_WALLTIME_S = 4 * 3600.0
"""A queue that goes before all others and takes only jobs shorter than this is made for bursts."""


@dataclass(frozen=True, slots=True)
class FoundQueue:
    """One queue as the batch system told it.

    Attributes:
        queue: The queue, by its limits for one job.
        guesses: Key of the config to the reason why its value is a guess.
        remarks: What a person should know of it.
        is_default: Whether jobs that name no queue go there.
        priority: Its rank among the queues, higher goes first; None if that is not told.
        closed: Why no job of ours can go there; "" if one can.
    """

    queue: Queue
    guesses: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    is_default: bool = False
    priority: int | None = None
    closed: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a batch system.

    Attributes:
        queues: Its open queues, the default first.
        closed: Names of queues that are left out, with the reason.
        dialect: How the system is set up, by keys of `hpcburst.dialect`.
        settings: Values for other keys of the section.
        guesses: Key of `dialect` or `settings` to the reason why its value is a guess.
        remarks: What a person should know of the whole.
    """

    queues: tuple[FoundQueue, ...] = ()
    closed: Mapping[str, str] = field(default_factory=dict)
    dialect: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, int | str] = field(default_factory=dict)
    guesses: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def _nothing_more(answers: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:  # noqa: ARG001 - see System.then
    return {}


@dataclass(frozen=True, slots=True)
class System:
    """How one batch system is asked for its queues.

    Attributes:
        first: Commands to run, by names of ours.
        then: From their answers ("" for one that failed), the commands to run after them.
        read: From all answers, what was found. Never fails: what cannot be read says nothing.
    """

    first: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping[str, str]], Found]
    then: Callable[[Mapping[str, str]], Mapping[str, tuple[str, ...]]] = _nothing_more


@dataclass(frozen=True, slots=True)
class Node:
    """A kind of node, as far as one job can have it.

    Attributes:
        cores: CPU cores; 0 is not told.
        memory_mb: Memory in MB (10^6 bytes); 0 is not told.
        gpus: GPUs.
        count: How many there are.
    """

    cores: int
    memory_mb: int
    gpus: int = 0
    count: int = 1


def joined(queues: Iterable[FoundQueue], remarks: Iterable[str] = ()) -> Found:
    """Open queues, the default first and the others as they were told; closed ones by name."""
    rows = list({row.queue.name: row for row in queues}.values())
    opened = sorted((row for row in rows if not row.closed), key=lambda row: not row.is_default)
    return Found(
        queues=tuple(_burst_marked(opened)),
        closed={row.queue.name: row.closed for row in rows if row.closed},
        remarks=tuple(remarks),
    )


def largest(nodes: Iterable[Node]) -> tuple[Node, dict[str, str]]:
    """What a queue gives to one job, from its nodes, with what of it is a guess.

    Cores and memory are those of one real kind of node, so that a job within them fits somewhere.
    """
    told = [node for node in nodes if node.cores]
    sized = [node for node in told if node.memory_mb] or told
    kinds = sorted(sized, key=lambda node: (node.cores, node.memory_mb))
    if not kinds:
        why = "nobody told what its nodes have"
        return Node(UNTOLD_CORES, UNTOLD_MEMORY_MB), {"cores": why, "memory": why}
    best = kinds[-1]
    gpus = max(node.gpus for node in kinds)
    guesses = {}
    if len({(node.cores, node.memory_mb) for node in kinds}) > 1:
        words = _kinds_in_words(kinds)
        guesses["cores"] = f"nodes differ ({words}); those of the largest"
    if gpus > best.gpus:
        guesses["gpus"] = f"only nodes with {_with_gpus(kinds)} have them"
    if not best.memory_mb:
        guesses["memory"] = "nobody told what its nodes have"
    return replace(best, gpus=gpus, memory_mb=best.memory_mb or UNTOLD_MEMORY_MB), guesses


def limited(value: int, *limits: int | None) -> int:
    """The least of a value and the limits there are."""
    return min([value, *(limit for limit in limits if limit)])


def _burst_marked(queues: list[FoundQueue]) -> list[FoundQueue]:
    """The queue that goes before all others, if it takes short jobs only, is marked for bursts."""
    ranks = sorted({row.priority for row in queues if row.priority is not None})
    if len(ranks) < 2:
        return queues
    return [
        _for_bursts(row)
        if row.priority == ranks[-1] and row.queue.max_walltime_s <= BURST_WALLTIME_S
        else row
        for row in queues
    ]


def _for_bursts(row: FoundQueue) -> FoundQueue:
    why = f"its jobs go before all others (priority {row.priority}), and are short"
    return replace(row, queue=replace(row.queue, burst=True), guesses={**row.guesses, "burst": why})


def _kinds_in_words(kinds: list[Node]) -> str:
    shown = [f"{node.cores} cores {node.memory_mb} MB" for node in dict.fromkeys(kinds)]
    return ", ".join(dict.fromkeys(shown[-4:]))


def _with_gpus(kinds: list[Node]) -> str:
    return " or ".join(
        dict.fromkeys(f"{node.cores} cores {node.memory_mb} MB" for node in kinds if node.gpus)
    )
