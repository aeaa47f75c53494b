"""The notebook: a cell for everything shown, text that stays text, a flow's own notebook kept."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.notebook import as_plain_text, tags_of, write_notebook
from hpcburst_recipes.checkpoints.record import changes, keep_record

Bundles = Callable[..., Checkpoint]

RECIPES = Path(__file__).parents[3] / "recipes" / "hpcburst_recipes"


def cells(path: Path) -> list[dict[str, object]]:
    return list(json.loads(path.read_text())["cells"])


def test_everything_shown_has_its_cell_and_the_panel_is_last(bundle: Bundles) -> None:
    """The notebook has parameters, one cell for each item, a free cell, and the panel."""
    nbformat = pytest.importorskip("nbformat")
    path = write_notebook(bundle({"a": 1, "b": 2}))
    nbformat.validate(nbformat.read(path, as_version=4))
    tags = [tags_of(cell)[0] for cell in cells(path)]
    assert tags == [
        "checkpoint-title", "parameters", "checkpoint-begin",
        "checkpoint-show", "checkpoint-show", "checkpoint-own", "checkpoint",
    ]  # fmt: skip


def test_a_given_notebook_keeps_its_cells_and_gets_parameters_and_panel(
    bundle: Bundles, tmp_path: Path
) -> None:
    """A flow's own notebook is run with this checkpoint's data, as papermill would."""
    own = {
        "cells": [
            {"cell_type": "code", "source": "checkpoint_dir = ''", "outputs": [],
             "execution_count": None, "metadata": {"tags": ["parameters"]}},
            {"cell_type": "markdown", "source": ["# mine"], "metadata": {}},
        ],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 4,
    }  # fmt: skip
    given = tmp_path / "own.ipynb"
    given.write_text(json.dumps(own))
    one = bundle()
    found = cells(write_notebook(one, given))
    assert [tags_of(cell) for cell in found] == [
        ["parameters"], ["injected-parameters"], ["checkpoint-begin"], [], ["checkpoint"],
    ]  # fmt: skip
    assert one.folder in str(found[1]["source"])


def test_what_is_no_notebook_is_refused(bundle: Bundles, tmp_path: Path) -> None:
    """A wrong file is told before anybody waits for it."""
    (tmp_path / "x.ipynb").write_text('{"nbformat": 3}')
    with pytest.raises(RequestError, match="format 4"):
        write_notebook(bundle(), tmp_path / "x.ipynb")


@given(st.text())
def test_no_text_is_ever_markup(text: str) -> None:
    """Whatever a question or a sample is called, a page shows its letters and runs nothing."""
    plain = as_plain_text(text)
    assert not set(plain) & set("<>*_`[]()|\\$\"'")
    import html

    assert html.unescape(plain) == text or not text.isprintable()


def test_the_record_has_the_decision_in_it_and_tells_what_a_person_changed(
    bundle: Bundles,
) -> None:
    """What was looked at, changed and decided is kept beside the answer."""
    one = bundle({"d": 1})
    path = write_notebook(one)
    notebook = json.loads(path.read_text())
    notebook["cells"][-2]["source"] = ["data['d']\n", "+ 1"]
    path.write_text(json.dumps(notebook))
    one.decide("approve", {"note": "<script>"})

    record = keep_record(one)

    last = cells(record / "review.ipynb")[-1]
    assert "## Decision" in str(last["source"])
    assert "<script>" not in str(last["source"])
    assert "+data['d']" in (record / "changes.diff").read_text()
    content = json.loads((record / "decision.json").read_text())
    assert content["notebook_sha256"]
    assert keep_record(one) == record


def test_a_notebook_that_nobody_touched_has_no_changes(bundle: Bundles) -> None:
    """Only what a person wrote is a change."""
    notebook = json.loads(write_notebook(bundle()).read_text())
    assert changes(notebook, notebook) == ""


@pytest.mark.parametrize("file", ["checkpoints/answering.py", "jupyter/panel.py"])
def test_what_goes_into_an_env_is_python_3_8(file: str) -> None:
    """The modules in a bundle can be read by the oldest Python an env may have."""
    ast.parse((RECIPES / file).read_text(), feature_version=(3, 8))
