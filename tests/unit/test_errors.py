"""Every error is an answer, and stays one on its way from a pilot to the user."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst import errors
from hpcburst.errors import TAIL_LINES, BodyError, BurstError, PilotLost, RequestError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BurstError)
]


def _full(kind):
    return kind(
        "fit was called",
        "the queue is closed",
        "try another queue",
        job_id="4711",
        host="node7",
        log="/logs/4711.log",
        tail="last words",
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_an_error_travels_whole(kind, copied):
    """An error that crosses processes keeps its type, its message and its fields."""
    error = _full(kind)
    error.add_note("in the task's env")
    arrived = copied(error)
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_what_where_and_what_to_do(kind):
    """What was asked, what was found, what to do, and where; the user's names as they are."""
    assert str(_full(kind)) == (
        "fit was called. The queue is closed. Try another queue. "
        "[job 4711, host node7, log /logs/4711.log]\n--- last output ---\nlast words"
    )


def test_an_error_is_short_when_little_is_known():
    """What is not known is left out, not shown as None."""
    assert str(BurstError("nothing came back")) == "nothing came back."


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.text(max_size=2000))
def test_any_text_makes_a_bounded_message(asked, found, todo, tail):
    """Whatever a program printed, the message can be shown and is no flood."""
    error = BurstError(asked, found, todo, tail=tail)
    assert len(error.tail.splitlines()) <= TAIL_LINES
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_only_the_last_lines_of_output_are_kept():
    """The end of the output is kept, where the cause usually is."""
    error = BurstError("it failed", tail="\n".join(map(str, range(1000))) + "\n\n")
    assert error.tail.splitlines() == [str(n) for n in range(1000 - TAIL_LINES, 1000)]


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (RequestError, ValueError),
        (errors.RunError, RuntimeError),
        (errors.WalltimeReached, TimeoutError),
    ],
)
def test_errors_are_what_python_would_raise(kind, builtin):
    """Code that catches the built-in error of that meaning catches ours."""
    assert isinstance(kind("asked"), builtin)


def test_only_a_lost_pilot_is_worth_the_same_request_again():
    """`transient` tells a caller whether asking again can help."""
    assert [kind for kind in KINDS if kind.transient] == [PilotLost]


def test_an_exception_of_the_env_keeps_its_name_and_traceback():
    """An exception that cannot be rebuilt here still tells its type and traceback."""
    error = BodyError("the body raised")
    error.kind, error.traceback = "ModelError", "Traceback: ..."
    arrived = pickle.loads(pickle.dumps(error))
    assert (arrived.kind, arrived.traceback) == ("ModelError", "Traceback: ...")
