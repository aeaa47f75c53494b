"""The table at the end of a run says what was used of what was asked for, and is a table."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.results import Failure, Fault, Outcome, Usage
from hpcburst.tasks import Needs
from snakemake_executor_plugin_hpcburst.efficiency import Ledger

AMOUNTS = st.floats(0.001, 1e7)


def ended(wall_s=10.0, cpu_s=5.0, max_rss_mb=100.0, *, ok=True):
    failure = None if ok else Failure(Fault.NONZERO, "1", "It ended with status 1.")
    return Outcome(failure=failure, usage=Usage(0.0, wall_s, cpu_s, max_rss_mb))


def rows(ledger):
    return list(csv.DictReader(io.StringIO(ledger.csv(), newline="")))


def test_a_rule_is_the_sum_of_its_jobs():
    """Time is added up, memory is the largest, failed attempts are counted and marked."""
    ledger = Ledger()
    ledger.note("map", Needs(cores=2, memory_mb=400, walltime_s=60.0), ended())
    ledger.note("map", Needs(cores=2, memory_mb=800, walltime_s=90.0), ended(30, 55, 300, ok=False))
    ledger.note("plot", Needs(), ended(1, 1, 50))
    first, second = rows(ledger)
    assert (first["rule"], first["jobs"], first["failed"]) == ("map", "2", "1")
    assert (first["wall_s"], first["longest_s"], first["runtime_s"]) == ("40.0", "30", "90.0")
    assert (first["cpu_s"], first["cpu_share"]) == ("60.0", "0.75")
    assert (first["max_rss_mb"], first["memory_mb"]) == ("300", "800")
    assert first["memory_share"] == "0.375"
    assert (second["memory_mb"], second["memory_share"]) == ("0", "")


def test_a_job_that_never_ran_is_not_counted():
    """What was withdrawn or refused took nothing."""
    ledger = Ledger()
    ledger.note("map", Needs(), Outcome(failure=Failure(Fault.CANCELLED, "", "")))
    assert not ledger.rules


@pytest.mark.parametrize(
    ("needs", "outcome", "told"),
    [
        (Needs(cores=8), ended(100, 100), "computed in 12%"),
        (Needs(memory_mb=10_000), ended(100, 100), "asked for mem_mb=10000"),
        (Needs(memory_mb=150), ended(100, 100), ""),
        (Needs(cores=8, memory_mb=10_000), ended(1, 1), ""),
    ],
)
def test_what_is_worth_a_remark_is_named(needs, outcome, told):
    """Rules that held much more than they used are named, others are not, nor are short ones."""
    ledger = Ledger()
    ledger.note("map", needs, outcome)
    remarks = ledger.text(0.5).splitlines()[2:]
    assert told in "".join(remarks)
    assert bool(remarks) == bool(told)


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.integers(1, 64), AMOUNTS, AMOUNTS, AMOUNTS), max_size=8
    )
)
def test_any_names_and_figures_make_a_table(jobs):
    """One line a rule under the heads, all as wide, whatever rules are called."""
    ledger = Ledger()
    for name, cores, *used in jobs:
        ledger.note(name, Needs(cores=cores), ended(*used))
    lines = ledger.text(0.0).splitlines()
    assert len(lines) == 1 + len(ledger.rules)
    assert all(name.isprintable() for name in ledger.rules)
    assert len({len(line) for line in lines}) == 1
    assert len(rows(ledger)) == len(lines) - 1
