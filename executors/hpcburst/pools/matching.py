"""Which waiting task goes to which pilot: the oldest first, to one of its shape and env."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from hpcburst.pools.pilots import Pilot
from hpcburst.pools.tickets import Ticket
from hpcburst.tasks import Shape


def matches(
    waiting: deque[Ticket], pilots: Sequence[Pilot], foreign: Mapping[str, int]
) -> Iterator[tuple[Ticket, Pilot]]:
    """Take tasks off the queue for pilots with room, as long as there is some.

    A pilot of another shape does as well, if no task that was granted its shape waits for it. The
    caller gives each pilot its task before it asks for the next pair.

    Args:
        waiting: The queue; what finds no pilot stays in it, in order.
        pilots: Pilots that are up.
        foreign: Tasks of plain Dask that each pilot has, by its name.
    """
    open_pilots = [pilot for pilot in pilots if _has_room(pilot, foreign)]
    spoken_for = {ticket.shape for ticket in waiting} if open_pilots else set()
    kept: deque[Ticket] = deque()
    try:
        while waiting and open_pilots:
            ticket = waiting.popleft()
            if ticket.future.cancelled():
                continue
            pilot = _best(ticket, open_pilots, foreign, spoken_for)
            if pilot is None:
                kept.append(ticket)
                continue
            yield ticket, pilot
            open_pilots = [pilot for pilot in open_pilots if _has_room(pilot, foreign)]
    finally:
        waiting.extendleft(reversed(kept))


def _best(
    ticket: Ticket, pilots: Sequence[Pilot], foreign: Mapping[str, int], spoken_for: set[Shape]
) -> Pilot | None:
    able = [
        pilot
        for pilot in pilots
        if pilot.takes(ticket, foreign[pilot.name])
        and (pilot.shape == ticket.shape or pilot.shape not in spoken_for)
    ]
    key = ticket.env_key
    return max(able, key=lambda p: (p.shape == ticket.shape, key in p.warm, p.free()), default=None)


def _has_room(pilot: Pilot, foreign: Mapping[str, int]) -> bool:
    return pilot.free()[0] > foreign[pilot.name]
