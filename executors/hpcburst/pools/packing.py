"""Which tasks find room on the pilots there are, and how much work is left over. Pure.

Pilots that are alike are one bin with a count, so that ten thousand of them cost no more than a
few. Long tasks get a place each. Short ones share places one after the other, and are poured into
what is left like sand.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hpcburst.placement import Placement
from hpcburst.pools.situation import Demand, Phase, PilotView, Room
from hpcburst.tasks import START_S, Shape

WORTH_S = 10.0
"""Seconds of work that are worth a place of their own on a pilot. A pilot costs about 4 s in which
its cores are held and do nothing (its start, its patience, the wait for the last task of all), so
with ten seconds of work 70 % of what is held is used. Shorter tasks share places."""

LEAST_S = 0.05
"""What a task takes at least, with handing it out and having it back: no work is no task."""

ROUNDING = 1e-9
"""Less than this is nothing: the sum of many parts of a place is not exact."""

SOON = 1
_RANKS = {Phase.UP: 0, Phase.PENDING: 2, Phase.ASKED: 3}


@dataclass(frozen=True, slots=True)
class Group:
    """Equal tasks, ready to be packed.

    Attributes:
        row: The row of the demand.
        each: What one task takes.
        places: Places that the waiting tasks are worth; a fraction when they share.
        share: The part of a place that one task is worth; 1 for a long one.
    """

    row: Demand
    each: Room
    places: float
    share: float

    @classmethod
    def of(cls, row: Demand) -> Group:
        """The group of a row; a task never takes more than the pilot it was granted."""
        shape = row.shape
        each = Room(
            min(row.cores, shape.cores),
            min(row.memory_mb, shape.memory_mb),
            min(row.gpus, shape.gpus),
        )
        known_s = WORTH_S if row.expected_s is None else max(row.expected_s, LEAST_S)
        share = min(1.0, known_s / WORTH_S)
        return cls(row, each, row.waiting * share, share)

    @property
    def short(self) -> bool:
        """Whether its tasks share places."""
        return self.share < 1

    def places_on(self, room: Room) -> int:
        """How many of its tasks run at once in this room."""
        return int(_ratio(room, self.each))

    def runs_on(self, shape: Shape) -> bool:
        """Whether its tasks run on a fresh pilot of this shape."""
        return (
            self.places_on(room_of(shape)) > 0
            and self.row.queue in (None, shape.queue)
            and self.row.shape.placement == shape.placement
            and self.row.needed_s <= lasting_s(shape)
        )


@dataclass(slots=True)
class Bin:
    """Pilots that are alike: where they are in their life, what room they have, how long they last.

    Attributes:
        rank: In which order bins are filled: what is up first.
        queue: The pilots' queue.
        placement: The pilots' account and the like.
        lasting: How many of the demand's distinct `needed_s` they last for.
        whole: What long tasks leave of one pilot.
        room: What long and short tasks leave of one pilot.
        count: How many such pilots.
        names: Their names, in the order in which they are used; none for bins made while packing.
    """

    rank: int
    queue: str | None
    placement: Placement
    lasting: int
    whole: Room
    room: Room
    count: int = 0
    names: list[str] = field(default_factory=list)

    @property
    def order(self) -> tuple[float, ...]:
        """What is up first, then the smallest, then what ends soonest, then what is begun.

        So large room is left to large tasks, long time to long ones, and what is empty may go.
        """
        whole = self.whole
        sizes = (whole.gpus, whole.cores, whole.memory_mb)
        return (self.rank, *sizes, self.lasting, self.room.cores)

    def places_for(self, group: Group) -> float:
        """Places for this group's tasks on each pilot."""
        shape = group.row.shape
        if group.row.queue not in (None, self.queue) or shape.placement != self.placement:
            return 0.0
        if not group.places_on(self.whole):
            return 0.0
        ratio = _ratio(self.room, group.each)
        return ratio if group.short else float(int(ratio))


@dataclass(frozen=True, slots=True)
class Packed:
    """How the demand fits.

    Attributes:
        missing: Places that were not found, by row.
        served: Rows with tasks that run or found a place.
        unused: Names of pilots that no task found a place on.
    """

    missing: Mapping[Demand, float]
    served: frozenset[Demand]
    unused: frozenset[str]


def pack(groups: Sequence[Group], bins: Sequence[Bin]) -> Packed:
    """Give every task a place that there is; bins are not changed.

    First every group gets one place, so that none is left with nothing for another's sake; then the
    rest. The largest and longest go first.

    Args:
        groups: The tasks.
        bins: What `bins_of` made of the pilots and the same groups.
    """
    levels = {needed_s: level for level, needed_s in enumerate(_thresholds(groups))}
    left = [replace(bin_, names=list(bin_.names)) for bin_ in bins]
    order = sorted(groups, key=_largest_first)
    found = dict.fromkeys(range(len(order)), 0.0)
    for at_most in (1.0, math.inf):
        for number, group in enumerate(order):
            places = min(at_most, group.places - found[number])
            found[number] += places - _place(group, places, levels[group.row.needed_s], left)
    rows = [(group, found[number]) for number, group in enumerate(order)]
    return Packed(
        missing={
            group.row: group.places - places
            for group, places in rows
            if group.places - places > ROUNDING
        },
        served=frozenset(group.row for group, places in rows if places or group.row.running),
        unused=frozenset(name for bin_ in left for name in bin_.names),
    )


def bins_of(groups: Sequence[Group], pilots: Iterable[PilotView]) -> list[Bin]:
    """Bins for the pilots that take tasks, and for the places of short tasks that end soon."""
    thresholds = _thresholds(groups)
    bins: dict[tuple[int, Shape, int, Room | None], Bin] = {}
    for view in sorted(pilots, key=lambda view: view.since_s):
        if view.phase is Phase.DRAINING:
            continue
        left_s = view.left_s if view.phase is Phase.UP else lasting_s(view.shape)
        free = view.free if view.phase is Phase.UP else None
        key = (_RANKS[view.phase], view.shape, bisect_right(thresholds, left_s), free)
        if key not in bins:
            room = free or room_of(view.shape)
            shape = view.shape
            bins[key] = Bin(key[0], shape.queue, shape.placement, key[2], room, room)
        bins[key].count += 1
        bins[key].names.append(view.name)
    return [*bins.values(), *_soon_free(groups, len(thresholds))]


def bins_asked(groups: Sequence[Group], asked: Mapping[Shape, int]) -> list[Bin]:
    """Bins for jobs that are only being asked for."""
    thresholds = _thresholds(groups)
    return [
        Bin(
            _RANKS[Phase.ASKED],
            shape.queue,
            shape.placement,
            bisect_right(thresholds, lasting_s(shape)),
            room_of(shape),
            room_of(shape),
            count,
        )
        for shape, count in asked.items()
    ]


def room_of(shape: Shape) -> Room:
    """What an empty pilot of this shape has."""
    return Room(shape.cores, shape.memory_mb, shape.gpus)


def lasting_s(shape: Shape) -> float:
    """Seconds of work that a fresh pilot of this shape lasts for."""
    return max(0.0, shape.walltime_s - START_S)


def _soon_free(groups: Sequence[Group], lasting: int) -> Iterator[Bin]:
    """Places of short tasks that run: the next task has them in a moment."""
    for group in groups:
        if group.short and group.row.running:
            room = _less(group.each, group.each, group.share)
            row = group.row
            yield Bin(SOON, row.queue, row.shape.placement, lasting, group.each, room, row.running)


def _place(group: Group, places: float, level: int, bins: list[Bin]) -> float:
    """Fill bins with a group's tasks; returns the places that were not found."""
    for bin_ in sorted(bins, key=lambda bin_: bin_.order):
        if places <= ROUNDING:
            break
        each = bin_.places_for(group) if bin_.lasting > level else 0.0
        if not bin_.count or each <= ROUNDING:
            continue
        used = min(bin_.count, math.ceil(places / each - ROUNDING))
        placed = min(places, used * each)
        full = int(placed / each + ROUNDING)
        bins += _opened(bin_, group, each, full)
        bins += _opened(bin_, group, placed - full * each, used - full)
        bin_.count -= used
        del bin_.names[:used]
        places -= placed
    return max(0.0, places)


def _opened(bin_: Bin, group: Group, places: float, count: int) -> list[Bin]:
    """The part of a bin that such tasks were put in."""
    if count <= 0:
        return []
    room = _less(bin_.room, group.each, places)
    whole = bin_.whole if group.short else room
    return [replace(bin_, whole=whole, room=room, count=count, names=[])]


def _thresholds(groups: Sequence[Group]) -> list[float]:
    return sorted({group.row.needed_s for group in groups})


def _largest_first(group: Group) -> tuple[float, ...]:
    each = group.each
    return (group.short, -each.gpus, -each.cores, -each.memory_mb, -group.row.needed_s)


def _ratio(room: Room, each: Room) -> float:
    pairs = ((room.cores, each.cores), (room.memory_mb, each.memory_mb), (room.gpus, each.gpus))
    return max(0.0, min((have / take for have, take in pairs if take), default=math.inf))


def _less(room: Room, each: Room, places: float) -> Room:
    return Room(
        room.cores - places * each.cores,
        room.memory_mb - places * each.memory_mb,
        room.gpus - places * each.gpus,
    )
