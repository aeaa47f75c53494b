"""What Prefect's pages say of a checkpoint: an artifact to read, and a form to answer in.

Everything of the flow's is shown as it is written: a sample's name is never markup. No address
with a token in it, since artifacts lie in the server's database.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect.artifacts import create_markdown_artifact
from prefect.input import RunInput
from pydantic import Field, create_model

from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.preview import PREVIEW
from hpcburst_recipes.checkpoints.question import KEEP_WAITING, Question

ROWS = 10
LARGEST_PICTURE = 300_000
"""Bytes of a picture that an artifact may carry: it lies in a database."""

ANSWER, WHY = "checkpoint_answer", "checkpoint_why"
"""Fields of the form beside those of the model."""

_LOOK_ALIKE = {ord("<"): "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"} | {
    ord(">"): "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
}

_PICTURES = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
}


def plain(text: str) -> str:
    """Text that Prefect's pages show as it is written, whatever is in it.

    Their Markdown knows backslashes and no entities. Angle brackets become others that look alike
    and are markup nowhere.
    """
    return re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", text.translate(_LOOK_ALIKE))


def announce(checkpoint: Checkpoint) -> None:
    """Put the question on the flow run's page."""
    _artifact(checkpoint, "waiting for you", waiting_text(checkpoint))


def announce_decision(checkpoint: Checkpoint, record: Path) -> None:
    """Put the decision there."""
    _artifact(checkpoint, "decided", decided_text(checkpoint, record))


def waiting_text(checkpoint: Checkpoint) -> str:
    """The question, what is shown, until when, and how to answer, as Markdown."""
    question = checkpoint.question
    parts = [
        f"## Checkpoint {plain(question['name'])}: waiting for you",
        plain(question["text"]),
        until_when(checkpoint),
        _command(f"hpcburst checkpoint open {checkpoint.id}"),
        _other_ways(checkpoint),
        _fields(question["schema"]),
        *(_shown(checkpoint, name) for name in checkpoint.names()),
    ]
    preview = Path(checkpoint.folder) / PREVIEW
    if preview.is_file():
        parts.append(f"The notebook as a page: {plain(str(preview))}")
    return "\n\n".join(filter(None, parts))


def decided_text(checkpoint: Checkpoint, record: Path) -> str:
    """Who decided what, when and how, as Markdown."""
    answer = checkpoint.outcome() or {}
    values = ", ".join(f"{name}={value}" for name, value in answer.get("values", {}).items())
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(answer.get("at", 0)))
    lines = [
        f"## Checkpoint {plain(checkpoint.question['name'])}: {answer.get('action')}",
        plain(checkpoint.question["text"]),
        plain(f"{answer.get('who')} by the {answer.get('via')}, {when}: {values}"),
        plain(str(answer.get("note", ""))),
        f"Record: {plain(str(record))}",
    ]
    return "\n\n".join(filter(None, lines))


def until_when(checkpoint: Checkpoint) -> str:
    """The deadline, and what happens then."""
    deadline, then = checkpoint.deadline(), checkpoint.question["on_timeout"]
    if deadline is None or then == KEEP_WAITING:
        return "No deadline: it waits, and holds no node meanwhile."
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(deadline))
    what = {"approve": "it is approved with the defaults", "reject": "it is rejected"}
    return f"Until {when}; then {what.get(then, 'the flow fails')}."


def form(asked: Question, checkpoint: Checkpoint) -> type[RunInput]:
    """The form on the flow run's page: the model's fields with their choices and defaults.

    Its answer has no default: nobody approves by pressing a button too early. The model's own
    validators are not in it; they judge the answer later, like any other.
    """
    fields: dict[str, Any] = {
        ANSWER: (Literal["approve", "reject"], Field(title="Answer")),
        WHY: (str, Field("", title="Why")),
    }
    properties = asked.schema.get("properties", {})
    for name, info in asked.model.model_fields.items():
        shown = info.alias or name
        kind = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        fields[shown] = (kind, _field(properties[shown]))
    made: type[RunInput] = create_model(
        f"Checkpoint{asked.model.__name__}", __base__=RunInput, **fields
    )
    return made.with_initial_data(description=_description(checkpoint))


def values_of(given: RunInput) -> tuple[str, dict[str, Any], str]:
    """Answer, values and reason of a form that was sent."""
    content = given.model_dump(mode="json")
    return content.pop(ANSWER), content, content.pop(WHY)


def _field(stated: Mapping[str, Any]) -> Any:
    extra = {name: stated[name] for name in ("enum", "items") if name in stated}
    words = "; ".join(
        f"{value}: {why}"
        for value, why in zip(stated.get("enum", ()), stated.get("words", ()), strict=False)
    )
    return Field(
        stated.get("default", ...),
        description=" ".join(filter(None, (stated.get("description"), words))) or None,
        json_schema_extra=extra or None,
    )


def _description(checkpoint: Checkpoint) -> str:
    again = [f"Asked again: {plain(why)}" for why in checkpoint.refusals()[-1:]]
    look = f"Look first: `hpcburst checkpoint open {checkpoint.id}`"
    text = plain(checkpoint.question["text"])
    return "\n\n".join([text, *again, until_when(checkpoint), look])


def _artifact(checkpoint: Checkpoint, what: str, text: str) -> None:
    create_markdown_artifact(
        key=f"checkpoint-{checkpoint.id}",
        markdown=text,
        description=f"Checkpoint {checkpoint.question['name']}: {what}",
    )


def _command(text: str) -> str:
    return f"```\n{text}\n```"


def _other_ways(checkpoint: Checkpoint) -> str:
    approve = f"`hpcburst checkpoint approve {checkpoint.id} FIELD=VALUE`"
    reject = f"`hpcburst checkpoint reject {checkpoint.id} WHY`"
    return f"Or decide at once: {approve}, {reject}, or *Resume* on this page."


def _fields(schema: Mapping[str, Any]) -> str:
    fields = schema.get("properties", {})
    if not fields:
        return ""
    rows = [f"| {plain(name)} | {_range(field)} |" for name, field in fields.items()]
    return "\n".join(["| field | default, and what it may be |", "|---|---|", *rows])


def _range(field: Mapping[str, Any]) -> str:
    values = field.get("enum") or field.get("items", {}).get("enum")
    bounds = [
        f"{words} {field[name]}"
        for name, words in (("minimum", "from"), ("maximum", "to"))
        if name in field
    ]
    told = [str(field["default"])] if "default" in field else []
    told += [f"one of {', '.join(map(str, values))}"] if values else bounds
    return plain("; ".join(told))


def _shown(checkpoint: Checkpoint, name: str) -> str:
    item = checkpoint.question["data"][name]
    path = Path(checkpoint.folder) / item["file"]
    title = f"**{plain(name)}** ({item['shown_as']}, {item['bytes']} bytes)"
    if item["shown_as"] == "picture" and path.suffix[1:].lower() in _PICTURES:
        if item["bytes"] > LARGEST_PICTURE:
            return f"{title}: too large for this page"
        data = base64.b64encode(path.read_bytes()).decode()
        return f"{title}\n\n![{name}](data:{_PICTURES[path.suffix[1:].lower()]};base64,{data})"
    if item["format"] == "parquet":
        return f"{title}\n\n{_table(path)}"
    return title


def _table(path: Path) -> str:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path)
    rows = next(table.iter_batches(batch_size=ROWS), None)
    names = [plain(str(name)) for name in table.schema_arrow.names]
    lines = [names, ["---"] * len(names)]
    lines += [
        [" ".join(plain(str(cell)).split()) for cell in row.values()]
        for row in (rows.to_pylist() if rows is not None else ())
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
