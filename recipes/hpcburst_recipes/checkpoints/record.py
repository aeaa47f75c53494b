"""The record: what was looked at, what was decided, by whom, and on which data."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import private_folder, write_private
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.formats import digest_of
from hpcburst_recipes.checkpoints.notebook import (
    DECIDE,
    NOTEBOOK,
    TEMPLATE,
    as_plain_text,
    markdown,
    tags_of,
)
from hpcburst_recipes.checkpoints.preview import can_render, page_of

RECORD = "record"
DECISION = "decision.json"
PAGE = "review.html"
CHANGES = "changes.diff"

DECIDED = "checkpoint-decision"


def keep_record(checkpoint: Checkpoint) -> Path:
    """Keep the notebook as it is now with the decision in it; may be done again.

    Returns:
        The folder: `decision.json`, and `review.ipynb`, `review.html` and `changes.diff` when the
        checkpoint has a notebook.
    """
    folder = Path(checkpoint.folder)
    record = private_folder(folder / RECORD)
    content = decision_text(checkpoint)
    if (folder / NOTEBOOK).is_file():
        content["notebook_sha256"] = digest_of(folder / NOTEBOOK)
        _keep_notebook(folder, record, content)
    write_private(record / DECISION, json.dumps(content, indent=1).encode())
    return record


def decision_text(checkpoint: Checkpoint) -> dict[str, Any]:
    """The decision with digests of what it was made on."""
    items = checkpoint.question["data"].items()
    return {
        "checkpoint": checkpoint.id,
        "name": checkpoint.question["name"],
        "question": checkpoint.question["text"],
        "flow_run": checkpoint.question["flow_run"],
        "decision": checkpoint.outcome() or checkpoint.answer(),
        "refused": checkpoint.refusals(),
        "data_sha256": {name: item["sha256"] for name, item in items},
        "env": checkpoint.question["env"],
        "env_key": checkpoint.question["env_key"],
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What a person changed in the cells, as a unified diff; "" if nothing."""
    lines = difflib.unified_diff(_lines(before), _lines(after), "as asked", "as decided", n=1)
    return "\n".join(line.rstrip("\n") for line in lines)


def _keep_notebook(folder: Path, record: Path, content: Mapping[str, Any]) -> None:
    notebook = json.loads((folder / NOTEBOOK).read_text(encoding="utf-8"))
    template = json.loads((folder / TEMPLATE).read_text(encoding="utf-8"))
    write_private(record / CHANGES, changes(template, notebook).encode())
    for cell in notebook["cells"]:
        if DECIDE in tags_of(cell) and cell["cell_type"] == "code":
            cell["outputs"] = []  # a dead panel says nothing
    notebook["cells"].append(markdown(_words(content), DECIDED))
    text = json.dumps(notebook, indent=1)
    write_private(record / NOTEBOOK, text.encode())
    if can_render():
        import nbformat

        page = page_of(nbformat.reads(text, as_version=4))
        write_private(record / PAGE, page.encode())


def _words(content: Mapping[str, Any]) -> str:
    answer = content["decision"] or {}
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(answer.get("at", 0)))
    rows = {
        "answer": answer.get("action", "none"),
        "values": ", ".join(f"{name}={value}" for name, value in answer.get("values", {}).items()),
        "why": answer.get("note", ""),
        "who": f"{answer.get('who')} on {answer.get('host')}, by the {answer.get('via')}",
        "when": when,
        "env": f"{content['env'] or 'of the flow'} {content['env_key']}",
        **{f"sha256 of {name}": text for name, text in content["data_sha256"].items()},
    }
    table = [f"| {name} | {as_plain_text(str(text))} |" for name, text in rows.items() if text]
    return "\n".join(["## Decision", "", "| | |", "|---|---|", *table])


def _lines(notebook: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for number, cell in enumerate(notebook.get("cells", ())):
        source = cell["source"]
        text = source if isinstance(source, str) else "".join(source)
        lines += [f"# cell {number + 1}", *text.splitlines()]
    return lines
