"""How many pilots of which shape to ask for, and which to let go. Pure: facts in, a plan out.

The same function drives the running system, the tests and the simulator; it has no clock, no
memory and no effect. `situation` has what it is told and what it answers; `packing` finds out what
the pilots there are can take, `choosing` what to ask for beside them, and `caps` how much of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hpcburst.jobs.dialect import Gap
from hpcburst.policy.model import Site
from hpcburst.pools.caps import WAITING, Caps, GapMap, known_wait_s
from hpcburst.pools.choosing import Choice, Terms, Wish, choose, paused
from hpcburst.pools.packing import Bin, Group, Packed, bins_asked, bins_of, pack
from hpcburst.pools.situation import (
    NOTHING_LEARNED,
    Demand,
    Learned,
    Phase,
    PilotView,
    Plan,
    Room,
)
from hpcburst.tasks import Shape

__all__ = ["Demand", "Gap", "Learned", "Phase", "PilotView", "Plan", "Room", "plan"]

PATIENCE_S = 2.0
"""The least that an idle pilot is kept, also where pilots start at once: the next task may be on
its way, and a pilot's warm guests go with it."""

PATIENT_S = 10.0
"""The longest, also where new pilots wait for hours: idle cores are others' cores."""


def plan(
    demand: Sequence[Demand],
    pilots: Sequence[PilotView],
    site: Site,
    gaps: Sequence[Gap] = (),
    learned: Learned = NOTHING_LEARNED,
) -> Plan:
    """What to submit and what to let go.

    Every job that is asked for is counted as asked before the next is thought of, so that planning
    again with the decided jobs asks for nothing more.

    Args:
        demand: Tasks waiting and running.
        pilots: Every pilot that is asked for, pending, up or draining.
        site: What the site allows.
        gaps: Room in the schedule, when it is known.
        learned: What earlier tasks and jobs taught.
    """
    demand, pilots = _told(demand, pilots)
    groups = [Group.of(row) for row in demand if row.waiting + row.running]
    unused = pack(groups, bins_of(groups, pilots)).unused
    retire = _retire(pilots, unused, site, learned)
    kept = [view for view in pilots if view.name not in retire]
    draft = _Draft(groups, kept, site, gaps, learned).finished()
    while outdated := _outdated(draft):
        retire |= dict.fromkeys(outdated, "a shorter job does as well now, and starts sooner")
        draft = draft.without(outdated).finished()
    retire |= _make_room(draft, unused)
    return Plan(draft.asked, retire, draft.why(), draft.waits())


def _told(
    demand: Sequence[Demand], pilots: Sequence[PilotView]
) -> tuple[Sequence[Demand], Sequence[PilotView]]:
    """Where the room of busy pilots is not told, all tasks are packed as if none had begun."""
    if all(view.free is not None or not view.busy for view in pilots):
        return demand, pilots
    rows = [replace(row, waiting=row.waiting + row.running, running=0) for row in demand]
    return rows, [replace(view, left_s=view.shape.walltime_s, free=None) for view in pilots]


def _retire(
    pilots: Sequence[PilotView], unused: frozenset[str], site: Site, learned: Learned
) -> dict[str, str]:
    """Idle pilots past their patience, and waiting jobs that nothing needs any more."""
    have = Counter(view.shape for view in pilots if view.phase is not Phase.DRAINING)
    spare = {shape: count - learned.floor.get(shape, 0) for shape, count in have.items()}
    retire = {}
    for view in sorted(pilots, key=lambda view: -view.since_s):
        if view.name not in unused or spare[view.shape] <= 0:
            continue
        if words := _past_patience(view, site, learned):
            retire[view.name] = words
            spare[view.shape] -= 1
    return retire


def _past_patience(view: PilotView, site: Site, learned: Learned) -> str:
    """Why a pilot that no task needs goes; "" while it is kept."""
    limits = site.limits
    if view.phase is Phase.UP and not view.busy:
        patience_s = _patience_s(view.shape, site, learned)
        return f"idle for {view.since_s:.0f} s" if view.since_s >= patience_s else ""
    if view.phase is Phase.PENDING and view.since_s >= limits.pending_min_age_s:
        return f"waited {view.since_s:.0f} s and is not needed any more"
    return ""


def _patience_s(shape: Shape, site: Site, learned: Learned) -> float:
    """How long a pilot may idle: as stated, else half as long as a new one takes to start.

    Who idles for longer costs more than a new one: the other half is the wait for its job, in which
    no core is held.
    """
    if site.limits.idle_s is not None:
        return site.limits.idle_s
    known_s = known_wait_s(shape, site, learned)
    return PATIENT_S if known_s is None else min(max(PATIENCE_S, known_s / 2), PATIENT_S)


def _outdated(draft: _Draft) -> set[str]:
    """Waiting jobs in whose place shorter ones would be asked for, by what is known now.

    They were asked for before a gap opened, or before anybody knew how short the tasks are. A job
    that is half as long must do, else a place in the queue is worth more.
    """
    stale = [
        view
        for view in draft.pilots
        if view.phase is Phase.PENDING
        and view.since_s >= draft.site.limits.pending_min_age_s
        and view.left_s >= view.shape.walltime_s
        and not draft.learned.floor.get(view.shape)
    ]
    if not stale:
        return set()
    anew = draft.without({view.name for view in stale}).finished().asked
    more = Counter(anew) - Counter(draft.asked)
    lengths = sorted((shape.walltime_s for shape in more.elements()), reverse=True)
    stale.sort(key=lambda view: (-view.shape.walltime_s, view.since_s))
    pairs = zip(stale, lengths, strict=False)  # the longest that is there, the longest asked for
    return {view.name for view, walltime_s in pairs if 2 * walltime_s <= view.shape.walltime_s}


@dataclass(slots=True)
class _Draft:
    """A plan in the making: what was asked for so far, and what that leaves."""

    groups: Sequence[Group]
    pilots: Sequence[PilotView]
    site: Site
    gaps: Sequence[Gap]
    learned: Learned
    asked: dict[Shape, int] = field(default_factory=dict)
    refused: dict[Demand, str] = field(default_factory=dict)
    caps: Caps = field(init=False)
    packed: Packed = field(init=False)
    _bins: list[Bin] = field(init=False)
    _waiting: Counter[Shape] = field(init=False)

    def __post_init__(self) -> None:
        self._bins = bins_of(self.groups, self.pilots)
        self._waiting = Counter(view.shape for view in self.pilots if view.phase in WAITING)
        self.caps = Caps.of(self.site, self.pilots, self.learned.spent_core_s)
        for shape, count in self.asked.items():
            self.caps.take(shape, count)
        self._pack()

    def without(self, names: Collection[str]) -> _Draft:
        """The same, with what was asked for so far, when these pilots are gone."""
        pilots = [view for view in self.pilots if view.name not in names]
        asked = dict(self.asked)
        return _Draft(self.groups, pilots, self.site, self.gaps, self.learned, asked)

    def finished(self) -> _Draft:
        """Ask for all there is to ask for; returns itself."""
        while self.ask():
            pass
        return self

    def ask(self) -> bool:
        """Ask for pilots of one more shape; false when there is nothing more to ask for.

        Who has nothing at all comes first, with one pilot if there are others like that; then who
        lacks most.
        """
        self.refused = {}
        gaps = GapMap.of(self.site, self.gaps, self._waiting + Counter(self.asked))
        terms = Terms(self.caps, gaps, self.learned)
        short = sorted(self._lacking(), key=self._urgency)
        starving = sum(group.row not in self.packed.served for group in short)
        for group in short:
            first = group.row not in self.packed.served
            choice = choose(Wish(group, self.packed.missing[group.row], first), terms)
            if isinstance(choice, Choice):
                self._take(choice.shape, 1 if starving > 1 else choice.count)
                return True
            self.refused[group.row] = choice
        return self._hold_floor()

    def starved(self) -> list[Group]:
        """Groups that have no pilot and get none, though their jobs would start."""
        return [
            group
            for group in self._lacking()
            if group.row not in self.packed.served and self._may_start(group)
        ]

    def why(self) -> dict[Shape, str]:
        """For each shape, what there is of it and why there is not more."""
        have = Counter(view.shape for view in self.pilots if view.phase is not Phase.DRAINING)
        shapes = dict.fromkeys([*self.asked, *have, *self.learned.floor])
        words = {shape: self._held(shape, have[shape]) for shape in shapes}
        for group in self.groups:
            row = group.row
            words[row.shape] = self.refused.get(row) or words.get(row.shape) or self._waits(row)
        return words

    def waits(self) -> dict[Demand, str]:
        """For each row, what its waiting tasks wait for."""
        return {group.row: self._waits(group.row) for group in self.groups}

    def _waits(self, row: Demand) -> str:
        if row not in self.packed.missing:
            return "the pilots there are, or that are asked for, are enough"
        places = self.packed.missing[row]
        return f"{places:.3g} more places would be used, but {self.refused.get(row, 'not now')}"

    def _held(self, shape: Shape, have: int) -> str:
        if shape in self.asked:
            return f"{self.asked[shape]} jobs asked for"
        return paused(shape, self.site, self.learned) or f"{have} pilots are enough"

    def _may_start(self, group: Group) -> bool:
        return not paused(group.row.shape, self.site, self.learned)

    def _lacking(self) -> list[Group]:
        return [group for group in self.groups if group.row in self.packed.missing]

    def _urgency(self, group: Group) -> tuple[bool, float]:
        return (group.row in self.packed.served, -self.packed.missing[group.row])

    def _hold_floor(self) -> bool:
        have = Counter(view.shape for view in self.pilots if view.phase is not Phase.DRAINING)
        for shape, floor in self.learned.floor.items():
            missing = floor - have[shape] - self.asked.get(shape, 0)
            count = min(missing, self.caps.fits(shape))
            if count > 0 and not paused(shape, self.site, self.learned):
                self._take(shape, count)
                return True
        return False

    def _take(self, shape: Shape, count: int) -> None:
        self.asked[shape] = self.asked.get(shape, 0) + count
        self.caps.take(shape, count)
        self._pack()

    def _pack(self) -> None:
        self.packed = pack(self.groups, [*self._bins, *bins_asked(self.groups, self.asked)])


def _make_room(draft: _Draft, unused: frozenset[str]) -> Mapping[str, str]:
    """Idle pilots that nothing needs go at once when they keep other tasks from any pilot."""
    if not draft.starved() or draft.caps.pending < 1:
        return {}
    return {
        view.name: "idle, and it holds what other tasks wait for"
        for view in draft.pilots
        if view.phase is Phase.UP
        and not view.busy
        and view.name in unused
        and not draft.learned.floor.get(view.shape)
    }
