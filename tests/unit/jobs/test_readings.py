"""What batch systems tell beside states: gaps, limits, lists of nodes, who they are."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError, SiteError
from hpcburst.jobs.dialect import Gap
from hpcburst.jobs.hostlists import MOST_NODES, nodes_of
from hpcburst.jobs.lsf import LsfDialect
from hpcburst.jobs.oar import OarDialect
from hpcburst.jobs.pbs import PbsDialect
from hpcburst.jobs.sge import SgeDialect
from hpcburst.jobs.slurm import SlurmDialect
from hpcburst.policy.present import LOCAL, detect

GOLDEN = Path(__file__).parents[2] / "golden" / "jobs"
RECORDED_AT = 1795390731.0


def golden_gaps(nodes="", plan=""):
    """Gaps from the recorded answers of a Slurm, and what is added to them."""
    texts = [(GOLDEN / "slurm" / name).read_text() for name in ("gaps-nodes.txt", "gaps-plan.txt")]
    return SlurmDialect().read_gaps([texts[0] + nodes, texts[1] + plan], RECORDED_AT)


def test_a_gap_lasts_until_the_first_planned_job():
    """A node has room for what ends before a waiting job is planned on it, and for no more."""
    half_mb, all_mb = 4000 * 2**20 // 10**6, 8000 * 2**20 // 10**6
    assert golden_gaps() == [
        Gap(queue, cores, memory_mb, length_s)
        for cores, memory_mb, length_s in (
            (2, half_mb, 57.0),
            (4, half_mb, 57.0),
            (2, half_mb, 533.0),
            (4, all_mb, 57.0),
        )
        for queue in ("short", "batch")
    ]


ROW = "{node:<64}{queue:<64}{state:<16}{cpus:<32}{memory:<16}{used:<16}\n"


def row(**fields):
    """A line of sinfo."""
    ours = {"node": "m1", "queue": "batch*", "state": "idle", "cpus": "0/8/0/8"}
    return ROW.format(**{**ours, "memory": "16000", "used": "0", **fields})


def test_a_node_nobody_waits_for_is_an_open_gap():
    """An idle node that is in nobody's plan is free for as long as one likes."""
    assert golden_gaps(row())[-1] == Gap("batch", 8, 16777, math.inf)


@pytest.mark.parametrize(
    "fields",
    [
        *({"state": state} for state in ("down*", "drain", "idle~", "idle*", "maint", "resv", "?")),
        {"cpus": "8/0/0/8"},
        {"cpus": "8"},
        {"cpus": "a/b/c/d"},
        {"used": "16000"},
        {"memory": "N/A"},
        {"node": "n1"},
    ],
)
def test_where_nothing_starts_now_is_no_gap(fields):
    """Nodes that are down, asleep, full or planned for this very moment offer nothing."""
    plan = f"{RECORDED_AT:.0f}|n1\n"
    assert len(golden_gaps(row(**fields), plan)) <= len(golden_gaps("", plan))


def test_gaps_are_not_read_from_an_error():
    """A plan that could not be had is not an empty plan: its gaps would be too long."""
    with pytest.raises(SiteError, match="did not answer"):
        golden_gaps("", "slurm_load_jobs error: Unable to contact slurm controller\n")


def test_gaps_are_asked_for_by_names_of_queues():
    """What is no name of a queue does not reach a command."""
    with pytest.raises(RequestError, match="queue"):
        SlurmDialect().gaps_argv(["short", "-h; rm"])


def test_other_systems_tell_no_gaps():
    """Where a system does not tell its plan at a bearable price, nothing is asked."""
    assert SgeDialect().gaps_argv(["short"]) == []
    assert PbsDialect().gaps_argv(["short"]) == []


@given(st.text("n01[],-9x", max_size=30))
def test_any_list_of_nodes_is_survived(text):
    """Whatever stands for nodes, names come out of it, and not without end."""
    assert len(nodes_of(text)) <= MOST_NODES


@given(first=st.integers(0, 999), count=st.integers(1, 99), width=st.integers(1, 5))
def test_ranges_of_nodes_are_written_out(first, count, width):
    """A range gives each of its nodes, with as many digits as its first has."""
    numbers = [str(number).zfill(width) for number in range(first, first + count)]
    text = f"a[{numbers[0]}-{first + count - 1}],b"
    width = len(numbers[0])
    expected = [f"a{str(number).zfill(width)}" for number in range(first, first + count)]
    assert nodes_of(text) == [*expected, "b"]


def test_the_end_of_a_job_is_read():
    """What the batch system says of a running job's end is told in seconds since the epoch."""
    start = time.mktime((2026, 11, 22, 18, 6, 29, 0, 0, -1))
    pbs = (GOLDEN / "pbs" / "many-states.txt").read_text()
    torque = (GOLDEN / "torque" / "many-states.txt").read_text()
    oar = (GOLDEN / "oar" / "many-states.txt").read_text()
    assert SlurmDialect().read_limit("Welcome\n1795390232\n", 0) == 1795390232
    assert PbsDialect().read_limit(pbs, 0) == start + 600
    assert PbsDialect(torque=True).read_limit(torque, 0) == start + 600
    assert OarDialect().read_limit(oar, 0) == start + 600
    assert LsfDialect().read_limit("0:25 L\n", 1000) == 1000 + 25 * 60


@pytest.mark.parametrize("text", ["", "N/A", "Welcome", "0:25 E", "walltime = forever", "-5"])
def test_an_end_that_is_not_told_is_not_made_up(text):
    """Without a clear answer no end is assumed."""
    for dialect in (SlurmDialect(), PbsDialect(), LsfDialect(), OarDialect(), SgeDialect()):
        assert dialect.read_limit(text, 0.0) is None


COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel"),
    "lsf": ("bsub", "bjobs"),
    "oar": ("oarsub", "oarstat"),
    "sge": ("qsub", "qstat", "qconf"),
    "pbs": ("qsub", "qstat", "pbsnodes"),
    "htcondor": ("condor_submit", "condor_q"),
}


def found(*systems, version=""):
    """What is detected where the commands of these systems are."""
    there = {command for system in systems for command in COMMANDS[system]}
    return detect(lambda name: f"/bin/{name}" if name in there else None, lambda _argv: version)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_system_is_found_by_its_commands(name):
    """The commands on PATH tell which batch system is here."""
    assert found(name) == name


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("pbs_version = 23.06.06", "pbs"),
        ("", "pbs"),
        ("Version: 6.1.3\nCommit: ab12", "torque"),
        ("version: 4.2.10 (TORQUE)", "torque"),
    ],
)
def test_torque_is_told_from_pbs_by_its_version(version, name):
    """Torque and PBS share their commands; their version tells them apart."""
    assert found("pbs", version=version) == name


def test_slurm_comes_before_what_it_imitates():
    """Slurm brings commands that look like those of PBS and LSF."""
    assert found("slurm", "pbs", "lsf") == "slurm"


def test_a_machine_with_condors_commands_alone_in_the_way_uses_its_batch_system():
    """HTCondor's commands are on many machines that have another batch system."""
    assert found("htcondor", "sge") == "sge"


def test_without_a_batch_system_there_is_the_local_queue():
    """Nothing on PATH means: this machine."""
    assert found() == LOCAL
