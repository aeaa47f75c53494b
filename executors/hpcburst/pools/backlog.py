"""The backlog: tasks that no pilot has, kept by kind.

A look at it costs as much as there are kinds, be it ten tasks or a million.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from hpcburst.pools.tickets import Kind, Ticket


class Backlog:
    """Waiting tasks in the order of their age, each also at its place among those of its kind.

    What makes a task's kind must not change while it waits.

    Args:
        tickets: Tasks to begin with, the oldest first.
    """

    def __init__(self, tickets: Iterable[Ticket] = ()) -> None:
        self._rows: dict[Kind, OrderedDict[Ticket, int]] = {}
        self._kinds: dict[Ticket, Kind] = {}
        self._taught: dict[tuple[str, str], float] = {}
        self._first = self._last = 0
        for ticket in tickets:
            self.append(ticket)

    def append(self, ticket: Ticket) -> None:
        """Queue a task last."""
        self._last += 1
        self._row(ticket)[ticket] = self._last

    def appendleft(self, ticket: Ticket) -> None:
        """Queue a task first."""
        self._first -= 1
        row = self._row(ticket)
        row[ticket] = self._first
        row.move_to_end(ticket, last=False)

    def remove(self, ticket: Ticket) -> None:
        """Take a task out.

        Raises:
            ValueError: It does not wait here.
        """
        kind = self._kinds.pop(ticket, None)
        if kind is None:
            raise ValueError("the task does not wait here")
        row = self._rows[kind]
        del row[ticket]
        if not row:
            del self._rows[kind]

    def clear(self) -> None:
        """Forget all tasks."""
        self._rows.clear()
        self._kinds.clear()

    def teach(self, ticket: Ticket, learned_s: float) -> None:
        """Tell all that wait what a task like them took, if it is news to them.

        News is what nobody knew, or what differs by a factor of two from what was told last: the
        tasks change their kind by it, and all of them are looked at.

        Args:
            ticket: The task that ended; its like have its name and env.
            learned_s: What such tasks are expected to take now.
        """
        name, env_key = ticket.history_name, ticket.env_key
        known_s = self._taught.get((name, env_key))
        if known_s is not None and known_s / 2 < learned_s < known_s * 2:
            return
        self._taught[name, env_key] = learned_s
        alike = [
            (place, other)
            for row in self._rows.values()
            for other, place in row.items()
            if other.history_name == name and other.env_key == env_key
        ]
        for place, other in alike:
            self.remove(other)
            other.learned_s = learned_s
            self._row(other)[other] = place
        for kind in {other.kind for _, other in alike}:
            by_age = sorted(self._rows[kind].items(), key=lambda item: item[1])
            self._rows[kind] = OrderedDict(by_age)

    def counts(self) -> dict[Kind, int]:
        """How many tasks of each kind wait."""
        return {kind: len(row) for kind, row in self._rows.items()}

    def oldest(self) -> list[tuple[int, Ticket]]:
        """Of each kind the oldest task and its place in the queue, the oldest first."""
        heads = (next(iter(row.items())) for row in self._rows.values())
        return sorted(((place, ticket) for ticket, place in heads), key=lambda head: head[0])

    def next_like(self, ticket: Ticket) -> tuple[int, Ticket] | None:
        """The oldest task of this task's kind that waits, and its place; None if there is none."""
        row = self._rows.get(ticket.kind)
        if not row:
            return None
        first, place = next(iter(row.items()))
        return place, first

    def __iter__(self) -> Iterator[Ticket]:
        places = ((place, ticket) for row in self._rows.values() for ticket, place in row.items())
        return (ticket for _, ticket in sorted(places, key=lambda head: head[0]))

    def __len__(self) -> int:
        return len(self._kinds)

    def _row(self, ticket: Ticket) -> OrderedDict[Ticket, int]:
        kind = self._kinds[ticket] = ticket.kind
        return self._rows.setdefault(kind, OrderedDict())
