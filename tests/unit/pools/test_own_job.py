"""A job of a task's own asks for what the task needs, node by node, and for no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from hpcburst.placement import Placement, Spread
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools.own_job import shape_of
from hpcburst.tasks import START_S, Needs, Shape

QUEUES = (
    Queue("short", max_cores=4, max_memory_mb=16_000, max_walltime_s=3600),
    Queue("wide", max_cores=64, max_memory_mb=256_000, max_gpus=4, max_walltime_s=86400),
)


def site(scheduler="slurm"):
    places = Paths(Path("/shared"), Path("/tmp"))
    return Site(scheduler, QUEUES, Shape(cores=2, memory_mb=4000), Limits(), places)


@given(st.integers(1, 64), st.integers(1, 6), st.integers(1, 40))
def test_every_process_has_its_cores_and_no_node_more_than_the_queue_gives(cores, nodes, tasks):
    """All processes find their cores; nodes that are stated are those."""
    spread = Spread(nodes, max(nodes, tasks))
    try:
        shape = shape_of(Needs(cores=cores, queue="wide"), spread, site())
    except RequestError:
        assert cores * spread.tasks_per_node > 64
        return
    assert shape.spread.nodes * shape.cores >= spread.tasks * cores
    assert shape.cores <= 64
    assert nodes in (shape.spread.nodes, 1)
    assert shape.spread.nodes <= shape.spread.tasks
    assert shape.spread.tasks == spread.tasks


def test_without_nodes_processes_go_to_as_few_as_hold_them():
    """Sixteen processes on nodes of four cores are four nodes, full ones."""
    shape = shape_of(Needs(), Spread(tasks=16), site())
    assert (shape.spread, shape.cores, shape.queue) == (Spread(4, 16), 4, None)


def test_a_job_of_its_own_is_as_long_as_its_task_and_as_large():
    """No room for a second task: nothing of it would be used."""
    placement = Placement(account="physics")
    needs = Needs(cores=1, memory_mb=500, walltime_s=60.0, placement=placement)
    shape = shape_of(needs, Spread(), site())
    assert (shape.cores, shape.memory_mb, shape.walltime_s) == (1, 500, 60.0 + START_S)
    assert shape.placement == placement
    assert shape_of(Needs(), Spread(tasks=4), site()).memory_mb == 8000  # the usual, by cores
    large = shape_of(Needs(cores=8, gpus=2), Spread(), site())
    assert (large.queue, large.spread) == ("wide", Spread())


def test_what_no_queue_has_is_refused():
    """Cores of one process, memory and queues that are not there."""
    for needs in (Needs(cores=65), Needs(memory_mb=10**6), Needs(queue="nope")):
        with pytest.raises(RequestError):
            shape_of(needs, Spread(), site())


def test_this_machine_is_one_node():
    """Without a batch system a parallel program runs on the cores there are."""
    shape = shape_of(Needs(), Spread(nodes=3, tasks=12), site("local"))
    assert (shape.spread, shape.cores) == (Spread(1, 12), 4)
