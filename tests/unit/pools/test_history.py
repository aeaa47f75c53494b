"""What was learned helps the next run, and never harms it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.pools import history as history_module
from hpcburst.pools.history import FILE, MOST_BYTES, History
from hpcburst.tasks import Shape

SHAPE = Shape(cores=2, walltime_s=120, queue="day")


def test_the_last_two_runs_foretell_the_next(tmp_path):
    """The mean of the last two counts, by task and env; earlier ones do not."""
    history = History.of(tmp_path)
    for wall_s in (100.0, 1.0, 3.0):
        history.note_task("fit", "env-1", wall_s)
    assert history.task_s("fit", "env-1") == 2.0
    assert history.task_s("fit", "env-2") is None


def test_what_one_run_learned_the_next_one_knows(tmp_path):
    """Durations and start delays are there again in a new process."""
    history = History.of(tmp_path)
    history.note_task("fit", "", 600.0)
    history.note_start(SHAPE, 12.0)
    history.save()
    again = History.of(tmp_path)
    assert again.task_s("fit", "") == 600.0
    assert again.start_delay_s() == {SHAPE: 12.0}
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_two_runs_at_once_keep_what_both_learned(tmp_path):
    """The run that ends last does not wipe out what the other one wrote."""
    one, two = History.of(tmp_path), History.of(tmp_path)
    one.note_task("fit", "", 1.0)
    two.note_task("plot", "", 2.0)
    one.save()
    two.save()
    again = History.of(tmp_path)
    assert (again.task_s("fit", ""), again.task_s("plot", "")) == (1.0, 2.0)


def test_how_busy_a_queue_was_yesterday_is_forgotten(tmp_path, monkeypatch):
    """A start delay counts for some hours."""
    history = History.of(tmp_path)
    history.note_start(SHAPE, 12.0)
    monkeypatch.setattr(history_module, "STARTS_LAST_S", 0.0)
    assert history.start_delay_s() == {}


def test_the_file_stays_small(tmp_path, monkeypatch):
    """However many names there are, the latest are kept and the file is bounded."""
    monkeypatch.setattr(history_module, "MOST_TASKS", 10)
    history = History.of(tmp_path)
    for number in range(100):
        history.note_task(f"task-{number}" + "x" * 1000, "", 1.0)
    history.save()
    assert (tmp_path / FILE).stat().st_size < 10_000
    assert History.of(tmp_path).task_s("task-99" + "x" * 1000, "") == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"tasks": 1, "starts": 2}',
        '{"tasks": {"a": ["b"]}, "starts": []}',
        '{"tasks": {"a": [NaN]}, "starts": [[{"cores": 0}, [[1, 2]]]]}',
        '{"tasks": {}, "starts": [[{"no": 1}, [[1, 2]]], 7]}',
        '{"tasks": {}, "starts": [[{"walltime_s": 0}, [[1, 2]]], [{"memory_mb": "x"}, [[1, 2]]]]}',
        "[" * 100_000,
        " " * (MOST_BYTES + 1),
    ],
)
def test_a_broken_file_is_as_good_as_none(tmp_path, text):
    """Whatever stands in the file, the run goes on and learns anew."""
    (tmp_path / FILE).write_text(text)
    history = History.of(tmp_path)
    assert history.task_s("a", "") is None
    assert history.start_delay_s() == {}
    history.note_task("fit", "", 1.0)
    history.save()
    assert History.of(tmp_path).task_s("fit", "") == 1.0


def test_what_cannot_be_written_does_not_stop_a_run(tmp_path):
    """A folder that is gone costs the memory, not the run."""
    history = History.of(tmp_path / "gone")
    history.note_task("fit", "", 1.0)
    history.save()
    assert history.task_s("fit", "") == 1.0


@given(st.text(max_size=30), st.text(max_size=30), st.floats())
def test_any_name_and_any_figure_can_be_noted(name, env_key, wall_s):
    """No task name and no measurement breaks it, and what it foretells is a number of seconds."""
    history = History()
    history.note_task(name, env_key, wall_s)
    foretold_s = history.task_s(name, env_key)
    assert foretold_s is None or 0 <= foretold_s < float("inf")
    json.dumps(history._document())
