"""What a task asks for after a failure that more of something would have prevented. Pure."""

from __future__ import annotations

from dataclasses import replace

from hpcburst.results import Failure, Fault
from hpcburst.tasks import Needs


def next_needs(needs: Needs, failure: Failure) -> Needs | None:
    """What to ask for next, by the reason of the failure: memory or time, never both.

    Args:
        needs: What the task asked for.
        failure: How it ended. A time-out counts as its walltime's.

    Returns:
        The needs with the next step taken; None when more would not help, or there is no more.
    """
    if failure.short_of_memory:
        return _more_memory(needs)
    return _more_time(needs) if failure.fault is Fault.TIMEOUT else None


def largest_needs(needs: Needs) -> Needs:
    """What the task asks for when all steps are taken: what holds this holds all before it."""
    for more in (_more_memory, _more_time):
        while (after := more(needs)) is not None:
            needs = after
    return needs


def step_count(needs: Needs) -> int:
    """How many steps there are after the first."""
    return len(needs.larger_memory_mb) + len(needs.longer_walltime_s)


def words(needs: Needs) -> str:
    """The memory and time that needs state, for a message."""
    stated = [f"{needs.memory_mb} MB of memory"] if needs.memory_mb else []
    if needs.walltime_s:
        stated.append(f"{needs.walltime_s:g} s of walltime")
    return " and ".join(stated)


def _more_memory(needs: Needs) -> Needs | None:
    if not needs.larger_memory_mb:
        return None
    next_mb, *rest = needs.larger_memory_mb
    return replace(needs, memory_mb=next_mb, larger_memory_mb=tuple(rest))


def _more_time(needs: Needs) -> Needs | None:
    if not needs.longer_walltime_s:
        return None
    next_s, *rest = needs.longer_walltime_s
    return replace(needs, walltime_s=next_s, longer_walltime_s=tuple(rest))
