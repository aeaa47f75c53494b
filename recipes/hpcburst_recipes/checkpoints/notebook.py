"""The notebook of a checkpoint: generated, or the flow's own with what it needs put in.

A notebook is plain JSON, so none of Jupyter's packages is needed to write one.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private
from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.jupyter.kernels import KERNEL

NOTEBOOK = "review.ipynb"
TEMPLATE = "template.ipynb"
"""The notebook as it was written, to see later what a person added."""

PARAMETERS, BEGIN, SHOW, DECIDE = "parameters", "checkpoint-begin", "checkpoint-show", "checkpoint"
"""Tags of cells."""

Cell = dict[str, Any]

_BEGIN = """\
import sys
sys.path.append(checkpoint_dir)
import hpcburst_panel
cp = hpcburst_panel.begin(checkpoint_dir)
data = cp.load_all()"""

_OWN = "# Your own look at `data` goes here; the pipeline waits.\n"


def write_notebook(checkpoint: Checkpoint, given: Path | None = None) -> Path:
    """Write the notebook into a bundle.

    Args:
        checkpoint: The bundle.
        given: The flow's own notebook: after its cell tagged `parameters` come ours, and the panel
            at the end unless a cell is tagged `checkpoint` already.

    Raises:
        RequestError: The given one is no notebook of format 4.
    """
    notebook = _generated(checkpoint) if given is None else _completed(checkpoint, given)
    text = json.dumps(notebook, indent=1).encode()
    write_private(Path(checkpoint.folder) / TEMPLATE, text)
    write_private(Path(checkpoint.folder) / NOTEBOOK, text)
    return Path(checkpoint.folder) / NOTEBOOK


def as_plain_text(text: str) -> str:
    """Text that Markdown shows as it is written, whatever is in it.

    Everything that could be markup becomes a numeric entity, which no Markdown reads as markup.

    >>> as_plain_text("a_b <i>")
    'a&#95;b &#60;i&#62;'
    """
    return re.sub(r"[^\w\s.,;?!%/-]|_", lambda found: f"&#{ord(found[0])};", text)


def tags_of(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def markdown(text: str, tag: str) -> Cell:
    """A cell of text."""
    return {**_cell(tag), "cell_type": "markdown", "source": text}


def _code(text: str, tag: str) -> Cell:
    empty: Cell = {"execution_count": None, "outputs": []}
    return {**_cell(tag), "cell_type": "code", "source": text, **empty}


def _cell(tag: str) -> Cell:
    return {"id": secrets.token_hex(4), "metadata": {"tags": [tag]}}


def _generated(checkpoint: Checkpoint) -> dict[str, Any]:
    cells = [
        markdown(_title(checkpoint), "checkpoint-title"),
        *_beginning(checkpoint, PARAMETERS),
        *(_code(f'hpcburst_panel.show(cp, "{name}")', SHOW) for name in checkpoint.names()),
        _code(_OWN, "checkpoint-own"),
        _deciding(),
    ]
    return {"cells": cells, "metadata": _metadata(), "nbformat": 4, "nbformat_minor": 5}


def _completed(checkpoint: Checkpoint, given: Path) -> dict[str, Any]:
    notebook = _read(given)
    cells = list(notebook["cells"])
    place = next((n + 1 for n, cell in enumerate(cells) if PARAMETERS in tags_of(cell)), 0)
    cells[place:place] = _beginning(checkpoint, "injected-parameters")
    if not any(DECIDE in tags_of(cell) for cell in cells):
        cells.append(_deciding())
    for cell in cells:
        cell.setdefault("id", secrets.token_hex(4))
    metadata = {**notebook.get("metadata", {}), **_metadata()}
    return {**notebook, "cells": cells, "metadata": metadata, "nbformat_minor": 5}


def _read(given: Path) -> dict[str, Any]:
    asked = f"The notebook {given} was to be shown"
    try:
        notebook = json.loads(given.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(asked, f"it cannot be read: {error}") from error
    right = isinstance(notebook, dict) and notebook.get("nbformat") == 4
    if not right or not isinstance(notebook.get("cells"), list):
        raise RequestError(asked, "it is no notebook of format 4", "save it with Jupyter")
    return dict(notebook)


def _beginning(checkpoint: Checkpoint, tag: str) -> list[Cell]:
    # json.dumps writes a Python string too, whatever is in the path
    where = _code(f"checkpoint_dir = {json.dumps(checkpoint.folder)}", tag)
    return [_folded(where), _folded(_code(_BEGIN, BEGIN))]


def _folded(cell: Cell) -> Cell:
    """The cell with its source folded away: it is there, and nobody has to read it."""
    metadata = {**cell["metadata"], "jupyter": {"source_hidden": True}}
    return {**cell, "metadata": metadata}


def _deciding() -> Cell:
    return _folded(_code("hpcburst_panel.panel(cp)", DECIDE))


def _title(checkpoint: Checkpoint) -> str:
    text = as_plain_text(" ".join(str(checkpoint.question["text"]).split()))
    return f"# {as_plain_text(checkpoint.question['name'])}\n\n{text}"


def _metadata() -> dict[str, Any]:
    spec = {"name": KERNEL, "display_name": "checkpoint", "language": "python"}
    return {"kernelspec": spec}
