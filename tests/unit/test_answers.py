"""What comes home from a pilot becomes the value or the exception that its reader expects."""

from __future__ import annotations

import pickle

import pytest

from hpcburst import errors
from hpcburst.answers import raise_failure, value_of
from hpcburst.errors import BodyError, BurstError
from hpcburst.results import Failure, Fault, Outcome, Where
from hpcburst.workers.guest import values

WHERE = Where("pilot-1", "4711", "node7", "/logs/4711.log", "env")

KINDS = {
    Fault.DIED: errors.BodyDied,
    Fault.OUT_OF_MEMORY: errors.BodyDied,
    Fault.TIMEOUT: TimeoutError,
    Fault.ARGUMENTS: errors.RequestError,
    Fault.RESULT: errors.RequestError,
    Fault.ENV: errors.EnvError,
    Fault.NONZERO: errors.RunError,
    Fault.CANCELLED: errors.Cancelled,
    Fault.RAISED: BodyError,
}


class Stubborn(Exception):
    """An exception that cannot be unpickled: its constructor wants more than it keeps."""

    def __init__(self, first, second):
        super().__init__(first)
        self.second = second


def _failed(fault, **fields):
    return Outcome(failure=Failure(fault, "Kind", "it broke", "last words", **fields), where=WHERE)


def _raised(error):
    failure = Failure(
        Fault.RAISED, type(error).__name__, str(error), "the env's traceback", pickle.dumps(error)
    )
    return Outcome(failure=failure, where=WHERE)


@pytest.mark.parametrize("value", [None, 42, {"a": [1, 2]}, b"x" * 100_000])
def test_the_value_of_a_body_comes_home(value):
    """What a body returned is what its caller gets."""
    payload, buffers = values.dumps(value)
    assert value_of(Outcome(payload, tuple(map(bytes, buffers))), "fit") == value


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_an_exception(fault):
    """However a task ended, its caller gets an exception of the right kind with the whole story."""
    with pytest.raises(KINDS[fault]) as caught:
        value_of(_failed(fault), "fit")
    error = caught.value
    assert isinstance(error, BurstError)
    assert (error.job_id, error.host, error.log) == ("4711", "node7", "/logs/4711.log")
    for words in ("'fit'", "it broke", "last words"):
        assert words in str(error).lower()


def test_an_exception_of_the_body_is_raised_as_itself():
    """The caller catches what the body raised, and reads the env's traceback in its notes."""
    with pytest.raises(ZeroDivisionError, match="by zero") as caught:
        value_of(_raised(ZeroDivisionError("by zero")), "fit")
    (note,) = caught.value.__notes__
    assert "the env's traceback" in note
    assert "4711" in note


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_body_that_exits_does_not_end_its_caller(error):
    """`sys.exit()` in a body is the task's failure, never the end of the flow."""
    with pytest.raises(BodyError, match=type(error).__name__) as caught:
        value_of(_raised(error), "fit")
    assert caught.value.kind == type(error).__name__


@pytest.mark.parametrize(
    "pickled", [None, b"junk", pickle.dumps(Stubborn("a", "b")), pickle.dumps(7)]
)
def test_an_exception_that_cannot_be_rebuilt_is_told_in_words(pickled):
    """An exception class that exists in the env only is told by name, message and traceback."""
    with pytest.raises(BodyError, match=r"(?i)kind: it broke") as caught:
        value_of(_failed(Fault.RAISED, pickled=pickled), "fit")
    assert caught.value.traceback == "last words"


def test_where_it_happened_is_left_out_when_unknown():
    """A failure without a job does not point at an empty one."""
    with pytest.raises(errors.RunError) as caught:
        raise_failure(Failure(Fault.NONZERO, "1", "It ended with status 1."), Where(), "sort")
    assert "job" not in str(caught.value)
