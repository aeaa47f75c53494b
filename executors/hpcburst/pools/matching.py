"""Which waiting task goes to which pilot: the largest first, and nobody is passed over for ever."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from hpcburst.pools.backlog import Backlog
from hpcburst.pools.pilots import Pilot
from hpcburst.pools.tickets import Ticket

OVERTAKEN = 10
"""So many younger tasks may take room that an older one could have had, because they are larger or
fit beside others; then it goes first, and a pilot is kept free for it."""


def matches(
    waiting: Backlog | deque[Ticket], pilots: Sequence[Pilot], foreign: Mapping[str, int]
) -> Iterator[tuple[Ticket, Pilot]]:
    """Take tasks off the queue for pilots with room, as long as there is some.

    The caller gives each pilot its task before it asks for the next pair.

    Args:
        waiting: The queue; what finds no pilot stays in it, in order.
        pilots: Pilots that are up.
        foreign: Tasks of plain Dask that each pilot has, by its name.
    """
    if isinstance(waiting, Backlog):
        yield from _matches(waiting, pilots, foreign)
    elif any(_has_room(pilot, foreign) for pilot in pilots):
        backlog = Backlog(waiting)
        try:
            yield from _matches(backlog, pilots, foreign)
        finally:
            waiting.clear()
            waiting.extend(backlog)


def _matches(
    waiting: Backlog, pilots: Sequence[Pilot], foreign: Mapping[str, int]
) -> Iterator[tuple[Ticket, Pilot]]:
    open_pilots = [pilot for pilot in pilots if _has_room(pilot, foreign)]
    kept: dict[str, int] = {}
    heads = sorted(waiting.oldest(), key=_urgency) if open_pilots else []
    for head in heads:
        place, ticket = head
        while open_pilots:
            if ticket.future.cancelled():
                waiting.remove(ticket)
            elif pilot := _best(ticket, place, open_pilots, foreign, kept):
                waiting.remove(ticket)
                _note_overtaken(place, pilot, heads)
                yield ticket, pilot
                open_pilots = [pilot for pilot in open_pilots if _has_room(pilot, foreign)]
            else:
                kept |= _keep_free(ticket, place, pilots, kept)
                break
            following = waiting.next_like(ticket)
            if following is None:
                break
            place, ticket = following


def _urgency(head: tuple[int, Ticket]) -> tuple[float, ...]:
    """Who was passed over too often; then the largest, for small ones find room beside them."""
    place, ticket = head
    needs = ticket.burst.needs
    overtaken = ticket.overtaken >= OVERTAKEN
    return (not overtaken, -needs.gpus, -needs.cores, -(needs.memory_mb or 0), place)


def _best(
    ticket: Ticket,
    place: int,
    pilots: Sequence[Pilot],
    foreign: Mapping[str, int],
    kept: Mapping[str, int],
) -> Pilot | None:
    """A pilot that takes the task: of its shape, with its env, and the one that ends soonest.

    That is the same one until it is full: full pilots beside empty ones let the empty ones go.
    """
    able = [
        pilot
        for pilot in pilots
        if pilot.takes(ticket, foreign[pilot.name]) and kept.get(pilot.name, place) >= place
    ]
    shape, key = ticket.shape, ticket.env_key
    return max(
        able,
        key=lambda pilot: (
            pilot.shape.gpus <= ticket.burst.needs.gpus,
            pilot.shape == shape,
            key in pilot.warm,
            -pilot.left_s,
        ),
        default=None,
    )


def _note_overtaken(place: int, pilot: Pilot, heads: Sequence[tuple[int, Ticket]]) -> None:
    """Who is older and could have had this pilot has been passed over once more."""
    for other_place, other in heads:
        if other_place < place and _could_hold(pilot, other):
            other.overtaken += 1


def _keep_free(
    ticket: Ticket, place: int, pilots: Sequence[Pilot], kept: Mapping[str, int]
) -> dict[str, int]:
    """The pilot that younger tasks leave alone until this one, passed over too often, fits."""
    if ticket.overtaken < OVERTAKEN:
        return {}
    able = [pilot for pilot in pilots if pilot.name not in kept and _could_hold(pilot, ticket)]
    return {max(able, key=Pilot.free).name: place} if able else {}


def _could_hold(pilot: Pilot, ticket: Ticket) -> bool:
    """Whether the pilot would take the task if it had no other."""
    needs, shape = ticket.burst.needs, pilot.shape
    return (
        needs.cores <= shape.cores
        and (needs.memory_mb or 0) <= shape.memory_mb
        and needs.gpus <= shape.gpus
        and needs.queue in (None, shape.queue)
        and needs.placement == shape.placement
        and pilot.lasts(ticket.needed_s)
    )


def _has_room(pilot: Pilot, foreign: Mapping[str, int]) -> bool:
    return pilot.free()[0] > foreign[pilot.name]
