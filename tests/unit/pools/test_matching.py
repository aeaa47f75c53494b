"""Tasks go where they fit, the largest first; nobody waits for ever, and a look costs little."""

from __future__ import annotations

import time
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.pools.backlog import Backlog
from hpcburst.pools.matching import OVERTAKEN, matches
from hpcburst.pools.pilots import Phase, Pilot
from hpcburst.pools.record import PilotRecord
from hpcburst.pools.tickets import Ticket, demand_of, demand_of_kinds
from hpcburst.tasks import START_S, Burst, Command, Needs, Shape

SMALL = Shape(cores=1, memory_mb=2000, walltime_s=600)
LARGE = Shape(cores=4, memory_mb=8000, walltime_s=600)


def _ticket(cores=1, *, name="fit", shape=None, **asks):
    burst = Burst(name, Command(("true",), "/", {}), Needs(cores=cores, **asks))
    return Ticket(burst, shape or (LARGE if cores > 1 else SMALL))


def _pilot(name, shape=LARGE, left_s=600.0):
    pilot = Pilot(name, shape, PilotRecord(name, shape), Phase.UP)
    pilot.deadline = time.monotonic() + left_s
    pilot.warm.add("some env")  # not fresh
    return pilot


def _match(waiting, pilots):
    given_out = []
    for ticket, pilot in matches(waiting, pilots, defaultdict(int)):
        pilot.tickets.add(ticket)
        given_out.append((ticket, pilot.name))
    return given_out


def test_the_largest_goes_first_and_small_ones_beside_it():
    """A large pilot goes to the large task though small ones came first; they fill what is left."""
    waiting = Backlog([_ticket(), large := _ticket(3), _ticket()])
    given_out = _match(waiting, [_pilot("p")])
    assert given_out[0] == (large, "p")
    assert len(given_out) == 2
    assert len(waiting) == 1


def test_pilots_are_filled_one_after_the_other():
    """Two small tasks share one of two pilots, so that the other one can leave."""
    given_out = _match(Backlog([_ticket(), _ticket()]), [_pilot("p"), _pilot("q")])
    assert len({name for _, name in given_out}) == 1


def test_a_task_gets_a_pilot_that_lasts_for_it():
    """A task of five minutes is not given to a pilot with one minute left."""
    waiting = Backlog([_ticket(walltime_s=300)])
    assert not _match(waiting, [_pilot("p", left_s=60)])
    assert _match(waiting, [_pilot("q", left_s=400)])


def test_a_large_task_is_not_passed_over_for_ever():
    """Small tasks that keep a pilot from ever being empty have to stop for the large one."""
    waiting, pilot = Backlog([large := _ticket(4)]), _pilot("p")
    pilot.tickets.add(_ticket())
    for number in range(10 * OVERTAKEN):
        waiting.append(_ticket())
        given_out = [ticket for ticket, _ in _match(waiting, [pilot])]
        if large in given_out:
            assert number < 3 * OVERTAKEN
            return
        if pilot.tickets:
            pilot.tickets.pop()
    pytest.fail("the large task never got the pilot")


def test_a_small_task_is_not_passed_over_for_ever():
    """A flow of large tasks does not keep a small one waiting."""
    waiting, pilot = Backlog([small := _ticket(1)]), _pilot("p")
    for _ in range(2 * OVERTAKEN):
        waiting.append(_ticket(4))
        if small in [ticket for ticket, _ in _match(waiting, [pilot])]:
            return
        pilot.tickets.clear()
    pytest.fail("the small task never got the pilot")


@given(
    st.lists(st.integers(1, 4), max_size=30),
    st.lists(st.sampled_from([SMALL, LARGE]), max_size=5),
)
def test_no_pilot_gets_more_than_it_holds_and_no_room_is_left_that_a_task_fits(sizes, shapes):
    """Cores and memory are kept to; what still waits fits nowhere."""
    tickets = [_ticket(cores, memory_mb=1500 * cores) for cores in sizes]
    waiting = Backlog(tickets)
    pilots = [_pilot(f"p{number}", shape) for number, shape in enumerate(shapes)]
    given_out = _match(waiting, pilots)
    assert sorted(map(id, tickets)) == sorted(map(id, [*waiting, *(t for t, _ in given_out)]))
    for pilot in pilots:
        assert min(pilot.free()) >= 0
        assert not any(pilot.takes(ticket, 0) for ticket in waiting)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3), st.booleans()), max_size=40))
def test_the_backlog_keeps_order_and_loses_nothing(steps):
    """Whatever is put in first or last and taken out: it is a queue, and tells its kinds truly."""
    backlog, model = Backlog(), []
    for first, cores, take in steps:
        if take and model:
            backlog.remove(model.pop(cores % len(model)))
            continue
        ticket = _ticket(cores)
        (backlog.appendleft if first else backlog.append)(ticket)
        model.insert(0 if first else len(model), ticket)
    assert list(backlog) == model
    assert len(backlog) == len(model)
    oldest = [ticket for _, ticket in backlog.oldest()]
    assert oldest == [t for t in model if t is next(m for m in model if m.kind == t.kind)]
    rows = demand_of_kinds(backlog.counts(), {}, ())
    assert {row.cores: row.waiting for row in rows} == {
        row.cores: row.waiting for row in demand_of(model, [], ())
    }


def test_a_task_that_does_not_wait_cannot_be_taken_out():
    """As a list says it: ValueError."""
    with pytest.raises(ValueError, match="does not wait"):
        Backlog().remove(_ticket())


def test_what_the_first_result_teaches_holds_for_those_that_wait():
    """Tasks of unknown length become tasks of known length, in their order; others do not."""
    backlog = Backlog([first := _ticket(), other := _ticket(name="plot"), second := _ticket()])
    backlog.teach(_ticket(), 3.0)
    assert [ticket.expected_s for ticket in (first, other, second)] == [3.0, None, 3.0]
    assert list(backlog) == [first, other, second]
    backlog.teach(_ticket(), 4.0)  # no news
    assert first.expected_s == 3.0
    backlog.teach(_ticket(), 60.0)
    assert [row.expected_s for row in demand_of_kinds(backlog.counts(), {})] == [None, 60.0]


def test_a_task_that_was_cut_off_needs_a_whole_pilot():
    """It is not sent to a pilot as short as the one that ended under it."""
    ticket = _ticket()
    assert ticket.needed_s == 0
    ticket.cut_off_s = 80.0
    assert ticket.needed_s == SMALL.walltime_s - START_S


def test_what_is_learned_may_ask_for_longer_pilots_than_was_granted():
    """Half an hour is usual and history says forty minutes: it needs more, if a queue gives it."""
    ticket = _ticket()
    ticket.learned_s = 2400.0
    assert ticket.needed_s == SMALL.walltime_s - START_S
    ticket.longest_s = 7200.0
    assert ticket.needed_s == 4800.0


def test_a_stated_walltime_stays_what_is_needed():
    """What the user asked for is what the task finds left, whatever earlier runs took."""
    ticket = _ticket(walltime_s=300)
    ticket.learned_s = 2.0
    assert (ticket.expected_s, ticket.needed_s) == (2.0, 300)


def test_a_long_queue_is_no_slower_to_look_at_than_a_short_one():
    """Handing out one task takes as long with 20,000 waiting as with 20, give or take."""

    def seconds(length):
        waiting, pilot = Backlog(_ticket() for _ in range(length)), _pilot("p", SMALL)
        begun = time.perf_counter()
        for _ in range(20):
            assert _match(waiting, [pilot])
            pilot.tickets.clear()
        return time.perf_counter() - begun

    assert min(seconds(20_000) for _ in range(3)) < 20 * min(seconds(20) for _ in range(3))
