"""A rule's resources are granted as they are stated, and never guessed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.common.tbdstring import TBDString

from hpcburst.errors import RequestError
from hpcburst.placement import Placement, Spread
from hpcburst.tasks import Needs
from snakemake_executor_plugin_hpcburst.resources import (
    ACCOUNTS,
    CONSTRAINTS,
    OWN_JOB,
    QOS,
    QUEUES,
    RESERVATIONS,
    Defaults,
    needs_of_job,
    spread_of_job,
    whole_needs,
)

AMOUNTS = st.one_of(st.integers(1, 10**9), st.floats(0.01, 1e9))
UNSTATED = st.sampled_from([None, 0, "", TBDString()])
NAMES = ["mem_mb", "mem_mb_per_cpu", "runtime", "gpu", "gpus", "gres", "disk_mb", *QUEUES]
NAMES += [
    *ACCOUNTS,
    *QOS,
    *CONSTRAINTS,
    *RESERVATIONS,
    "gpu_model",
    "nodes",
    "tasks",
    "mpi",
    OWN_JOB,
]


@given(st.integers(1, 512), AMOUNTS, AMOUNTS)
def test_threads_memory_and_runtime_are_never_rounded_down(threads, mem_mb, runtime):
    """A task gets at least the memory and exactly the cores and minutes its rule states."""
    needs = needs_of_job(threads, {"mem_mb": mem_mb, "runtime": runtime}, Defaults())
    assert needs.cores == threads
    assert mem_mb <= needs.memory_mb < mem_mb + 1
    assert needs.walltime_s == runtime * 60


@given(st.dictionaries(st.sampled_from(NAMES), UNSTATED))
def test_what_is_unknown_takes_the_default(resources):
    """A resource that only the node can tell, or that is 0, counts as not stated."""
    defaults = Defaults(memory_mb=700, runtime_min=12, queue="short")
    expected = Needs(cores=1, memory_mb=700, walltime_s=720.0, queue="short")
    assert needs_of_job(TBDString(), resources, defaults) == expected


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(st.text(), st.integers(), st.floats())))
def test_any_resources_give_needs_or_a_clear_refusal(resources):
    """Whatever a rule states, the answer is needs or a request error, never another exception."""
    try:
        needs = needs_of_job(1, resources, Defaults(counts_disk=True))
        spread = spread_of_job(resources)
    except RequestError:
        return
    assert spread is None or 1 <= spread.nodes <= spread.tasks
    assert needs.memory_mb is None or needs.memory_mb >= 1
    assert needs.walltime_s is None or 0 < needs.walltime_s < math.inf


def test_nothing_stated_and_no_defaults_leaves_the_choice_to_the_site():
    """A rule without resources asks for one core and nothing else."""
    assert needs_of_job(1, {"tmpdir": TBDString(), "_cores": 1}, Defaults()) == Needs()


def test_memory_per_core_is_multiplied():
    """mem_mb_per_cpu counts for every thread and wins over mem_mb, which Snakemake may add."""
    resources = {"mem_mb": 1000, "mem_mb_per_cpu": 2000}
    assert needs_of_job(4, resources, Defaults()).memory_mb == 8000


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({"gpu": 2}, 2),
        ({"gpus": "1"}, 1),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "gpu:a100:4"}, 4),
        ({"gres": "lustre:1,gpu:2"}, 2),
        ({"gres": "craynetwork:1"}, 0),
    ],
)
def test_gpus_are_counted_in_every_spelling(resources, gpus):
    """gpu, gpus and Slurm's gres all count GPUs."""
    assert needs_of_job(1, resources, Defaults()).gpus == gpus


@pytest.mark.parametrize("name", QUEUES)
def test_a_rules_queue_wins_over_the_setting(name):
    """A rule that names a queue goes there, also when it was written for another executor."""
    assert needs_of_job(1, {name: "long"}, Defaults(queue="short")).queue == "long"


def test_text_with_units_is_understood():
    """mem_mb and runtime may be text with a unit."""
    needs = needs_of_job(1, {"mem_mb": "4GB", "runtime": "2h"}, Defaults())
    assert (needs.memory_mb, needs.walltime_s) == (4000, 7200.0)


@pytest.mark.parametrize("resources", [{"mem_mb": "lots"}, {"runtime": -5}, {"mem_mb": math.nan}])
def test_nonsense_is_refused_by_name(resources):
    """The refusal names the resource and its value."""
    ((name, value),) = resources.items()
    with pytest.raises(RequestError, match=f"{name}='{value}'"):
        needs_of_job(1, resources, Defaults())


USUAL = Placement(account="a", qos="q", constraint="c", reservation="r")


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (ACCOUNTS, "account"),
        (QOS, "qos"),
        (CONSTRAINTS, "constraint"),
        (RESERVATIONS, "reservation"),
    ],
)
def test_a_rules_placement_wins_over_the_settings(names, field):
    """Account, qos, constraint and reservation: the rule's, in every spelling, or the user's."""
    defaults = Defaults(placement=USUAL)
    assert needs_of_job(1, {}, defaults).placement == USUAL
    for name in names:
        placement = needs_of_job(1, {name: "mine"}, defaults).placement
        assert getattr(placement, field) == "mine"
        assert sum(getattr(placement, other) != getattr(USUAL, other) for other in FIELDS) == 1


FIELDS = Placement.__dataclass_fields__


@pytest.mark.parametrize("resources", [{"gres": "gpu:a100:2"}, {"gpu": 2, "gpu_model": "a100"}])
def test_a_model_of_gpu_is_asked_for(resources):
    """gpu_model, and the model in a gres, are not lost."""
    needs = needs_of_job(1, resources, Defaults())
    assert (needs.gpus, needs.placement.gpu_model) == (2, "a100")


@given(st.floats(0.1, 1e6), st.integers(1, 64))
def test_disk_is_never_rounded_down_and_only_asked_for_where_it_counts(disk_mb, threads):
    """A site that counts disk gives at least what a rule states; others are not asked for any."""
    stated = {"disk_mb": disk_mb}
    asked = needs_of_job(threads, stated, Defaults(counts_disk=True)).placement.disk_core_mb
    assert asked * threads >= disk_mb
    assert asked * threads < 2 * max(disk_mb, 1000 * threads)
    assert not needs_of_job(threads, stated, Defaults()).placement.disk_core_mb


@pytest.mark.parametrize(
    ("resources", "spread"),
    [
        ({}, None),
        ({"nodes": 1, "tasks": 1}, None),
        ({OWN_JOB: False}, None),
        ({OWN_JOB: "no"}, None),
        ({OWN_JOB: True}, Spread(1, 1)),
        ({OWN_JOB: 1}, Spread(1, 1)),
        ({"mpi": "mpiexec"}, Spread(1, 1)),
        ({"mpi": "mpiexec", "tasks": 8}, Spread(1, 8)),
        ({"nodes": 2}, Spread(2, 2)),
        ({"nodes": "2", "tasks": 6}, Spread(2, 6)),
    ],
)
def test_parallel_programs_and_marked_rules_get_jobs_of_their_own(resources, spread):
    """mpi, nodes, tasks and the mark are what decides; the needs are those of all processes."""
    assert spread_of_job(resources) == spread
    cores = 3 * spread.tasks if spread else 3
    assert whole_needs(Needs(cores=3), spread).cores == cores
