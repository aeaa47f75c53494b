"""Retries that grow: the next step is taken by the reason of the failure, and by nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from hpcburst.policy.growth import largest_needs, next_needs, step_count
from hpcburst.results import Failure, Fault
from hpcburst.tasks import changed_needs, read_needs

GROWING = {"memory": ["4GB", "16GB"], "walltime": ["5m", "20m", "1h"], "cores": 2}
OUT_OF_MEMORY = Failure(Fault.OUT_OF_MEMORY, "SIGKILL", "killed")
TOO_LONG = Failure(Fault.TIMEOUT, "Timeout", "too long")


def test_lists_are_read_as_steps():
    """`memory=["4GB", "16GB"]` asks for 4 GB first; what comes later is kept in order."""
    needs = read_needs(GROWING)
    assert (needs.memory_mb, needs.larger_memory_mb) == (4000, (16000,))
    assert (needs.walltime_s, needs.longer_walltime_s) == (300.0, (1200.0, 3600.0))


@pytest.mark.parametrize(
    "failure",
    [
        OUT_OF_MEMORY,
        Failure(Fault.RAISED, "MemoryError", ""),
        Failure(Fault.RAISED, "_ArrayMemoryError", "Unable to allocate 8 TiB"),
        Failure(Fault.RAISED, "CalledProcessError", "", child_out_of_memory=True),
    ],
)
def test_out_of_memory_takes_memory_alone(failure):
    """Whoever tells of it, kernel, Python or numpy: more memory is asked for, not more time."""
    larger = next_needs(read_needs(GROWING), failure)
    assert larger == changed_needs(read_needs(GROWING), {"memory": "16GB"})
    assert next_needs(larger, failure) is None


def test_over_walltime_takes_time_alone():
    """A task that was too slow gets more time, step by step, and no more memory."""
    needs = read_needs(GROWING)
    longer = next_needs(needs, TOO_LONG)
    longest = next_needs(longer, TOO_LONG)
    assert [longer.walltime_s, longest.walltime_s] == [1200.0, 3600.0]
    assert longest.memory_mb == needs.memory_mb
    assert next_needs(longest, TOO_LONG) is None


@given(st.sampled_from(Fault), st.sampled_from(["ValueError", "SIGSEGV", ""]))
def test_other_failures_take_no_step(fault, kind):
    """A bug, a crash or a withdrawal asks for no more of anything."""
    if fault not in (Fault.OUT_OF_MEMORY, Fault.TIMEOUT):
        assert next_needs(read_needs(GROWING), Failure(fault, kind, "")) is None


def test_the_largest_needs_are_those_after_all_steps():
    """What holds a task after all its steps can be known before it is queued."""
    largest = largest_needs(read_needs(GROWING))
    assert (largest.memory_mb, largest.walltime_s, largest.cores) == (16000, 3600.0, 2)
    assert step_count(read_needs(GROWING)) == 3
    assert step_count(largest) == 0


@pytest.mark.parametrize("memory", [["4GB", "4GB"], ["16GB", "4GB"], [], ["4GB", "a lot"]])
def test_steps_that_do_not_grow_are_refused(memory):
    """A list that does not grow, or cannot be read, is refused where it is written."""
    with pytest.raises(RequestError, match=r"(?i)write"):
        read_needs({"memory": memory})


def test_what_is_said_anew_replaces_the_whole_list():
    """One amount said later stands for itself: the steps of the old list are gone."""
    changed = changed_needs(read_needs(GROWING), {"memory": "8GB"})
    assert (changed.memory_mb, changed.larger_memory_mb) == (8000, ())
    assert changed.longer_walltime_s == read_needs(GROWING).longer_walltime_s
