"""What a run wishes for itself never exceeds what its site gives to everybody."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.policy.wishes import PREFERENCES, Wishes, granted
from hpcburst.tasks import Shape

SITE = Site("local", (Queue("q", 4, 8000),), Shape(), Limits(), Paths(Path("/s"), Path("/n")))

hours = st.none() | st.floats(0.001, 1e6)
wishes = st.builds(
    Wishes, st.none() | st.integers(1, 10**6), st.none() | st.sampled_from(PREFERENCES), hours
)
limits = st.builds(
    Limits,
    max_jobs=st.integers(1, 1000),
    jobs=st.integers(1, 1000),
    max_pending=st.integers(1, 1000),
    max_core_hours=hours,
)


@given(wishes=wishes, limits=limits)
def test_no_wish_exceeds_the_site(wishes, limits):
    """Jobs, pending jobs and core-hours of a run are at most the site's, and at most its own."""
    got = granted(wishes, replace(SITE, limits=limits)).limits
    assert 1 <= got.max_jobs <= min(limits.max_jobs, wishes.max_jobs or limits.max_jobs)
    assert got.max_pending <= min(limits.max_pending, got.max_jobs)
    most = min(math.inf if own is None else own for own in (wishes.budget, limits.max_core_hours))
    assert (math.inf if got.max_core_hours is None else got.max_core_hours) == most


def test_a_run_prefers_what_it_says():
    """Without a word of its own a run prefers what the site does."""
    cheap = replace(SITE, prefer="cheapest")
    assert granted(Wishes(), cheap).prefer == "cheapest"
    assert granted(Wishes(prefer="soonest"), cheap).prefer == "soonest"


@pytest.mark.parametrize(
    "wish",
    [{"max_jobs": 0}, {"prefer": "fastest"}, {"budget": 0}, {"budget": math.nan}, {"budget": -1}],
)
def test_a_wish_that_cannot_be_meant_is_an_answer(wish):
    """A wrong word or number is refused where it is said."""
    (name,) = wish
    with pytest.raises(RequestError, match=name):
        Wishes(**wish)
