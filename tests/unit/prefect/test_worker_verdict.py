"""What becomes of a flow run whose job waits, runs or has ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_hpcburst.worker.verdict import End, RunNews, Wish, is_over, judge, wish

STATES = (
    *("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED"),
    *("CANCELLING", "SCHEDULED", "PAUSED"),
)

ended = st.builds(
    End,
    job_id=st.just("12"),
    host=st.sampled_from(["", "n3"]),
    reason=st.sampled_from(["", "TIMEOUT", "PREEMPTED", "COMPLETED", "NODE_FAIL", "CANCELLED"]),
    lasted_s=st.none() | st.floats(0, 4000),
    walltime_s=st.just(3600.0),
    log=st.sampled_from(["", "/logs/12.log"]),
    tail=st.text(max_size=40),
)
runs = st.builds(
    RunNews, state=st.sampled_from(STATES), leaves=st.booleans(), starts=st.integers(0, 9)
)


@given(runs, st.booleans())
def test_a_job_that_nobody_wants_does_not_stay_in_the_queue(run, begun):
    """While its job waits, a run that is over, cancelled or put back has the job taken away."""
    if not begun and run.state not in ("PENDING", "RUNNING", "PAUSED"):
        assert wish(run, begun=begun) in (Wish.WITHDRAW, Wish.CANCEL)


@given(runs)
def test_a_running_job_is_never_taken_away_by_us(run):
    """Prefect's own process in the job ends it; the worker does not shoot at running flows."""
    assert wish(run, begun=True) in (Wish.KEEP, Wish.FORGET)


def test_a_deleted_run_takes_its_job_along():
    """A flow run that was deleted leaves no job, waiting or running."""
    assert wish(RunNews(""), begun=True) is wish(RunNews(""), begun=False) is Wish.WITHDRAW


@given(runs, ended, st.booleans(), st.integers(1, 9))
def test_what_prefect_knows_already_is_not_said_again(run, end, reschedules, most):
    """A run that completed, failed, was cancelled or was put back keeps its state."""
    if run.state in ("COMPLETED", "FAILED", "CANCELLED", "SCHEDULED"):
        assert not judge(run, end, reschedules=reschedules, max_jobs=most).state


@given(runs, ended, st.booleans(), st.integers(1, 9))
def test_no_run_stays_running_when_its_job_is_gone(run, end, reschedules, most):
    """A run that Prefect takes to be pending, running or being cancelled gets a last word."""
    if run.state in ("PENDING", "RUNNING", "CANCELLING"):
        verdict = judge(run, end, reschedules=reschedules, max_jobs=most)
        assert verdict.state
        assert "12" in verdict.message


@given(runs, ended, st.integers(1, 9))
def test_a_run_comes_back_only_so_often(run, end, most):
    """A flow that kills its jobs is not rescheduled for ever, and one that never began not once."""
    verdict = judge(run, end, reschedules=True, max_jobs=most)
    if verdict.state == "reschedule":
        assert run.starts < most
        assert run.state != "PENDING"


@given(runs, ended, st.integers(1, 9))
def test_nothing_is_run_twice_unless_the_deployment_says_so(run, end, most):
    """Without "reschedule" a job that ends early ends its run."""
    assert judge(run, end, reschedules=False, max_jobs=most).state != "reschedule"


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (End("7", "n3", "PREEMPTED", 10.0, 3600.0), "the batch system says PREEMPTED"),
        (End("7", "n3", "TIMEOUT", 3595.0, 3600.0), "its walltime of 60 min was over (TIMEOUT)"),
        (End("7", "n3", "", 3605.0, 3600.0), "its walltime of 60 min was over"),
        (End("7", "", "", 10.0, 3600.0), "it died, or somebody ended it"),
    ],
)
def test_the_reason_is_told(end, words):
    """The state of a crashed run says which job ended, where and why."""
    message = judge(RunNews("RUNNING"), end, reschedules=False, max_jobs=1).message
    assert message.startswith("Job 7 on n3" if end.host else "Job 7 ended")
    assert words in message


def test_a_crash_that_prefect_reported_gets_the_batch_systems_reason():
    """The signal that ends a job makes the flow say "terminated"; the state says why it came."""
    run = RunNews("CRASHED", "Execution was terminated by SIGTERM.")
    verdict = judge(run, End("7", "n3", "PREEMPTED", 5, 60), reschedules=False, max_jobs=1)
    assert verdict.force
    assert "PREEMPTED" in verdict.message
    assert "SIGTERM" in verdict.message
    assert not judge(run, End("7", "n3", "FAILED", 5, 60), reschedules=False, max_jobs=1).state


def test_one_look_is_no_proof():
    """A job that is being ended, or that a scheduler forgot for a moment, is not given up."""
    assert not is_over(1, 0, "")
    assert not is_over(9, 0, "COMPLETING")
    assert not is_over(0, 2, "")
    assert is_over(2, 0, "TIMEOUT")
    assert is_over(0, 3, "")
