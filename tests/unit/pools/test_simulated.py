"""With the simulator of `bench/`: all work is done, and then nothing is left."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[3] / "bench"))

from simulate import Result, bursts, fixed, ours, ours_blind, site_of
from simulation import UNTIL_S, Holes, Simulation, Task

tasks = st.builds(
    Task,
    name=st.sampled_from(["fit", "plot", "train"]),
    length_s=st.sampled_from([0.3, 2.0, 20.0, 100.0, 400.0]),
    arrives_s=st.integers(0, 600),
    cores=st.integers(1, 8),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(tasks, min_size=1, max_size=40),
    st.integers(1, 10),
    st.integers(1, 10),
    st.none() | st.integers(8, 40),
    st.sampled_from([ours, ours_blind]),
)
def test_every_workload_is_served_and_then_nothing_is_left(work, jobs, pending, cores, policy):
    """Whatever comes, when and in which sizes: all of it runs, and then there are no pilots."""
    site = site_of(nodes=4, pilots=jobs)
    limits = replace(site.limits, max_pending=pending, max_cores=cores)
    work = [replace(task) for task in work]
    simulation = Simulation(replace(site, limits=limits), work, Holes.idle(4), policy)
    simulation.run(until_s=600 + 500 * len(work))
    assert not simulation.undone, "the work is not served"
    assert not simulation.pilots, "pilots do not leave"


@pytest.mark.parametrize("seed", range(3))
def test_holes_of_minutes_are_enough_for_a_burst(seed):
    """On a cluster that is full but for holes of 1-4 minutes, a burst is done before it is idle;
    jobs of half an hour wait until then."""
    holes = Holes.of_minutes(16, seed)
    holes = Holes(tuple((*row, (UNTIL_S, float("inf"))) for row in holes.spans))
    site = site_of(nodes=16, pilots=8)
    burst = Result.of(Simulation(site, bursts(1, 66, seed), holes, ours).run())
    usual = fixed(8, site.default_shape)
    peer = Result.of(Simulation(site, bursts(1, 66, seed), holes, usual, polite=False).run())
    assert burst.done_s < 900
    assert burst.first_s * 5 < peer.first_s
    assert burst.used > 0.2


def test_few_pilots_do_a_burst_of_short_tasks():
    """Once it is known how short they are, a burst of 66 tasks costs few jobs, and few idle."""
    first = Simulation(site_of(16, 100), bursts(1, 66, 1), Holes.idle(16), ours).run()
    both = Simulation(site_of(16, 100), bursts(2, 66, 1), Holes.idle(16), ours).run()
    assert both.jobs - first.jobs <= 20
