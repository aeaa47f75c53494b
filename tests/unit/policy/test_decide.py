"""A task is granted a pilot that can run it where the site allows it, or refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from hpcburst.policy.decide import fits, grant
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.tasks import START_S, Needs, Shape

PATHS = Paths(Path("/shared"), Path("/node"))
SHORT = Queue("short", max_cores=4, max_memory_mb=16_000, max_walltime_s=3600)
LONG = Queue("long", max_cores=64, max_memory_mb=256_000, max_gpus=4, max_walltime_s=86_400)
DEFAULT = Shape(cores=1, memory_mb=4000, walltime_s=1800)


def _site(*queues, default=DEFAULT):
    return Site("local", queues or (SHORT, LONG), default, Limits(), PATHS)


def test_a_task_that_asks_for_nothing_gets_the_default_pilot():
    """What is not stated is what the site gives."""
    assert grant(Needs(), _site()) == DEFAULT


def test_a_pilot_grows_with_what_a_task_asks_and_no_further():
    """Each resource is what the task asks for or the default, whichever is more."""
    shape = grant(Needs(cores=4, memory_mb=5000), _site())
    assert shape == Shape(cores=4, memory_mb=5000, walltime_s=1800)


def test_a_grown_pilot_has_time_for_a_second_task_if_the_queue_gives_it():
    """A job for a long task lasts for two of them, or as long as the queue lets it."""
    assert grant(Needs(walltime_s=1750), _site()).walltime_s == 1800
    assert grant(Needs(walltime_s=1780), _site()).walltime_s == 2 * 1780 + START_S
    assert grant(Needs(walltime_s=3000), _site()).walltime_s == 3600
    assert grant(Needs(walltime_s=3600), _site()) == Shape(
        cores=1, memory_mb=4000, walltime_s=7200 + START_S, queue="long"
    )


def test_the_first_queue_that_holds_a_task_is_used():
    """A task too large for the default queue goes to the first one that takes it."""
    assert grant(Needs(cores=32), _site()).queue == "long"
    assert grant(Needs(gpus=1), _site()).queue == "long"
    assert grant(Needs(cores=2), _site()).queue is None


def test_a_task_goes_to_the_queue_it_names():
    """A queue the user names is the queue the job is for."""
    assert grant(Needs(queue="long"), _site()).queue == "long"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Needs(cores=65), "at most 64 cores"),
        (Needs(memory_mb=10**6), "at most 256000 MB"),
        (Needs(gpus=5), "at most 4 GPUs"),
        (Needs(walltime_s=10**6), "at most 86400 s"),
        (Needs(cores=8, queue="short"), "'short' gives at most 4 cores"),
        (Needs(queue="debug"), "queues are short, long"),
    ],
)
def test_what_no_queue_can_give_is_refused_with_the_limit(asked, words):
    """A request beyond the site is refused before anything is queued, and told the limit."""
    with pytest.raises(RequestError, match=words):
        grant(asked, _site())


def test_the_smallest_of_the_users_shapes_is_taken():
    """With shapes of the user's own, a task runs on the smallest that holds it."""
    small, large = Shape(cores=1), Shape(cores=4, memory_mb=8000)
    assert grant(Needs(), _site(), (large, small)) == small
    assert grant(Needs(cores=2), _site(), (large, small)) == large


def test_a_task_that_fits_none_of_the_users_shapes_is_refused():
    """The user's shapes are all there is: the refusal lists them."""
    with pytest.raises(RequestError, match=r"None of the shapes holds it .*1 core"):
        grant(Needs(cores=2), _site(), (Shape(cores=1),))


queues = st.builds(
    Queue,
    name=st.sampled_from(["a", "b", "c"]),
    max_cores=st.integers(1, 64),
    max_memory_mb=st.integers(100, 10**6),
    max_gpus=st.integers(0, 4),
    max_walltime_s=st.floats(60, 10**6),
)
asks = st.builds(
    Needs,
    cores=st.integers(1, 80),
    memory_mb=st.none() | st.integers(1, 2 * 10**6),
    gpus=st.integers(0, 6),
    walltime_s=st.none() | st.floats(1, 2 * 10**6),
    queue=st.sampled_from([None, "a", "b", "c", "d"]),
)


@given(asks, st.lists(queues, min_size=1, max_size=3, unique_by=lambda queue: queue.name))
def test_what_is_granted_runs_the_task_and_is_allowed(asked, there):
    """A granted pilot holds the task, and its queue takes the job; else nothing is granted."""
    site = _site(*there, default=Shape(cores=1, memory_mb=100, walltime_s=60))
    try:
        shape = grant(asked, site)
    except RequestError:
        grown = (asked.walltime_s or 0) + START_S
        assert not any(
            asked.queue in (None, queue.name)
            and asked.cores <= queue.max_cores
            and (asked.memory_mb or 0) <= queue.max_memory_mb
            and asked.gpus <= queue.max_gpus
            and grown <= queue.max_walltime_s
            for queue in there
        )
    else:
        queue = site.queue(shape.queue)
        assert shape.holds(asked)
        assert queue is not None
        assert fits(shape, queue)
