"""From an answer to a decision: taken by the flow, typed, and kept for good."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hpcburst.errors import RunError
from hpcburst_recipes.checkpoints.answering import (
    ACTIONS,
    OUTCOME_FILE,
    AlreadyAnswered,
    Checkpoint,
    InvalidAnswer,
)
from hpcburst_recipes.checkpoints.question import KEEP_WAITING, Question


class Rejected(RunError):
    """A person looked, and said no. `decision` is who, when and why."""

    decision: Decision


class NoAnswer(RunError):
    """The deadline passed without an answer, and failing is what was to happen then."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer that the flow goes on with.

    Attributes:
        action: "approve" or "reject".
        values: The fields of the answer.
        who: Login name of who answered.
        via: How: "notebook", "command line", "Prefect page", "Python", "deadline".
        at: When, in seconds since 1970.
        host: Where.
        note: Why, in words.
        value: The typed answer; None when it was rejected.
    """

    action: str
    values: Mapping[str, Any]
    who: str
    via: str
    at: float
    host: str
    note: str = ""
    value: BaseModel | None = None


def take(checkpoint: Checkpoint, asked: Question) -> Decision | None:
    """The decision, if an answer stands; one that the model refuses is asked for again.

    Of several flows' processes that take it, each gets the same.
    """
    number = checkpoint.round()
    outcome = checkpoint.outcome()
    answer = outcome or checkpoint.answer(number)
    if answer is None:
        return None
    try:
        decision = _read(checkpoint, asked, answer)
    except ValueError as error:
        if outcome is not None:
            raise
        checkpoint.refuse(number, str(error))
        return None
    checkpoint.keep(OUTCOME_FILE, answer)
    return decision


def value_of(checkpoint: Checkpoint, decision: Decision) -> BaseModel:
    """What the flow goes on with.

    Raises:
        Rejected: The answer was no.
        NoAnswer: Nobody answered, and the flow was to fail then.
    """
    if decision.value is not None:
        return decision.value
    name = checkpoint.question["name"]
    if decision.via == "deadline" and checkpoint.question["on_timeout"] == "fail":
        raise NoAnswer(
            f"The checkpoint {name} ({checkpoint.id}) waited for an answer",
            "nobody gave one before its deadline",
            'give it more time, or say on_timeout="keep-waiting"',
        )
    why = f": {decision.note}" if decision.note else ""
    error = Rejected(
        f"The checkpoint {name} ({checkpoint.id}) was answered",
        f"{decision.who} rejected it by the {decision.via}{why}",
    )
    error.decision = decision
    raise error


def is_due(checkpoint: Checkpoint, now: float | None = None) -> bool:
    """Whether the deadline has passed, and something is to happen then."""
    deadline = checkpoint.deadline()
    if deadline is None or checkpoint.question["on_timeout"] == KEEP_WAITING:
        return False
    return (time.time() if now is None else now) >= deadline


def answer_when_due(checkpoint: Checkpoint) -> bool:
    """Take the stated default if the deadline has passed; whether it was taken."""
    if not is_due(checkpoint):
        return False
    action = "approve" if checkpoint.question["on_timeout"] == "approve" else "reject"
    try:
        checkpoint.decide(action, via="deadline", note="nobody answered before the deadline")
    except (AlreadyAnswered, InvalidAnswer):
        return False
    return True


def _read(checkpoint: Checkpoint, asked: Question, answer: Mapping[str, Any]) -> Decision:
    if answer.get("checkpoint") != checkpoint.id or answer.get("action") not in ACTIONS:
        raise ValueError("the answer is not one to this checkpoint")
    values = answer.get("values") or {}
    at = answer.get("at", 0.0)
    if not isinstance(values, dict) or isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError("its fields are of another kind")  # noqa: TRY004 - the file is wrong, no caller
    approved = answer["action"] == "approve"
    return Decision(
        action=str(answer["action"]),
        values=values,
        who=str(answer.get("who", "")),
        via=str(answer.get("via", "")),
        at=float(at),
        host=str(answer.get("host", "")),
        note=str(answer.get("note", "")),
        value=asked.value(values) if approved else None,
    )
