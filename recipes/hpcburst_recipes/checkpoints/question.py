"""What is asked: a pydantic model as a JSON schema, with choices computed from the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.answering import complaints_of

KEEP_WAITING = "keep-waiting"

ON_TIMEOUT = (KEEP_WAITING, "approve", "reject", "fail")
"""What may happen at the deadline."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of checkpoints and of what they show: they become names of files."""

Choices = Mapping[str, Sequence[Any] | Mapping[Any, str]]
"""By field: the values to choose from, or each value with what speaks for it in words."""


class Approval(BaseModel):
    """The question of a checkpoint that asks for nothing but yes or no."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a checkpoint asks, and what happens when nobody answers.

    Attributes:
        name: Name of the checkpoint.
        text: The question in words; plain text, never read as HTML or Markdown.
        model: What the answer must be.
        schema: The model's JSON schema, with choices and defaults put in.
        deadline_s: Seconds until `on_timeout` happens; None is never.
        on_timeout: "keep-waiting", "approve" (with the defaults), "reject" or "fail".
    """

    name: str
    text: str
    model: type[BaseModel]
    schema: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    on_timeout: str = KEEP_WAITING

    def value(self, values: Mapping[str, Any]) -> BaseModel:
        """The typed answer.

        Raises:
            ValueError: It does not fit; the message says how, without the model's own wording.
        """
        schema = dict(self.schema)
        complaints = complaints_of(dict(values), schema, schema)
        if complaints:
            raise ValueError("; ".join(complaints))
        try:
            return self.model.model_validate(dict(values))
        except ValidationError as error:
            raise ValueError("; ".join(_complaints(error))) from error


def question(
    name: str,
    ask: type[BaseModel] | None = None,
    *,
    text: str = "",
    choices: Choices | None = None,
    preselect: Mapping[str, Any] | None = None,
    deadline_s: float | None = None,
    on_timeout: str = KEEP_WAITING,
) -> Question:
    """A question, checked before anybody is asked.

    Args:
        name: Name of the checkpoint.
        ask: Model of the answer; None asks for yes or no.
        text: The question in words; default: the model's docstring.
        choices: Values to choose from, computed from the data.
        preselect: What is chosen beforehand: the best, by the flow's own measure.
        deadline_s: Seconds until `on_timeout` happens.
        on_timeout: What happens then.

    Raises:
        RequestError: A name, choice or default does not fit the model.
    """
    model = ask or Approval
    check_name(name)
    _check_timeout(on_timeout, deadline_s)
    schema = _schema(model, choices or {}, preselect or {})
    words = text or (ask and ask.__doc__) or f"Go on after {name}?"
    asked = Question(name, words.strip(), model, schema, deadline_s, on_timeout)
    if on_timeout == "approve":
        _check_defaults(asked)
    return asked


def _schema(
    model: type[BaseModel], choices: Choices, preselect: Mapping[str, Any]
) -> dict[str, Any]:
    schema = model.model_json_schema()
    fields = schema.setdefault("properties", {})
    _check_fields({*choices, *preselect}, fields, model)
    for name, stated in choices.items():
        values = list(stated)
        if not values:
            raise RequestError(f"Choices for {name!r} were computed", "there are none")
        _offer(fields[name], values, stated)
    for name, value in preselect.items():
        fields[name]["default"] = value
        complaints = complaints_of(value, fields[name], schema)
        if complaints:
            raise RequestError(f"{name}={value!r} was to be preselected", "; ".join(complaints))
    required = [name for name in schema.get("required", ()) if "default" not in fields[name]]
    return {**schema, "required": required}


def _offer(
    asked: dict[str, Any], values: list[Any], stated: Sequence[Any] | Mapping[Any, str]
) -> None:
    """Put choices into a field; of a list, into its entries."""
    if asked.get("type") == "array":
        asked["items"] = {**asked.get("items", {}), "enum": values}
    else:
        asked["enum"] = values
        if asked.get("default") not in values:
            asked["default"] = values[0]
    if isinstance(stated, Mapping):
        asked["words"] = [str(stated[value]) for value in values]


def check_name(name: str) -> None:
    """See that a name can be the name of a file.

    Raises:
        RequestError: It cannot.
    """
    if not NAME.fullmatch(name):
        raise RequestError(
            f"A checkpoint or something to show was called {name[:80]!r}",
            "names have letters, digits, dots, dashes and underscores, 64 at most",
        )


def _check_timeout(on_timeout: str, deadline_s: float | None) -> None:
    if on_timeout not in ON_TIMEOUT:
        raise RequestError(
            f"on_timeout={on_timeout!r} was asked for", f"it is one of: {', '.join(ON_TIMEOUT)}"
        )
    if on_timeout != KEEP_WAITING and deadline_s is None:
        raise RequestError(
            f"on_timeout={on_timeout!r} was asked for",
            "there is no deadline at which it could happen",
            'say deadline="2h"',
        )


def _check_fields(named: Iterable[str], fields: Mapping[str, Any], model: type[BaseModel]) -> None:
    unknown = sorted(set(named) - set(fields))
    if unknown:
        raise RequestError(
            f"Choices or defaults were given for {', '.join(unknown)}",
            f"{model.__name__} has no such field ({', '.join(fields) or 'it has none'})",
        )


def _check_defaults(asked: Question) -> None:
    fields = asked.schema["properties"]
    defaults = {name: one["default"] for name, one in fields.items() if "default" in one}
    try:
        asked.value(defaults)
    except ValueError as error:
        raise RequestError(
            'on_timeout="approve" was asked for',
            f"the defaults are no answer: {error}",
            "give every field of the model a default, or preselect one",
        ) from error


def _complaints(error: ValidationError) -> list[str]:
    return [
        ": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"])))
        for one in error.errors(include_url=False, include_input=False)
    ]
