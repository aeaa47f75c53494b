"""Answer a checkpoint from any Python, as the command line does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.answering import AlreadyAnswered, Checkpoint, InvalidAnswer
from hpcburst_recipes.checkpoints.desk import find


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of an answer.

    Attributes:
        checkpoint: The checkpoint.
        answer: The answer as it is kept.
        woken: Whether a suspended flow was told to begin again.
        trouble: Why it could not be told; "" if it was, or need not be.
    """

    checkpoint: Checkpoint
    answer: Mapping[str, Any]
    woken: bool = False
    trouble: str = ""


def answer(
    wanted: str,
    action: str = "approve",
    values: Mapping[str, Any] | None = None,
    *,
    note: str = "",
    via: str = "Python",
    shared_root: Path | None = None,
) -> Answered:
    """Answer a checkpoint; the first answer wins.

    Args:
        wanted: Its id, the beginning of it, or its name.
        action: "approve" or "reject".
        values: Fields that differ from their defaults.
        note: Why, in words.
        via: How this answer came.
        shared_root: Where the checkpoints are; default: the site's shared root.

    Raises:
        RequestError: There is no such checkpoint, the answer does not fit, or it has one.
    """
    checkpoint = find(shared_root or root_here(), wanted)
    try:
        kept = checkpoint.decide(action, dict(values or {}), via=via, note=note)
    except (AlreadyAnswered, InvalidAnswer) as error:
        raise RequestError(
            f"The checkpoint {checkpoint.id} was to be answered", str(error)
        ) from error
    woken, trouble = wake(checkpoint)
    return Answered(checkpoint, kept, woken, trouble)


def wake(checkpoint: Checkpoint) -> tuple[bool, str]:
    """Have a suspended flow begin again: whether it was told to, and why it could not be."""
    if not checkpoint.question["suspended"]:
        return False, ""
    from hpcburst_recipes.checkpoints.waiting import wake_flow

    try:
        return wake_flow(checkpoint), ""
    except Exception as error:  # noqa: BLE001 - the answer is kept, whatever Prefect's server does
        return False, f"{type(error).__name__}: {error}"


def root_here() -> Path:
    """The site's shared root."""
    from hpcburst.policy.load import load_site

    return load_site().paths.shared_root
