"""Tasks that a body names: inside it they are their functions, and cannot be queued."""

from __future__ import annotations

import importlib
import sys

import pytest
from prefect import task

from hpcburst.bodies import body_of
from hpcburst.workers.guest.logs import STAND_INS
from hpcburst.workers.guest.rebuild import Rebuilt
from prefect_hpcburst.remote_body import stand_ins

LIBRARY = """
from prefect import task
SCALE = 3

def scaled(x):
    return SCALE * x

@task
def of_library(x):
    return scaled(x) + 1
"""


@task
def double(x):
    return 2 * x


@task
def calls(x):
    return double(x) + double.fn(x)


@task
def fans_out(xs):
    return double.map(xs)


@task
def recurses(n):
    return n * recurses(n - 1) if n else 1


@task
def submits_itself(n):
    return recurses.with_options(name="again").submit(n)


def rebuilt(a_task):
    return Rebuilt(body_of(a_task.fn, stand_ins=stand_ins()).blob, STAND_INS).function


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Imports a module with a task from a folder, as a library's or as the user's own."""
    made = []

    def load(folder, name):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(LIBRARY)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        made.append(name)
        return importlib.import_module(name)

    yield load
    for name in made:
        sys.modules.pop(name, None)


def test_a_task_in_a_body_is_its_function():
    """A body may call another task, or itself: it runs right there, as a direct call does."""
    assert rebuilt(calls)(5) == 20
    assert rebuilt(recurses)(4) == 24


@pytest.mark.parametrize(
    ("a_task", "verb"), [(fans_out, "double.map"), (submits_itself, "recurses.with_options")]
)
def test_queueing_from_a_body_is_refused_with_the_reason(a_task, verb):
    """`submit` and `map` inside a body say that it has no engine, and what to do instead."""
    with pytest.raises(RuntimeError, match=rf"{verb}\(\.\.\.\) was called inside the body") as told:
        rebuilt(a_task)([1, 2])
    assert "submit it from the flow" in str(told.value)


def test_a_task_of_a_library_is_found_in_the_env(module):
    """A task that an installed library defines is imported there; nothing of its text travels."""
    of_library = module("site-packages", "a_library").of_library
    body = body_of(of_library.fn, stand_ins=stand_ins())
    assert b"SCALE" not in body.blob
    assert Rebuilt(body.blob, STAND_INS).function(2) == 7


def test_a_task_of_another_file_of_the_users_travels_as_text(module):
    """A task beside the flow, in a file of its own, needs no Prefect where it runs."""
    of_user = module("flows", "other_file").of_library

    def uses(x):
        return of_user(x) + 1

    body = body_of(uses, stand_ins=stand_ins())
    assert b"SCALE" in body.blob
    assert Rebuilt(body.blob, STAND_INS).function(2) == 8
