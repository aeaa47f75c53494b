"""What is told of a rule that failed is the same, however the job ran."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcburst.errors import PilotLost
from hpcburst.results import Failure, Fault, Outcome, Where
from snakemake_executor_plugin_hpcburst.answers import Answer, of_future
from snakemake_executor_plugin_hpcburst.endings import command_status, end_of, was_killed

JOB = SimpleNamespace(name="sort", is_group=lambda: False)
NESTED = "RuleException:\nCommand 'set -euo pipefail;  exit 3' returned non-zero exit status 3.\n"


def answer(outcome: Outcome, log: Path, text: str, *, nested: bool) -> Answer:
    """The answer to a job that ended so."""
    log.write_text(text)
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    told = of_future(JOB, future, log, nested=nested)
    assert told is not None
    return told


def failed(fault: Fault, returncode: int, message: str = "as the pilot says") -> Outcome:
    """How a pilot tells of a command that failed."""
    return Outcome(
        failure=Failure(fault, "kind", message), returncode=returncode, where=Where("pilot-1", "7")
    )


def test_the_status_is_the_rules_own(tmp_path: Path):
    """A nested call ends with 1; what is told is the status of the command in it."""
    told = answer(failed(Fault.NONZERO, 1), tmp_path / "log", NESTED, nested=True)
    direct = answer(failed(Fault.NONZERO, 3), tmp_path / "log", "oh\n", nested=False)
    for each in (told, direct):
        assert each.text.startswith("Rule sort ran on pilot-1. It ended with status 3. [job 7")
    assert told.job_id == "7"


def test_what_a_direct_command_writes_is_not_taken_for_its_status(tmp_path: Path):
    """A rule that runs Snakemake, or writes like it, has the status it has."""
    told = answer(failed(Fault.NONZERO, 1), tmp_path / "log", NESTED, nested=False)
    assert "It ended with status 1." in told.text


@pytest.mark.parametrize("status", [-9, 137])
def test_a_command_that_was_killed_outright_may_want_memory(tmp_path: Path, status: int):
    """Where the system does not count, a kill is told as what it was and what it may have been."""
    told = answer(failed(Fault.NONZERO, status), tmp_path / "log", "", nested=False)
    assert "killed outright (SIGKILL)" in told.text
    assert "mem_mb" in told.text


@pytest.mark.parametrize(
    ("fault", "todo"), [(Fault.OUT_OF_MEMORY, "mem_mb"), (Fault.TIMEOUT, "runtime")]
)
def test_memory_and_time_say_what_to_ask_for(tmp_path: Path, fault: Fault, todo: str):
    """Out of memory and over the runtime are said so, with the resource to raise."""
    told = answer(failed(fault, 1), tmp_path / "log", NESTED, nested=True)
    assert "As the pilot says." in told.text
    assert todo in told.text


def test_a_lost_pilot_is_not_the_rules_fault(tmp_path: Path):
    """The keeper's own words reach the user, with the last job's id."""
    future: Future[Outcome] = Future()
    future.set_exception(PilotLost("It was handed to 3 pilots", "each went away", job_id="9"))
    told = of_future(JOB, future, tmp_path / "log")
    assert told is not None
    assert "Each went away" in told.text
    assert told.job_id == "9"


def test_the_last_command_counts():
    """Of two failures in a log, the later is the one that ended the job."""
    died = "Command 'x' died with <Signals.SIGKILL: 9>."
    assert command_status(NESTED + died) == -9
    assert was_killed(command_status(NESTED + died))
    assert command_status("Killed\n") is None


def test_a_log_that_is_not_there_is_empty(tmp_path: Path):
    """A job without a log is told of without one."""
    assert end_of(None) == end_of(str(tmp_path / "none")) == ""


def test_a_missing_output_is_not_a_status(tmp_path: Path):
    """A command that made nothing has not failed; the answer says what is missing."""
    said = "MissingOutputException in rule sort in file x, line 1:\nJob 0 completed successfully.\n"
    told = answer(failed(Fault.NONZERO, 1), tmp_path / "log", said, nested=True)
    assert "Its command ended well, and outputs are missing." in told.text
