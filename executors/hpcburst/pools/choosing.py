"""Which shape of pilot finishes a group's work soonest, and how many of them. Pure.

Every size, queue and walltime that would do is rated by the seconds until the work is done: the
wait for the jobs, and the work shared out on as many of them as the limits allow. What starts now,
in a known gap, wins; where nothing is known, short jobs wait less than long ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hpcburst.policy.decide import fits
from hpcburst.policy.model import Queue, Site
from hpcburst.pools.caps import Caps, GapMap, known_wait_s, queue_of
from hpcburst.pools.packing import ROUNDING, WORTH_S, Group, lasting_s, room_of
from hpcburst.pools.situation import Learned
from hpcburst.tasks import START_S, Shape

MARGIN_S = 30.0
"""Walltime beyond the work: a pilot takes no more tasks in its last 15 s, and tasks differ."""

SHORT_S = 600.0
"""Where no gap is known, work of unbounded length is cut into jobs of this length: schedulers fill
holes with such jobs, and it is twenty times what a job's start costs."""

GAP_WAIT_S = 15.0
"""Seconds until a job starts in a gap: half of the usual interval of backfill passes."""

UNKNOWN_WAIT_S = 60.0
"""Seconds until any job starts where nothing is known, before its length is counted."""

UNKNOWN_TASK_S = 60.0
"""What a task is taken to last when choices are rated and nothing is known of it."""

SURPLUS = 0.25
"""Pilots that leave less than this part of their places empty are as good as ones that fit."""

SCOUT_S = 120.0
"""Tasks of which nothing is known send one short job ahead, and more where gaps are free: most of
them are short, and the first that ends teaches how long the others take. One that is cut off is
sent again, to a pilot of the length it was granted."""

SCOUT_TASKS = 4
"""So many tasks must be alike to send one ahead; fewer are not put at risk."""

WALLTIMES_S = tuple(60.0 * minutes for minutes in (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 45, 60, 90))
"""Walltimes that jobs ask for, so that pilots are of a few kinds only; whole hours above."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What pilots are wanted for.

    Attributes:
        group: The tasks.
        missing: Places that they lack.
        first: Whether they have no pilot at all.
    """

    group: Group
    missing: float
    first: bool = False

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of how long the tasks take."""
        return self.group.row.expected_s is None and not self.group.row.needed_s

    @property
    def risks_some(self) -> bool:
        """Whether some of the tasks may be sent where they might be cut off."""
        return self.unknown and self.group.row.waiting >= SCOUT_TASKS

    def to_ask_now(self, caps: Caps) -> Wish:
        """One place only when one task is to be sent ahead, and others can follow."""
        ahead = self.first and self.risks_some and not self.group.row.shapes
        if ahead and min(caps.jobs, caps.pending) > 1:
            return replace(self, missing=min(1.0, self.missing))
        return replace(self, first=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides between pilots.

    Attributes:
        caps: What the limits leave.
        gaps: What the known gaps leave.
        learned: What earlier jobs taught.
    """

    caps: Caps
    gaps: GapMap
    learned: Learned


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask for.

    Attributes:
        shape: The shape of pilot.
        count: How many.
        words: Why this one.
    """

    shape: Shape
    count: int
    words: str


@dataclass(frozen=True, slots=True)
class _Walltimes:
    """Walltimes: what holds one task, what is tried in the queue, what would be used up."""

    least_s: float
    short_s: float
    useful_s: float

    @classmethod
    def only(cls, walltime_s: float) -> _Walltimes:
        return cls(walltime_s, walltime_s, walltime_s)


@dataclass(frozen=True, slots=True)
class _Option:
    """A shape that would do, and how soon one starts."""

    shape: Shape
    wait_s: float
    most: float
    words: str

    @property
    def in_gap(self) -> bool:
        """Whether it is known to start now."""
        return math.isfinite(self.most)


def choose(wish: Wish, terms: Terms) -> Choice | str:
    """What to ask for, so that the missing places come soonest; or, in words, why nothing."""
    caps, row = terms.caps, wish.group.row
    wish = wish.to_ask_now(caps)
    options = [option for option in _options(wish, terms) if wish.group.runs_on(option.shape)]
    if not options:
        return f"no queue takes a pilot that holds it (granted: {row.shape})"
    ready = [option for option in options if not paused(option.shape, caps.site, terms.learned)]
    if not ready:
        return paused(options[0].shape, caps.site, terms.learned)
    possible = [option for option in ready if caps.fits(option.shape)]
    if not possible:
        return caps.limit(ready[0].shape)
    best = min(possible, key=lambda option: _rating(option, wish, caps))
    wanted = _pilots_for(wish, best.shape)
    return Choice(best.shape, int(min(wanted, best.most, caps.fits(best.shape))), best.words)


def paused(shape: Shape, site: Site, learned: Learned) -> str:
    """Why no such job is asked for now; "" when nothing speaks against it.

    What fails in one size fails in a larger one too, whatever the walltime: most such failures are
    of the queue, the account or the way to the driver.
    """
    queue = queue_of(shape, site)
    return next(
        (
            words
            for other, words in learned.paused.items()
            if queue_of(other, site) is queue
            and other.placement == shape.placement
            and other.cores <= shape.cores
            and other.memory_mb <= shape.memory_mb
            and other.gpus <= shape.gpus
        ),
        "",
    )


def _options(wish: Wish, terms: Terms) -> Iterator[_Option]:
    row, site = wish.group.row, terms.caps.site
    for shape in row.shapes:
        if fits(shape, queue_of(shape, site)):
            yield from _starts(shape, _Walltimes.only(shape.walltime_s), terms)
    for queue in () if row.shapes else _queues(wish.group, site):
        default = row.shape.queue is None and queue is site.queues[0]
        base = replace(row.shape, queue=None if default else queue.name)
        for size in _sizes(wish, base, queue):
            walltimes = _walltimes(wish, size, queue, terms.caps)
            if fits(replace(size, walltime_s=walltimes.least_s), queue):
                yield from _starts(size, walltimes, terms)


def _queues(group: Group, site: Site) -> Iterator[Queue]:
    """Queues that the tasks may use, the default first; GPUs are left to those who need them."""
    named = group.row.queue or group.row.shape.queue
    for queue in site.queues:
        alike = bool(queue.max_gpus) == bool(group.each.gpus) or queue is site.queues[0]
        if named == queue.name or (named is None and alike):
            yield queue


def _sizes(wish: Wish, base: Shape, queue: Queue) -> Iterator[Shape]:
    """The granted size, multiples of it up to what is missing, and the least that holds a task."""
    each, places = wish.group.each, wish.group.places_on(room_of(base))
    yield base
    times = 2
    while times * base.cores <= queue.max_cores and times * places < 2 * wish.missing:
        yield replace(
            base,
            cores=times * base.cores,
            memory_mb=times * base.memory_mb,
            gpus=times * base.gpus,
        )
        times *= 2
    share_mb = math.ceil(base.memory_mb * each.cores / base.cores)
    memory_mb = int(each.memory_mb) or share_mb
    yield replace(base, cores=int(each.cores), memory_mb=memory_mb, gpus=int(each.gpus))


def _walltimes(wish: Wish, size: Shape, queue: Queue, caps: Caps) -> _Walltimes:
    """What a pilot of this size may last.

    A task of which nothing is known gets what pilots last when nobody asks for more, for if the job
    ended under it, its work would be lost. Of many such tasks some are sent ahead.
    """
    row = wish.group.row
    granted_s = min(row.shape.walltime_s, queue.max_walltime_s)
    if wish.unknown:
        scout_s = min(granted_s, SCOUT_S) if wish.risks_some else granted_s
        return _Walltimes(scout_s, scout_s if wish.first else granted_s, granted_s)
    bare_s = max(row.needed_s, row.expected_s or 0.0) + START_S
    least_s = max(bare_s, min(_up(bare_s), queue.max_walltime_s))
    useful_s = _up(START_S + max(row.needed_s, _share_s(wish, size, caps)) + MARGIN_S)
    useful_s = min(useful_s, max(granted_s, least_s), queue.max_walltime_s)
    return _Walltimes(least_s, max(least_s, min(useful_s, SHORT_S)), useful_s)


def _share_s(wish: Wish, size: Shape, caps: Caps) -> float:
    """Seconds of work for each place, when as many are had as the limits allow."""
    most = max(1, caps.fits(replace(size, walltime_s=SHORT_S)))
    places = most * max(1, wish.group.places_on(room_of(size)))
    return _work_s(wish) / min(math.ceil(wish.missing), places)


def _starts(size: Shape, walltimes: _Walltimes, terms: Terms) -> Iterator[_Option]:
    """This size in the walltimes that pay: what fits a gap, and what waits in the queue."""
    lengths = terms.gaps.lengths(size)
    longest_s = max((length_s for length_s, _ in lengths), default=0.0)
    cut_s = min(walltimes.useful_s, max(walltimes.least_s, _down(longest_s)))
    for walltime_s in dict.fromkeys((walltimes.useful_s, cut_s)):
        most = sum(count for length_s, count in lengths if length_s >= walltime_s)
        if most:
            shape = replace(size, walltime_s=walltime_s)
            yield _Option(shape, _gap_wait_s(shape, terms), most, "a gap that holds it is free now")
    for walltime_s in dict.fromkeys((walltimes.short_s, walltimes.useful_s)):
        shape = replace(size, walltime_s=walltime_s)
        wait_s, words = _wait(shape, terms)
        yield _Option(shape, wait_s, math.inf, words)


def _gap_wait_s(shape: Shape, terms: Terms) -> float:
    """How long jobs wait for a gap that is free: no longer than any did in this queue."""
    site, delays = terms.caps.site, terms.learned.start_delay_s
    queue = queue_of(shape, site)
    known_s = [delay_s for other, delay_s in delays.items() if queue_of(other, site) is queue]
    return min([GAP_WAIT_S, *known_s])


def _wait(shape: Shape, terms: Terms) -> tuple[float, str]:
    """How long such a job waits where no gap is known, and how we know."""
    known_s = known_wait_s(shape, terms.caps.site, terms.learned)
    if known_s is not None:
        return known_s, f"such jobs start after about {known_s:.0f} s here"
    return UNKNOWN_WAIT_S + shape.walltime_s**2 / SHORT_S, "nothing is known of the queue"


def _rating(option: _Option, wish: Wish, caps: Caps) -> tuple[float, ...]:
    """Seconds until the work is done, and the price if that is what counts; then the site's order.

    Queues meant for bursts come first among equals; then what is known to start now, and of that
    what takes the fewest jobs, if not many of their places stay empty: each job brings an
    interpreter to start, and a line to hold.
    """
    shape = option.shape
    pilots = min(_pilots_for(wish, shape), caps.fits(shape))
    work_s = max(_work_s(wish) / _places(wish, shape, pilots, caps), _each_s(wish))
    rounds = math.ceil(work_s / max(1.0, lasting_s(shape)))
    finish_s = float(round(rounds * (option.wait_s + START_S) + work_s))
    queue = queue_of(shape, caps.site)
    price = queue.price if caps.site.prefer == "cheapest" else 0.0
    order = (price, finish_s, not queue.burst, caps.site.queues.index(queue))
    if not option.in_gap:
        return (*order, 1)
    surplus = pilots * wish.group.places_on(room_of(shape)) / wish.missing - 1
    return (*order, 0, max(0, int(surplus / SURPLUS)), pilots)


def _places(wish: Wish, shape: Shape, pilots: int, caps: Caps) -> float:
    """Places on so many pilots, and on ones for a single task in what the limits leave beside."""
    queue = queue_of(shape, caps.site)
    cores = min(caps.cores, caps.queue_cores[queue.name]) - pilots * shape.cores
    each = max(1.0, wish.group.each.cores)
    beside = min(caps.jobs - pilots, caps.pending - pilots, cores / each)
    places = pilots * wish.group.places_on(room_of(shape)) + max(0.0, beside)
    return min(wish.missing, places)


def _pilots_for(wish: Wish, shape: Shape) -> int:
    return math.ceil(wish.missing / wish.group.places_on(room_of(shape)) - ROUNDING)


def _work_s(wish: Wish) -> float:
    """Seconds that one place would take for all of it."""
    return wish.missing * max(_each_s(wish), WORTH_S)


def _each_s(wish: Wish) -> float:
    known_s = wish.group.row.expected_s
    return UNKNOWN_TASK_S if known_s is None else known_s


def _up(walltime_s: float) -> float:
    """The next walltime of the ladder."""
    if walltime_s > WALLTIMES_S[-1]:
        return math.ceil(walltime_s / 3600) * 3600.0
    return WALLTIMES_S[bisect_left(WALLTIMES_S, walltime_s)]


def _down(length_s: float) -> float:
    """The longest walltime of the ladder within a gap; 0 when there is none."""
    if length_s >= 7200:
        return math.inf if math.isinf(length_s) else length_s // 3600 * 3600.0
    number = bisect_right(WALLTIMES_S, length_s)
    return WALLTIMES_S[number - 1] if number else 0.0
