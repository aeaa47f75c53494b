"""The desk: all checkpoints under the shared root, the one that waits longest first."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.answering import Checkpoint, NotOurs
from hpcburst_recipes.checkpoints.bundle import folder_for
from hpcburst_recipes.checkpoints.decision import answer_when_due


class Standing(StrEnum):
    """Where a checkpoint is in its life."""

    WAITING = "waiting"
    ANSWERED = "answered"  # a person has, and the flow has not taken it yet
    DECIDED = "decided"


def standing_of(checkpoint: Checkpoint) -> Standing:
    """Where a checkpoint is in its life."""
    if checkpoint.outcome() is not None:
        return Standing.DECIDED
    return Standing.WAITING if checkpoint.answer() is None else Standing.ANSWERED


def checkpoints(shared_root: Path) -> list[Checkpoint]:
    """All checkpoints: those that wait first, each kind by age, the oldest first."""
    order = list(Standing)
    return sorted(
        _found(folder_for(shared_root)),
        key=lambda one: (order.index(standing_of(one)), one.question["created"]),
    )


def find(shared_root: Path, wanted: str) -> Checkpoint:
    """The checkpoint of this id, of an id that begins so, or of this name if only one has it.

    Raises:
        RequestError: There is none, or more than one.
    """
    known = checkpoints(shared_root)
    exact = [one for one in known if one.id == wanted]
    alike = exact or [
        one for one in known if one.id.startswith(wanted) or one.question["name"] == wanted
    ]
    if len(alike) == 1:
        return alike[0]
    told = ", ".join(f"{one.id} ({one.question['name']})" for one in (alike or known)[:10])
    raise RequestError(
        f"The checkpoint {wanted!r} was asked for",
        "more than one is called so" if alike else "there is no such checkpoint",
        f"those there are: {told or 'none'}",
    )


def settle_due(shared_root: Path) -> list[Checkpoint]:
    """Take the stated default of all whose deadline has passed; returns them."""
    return [
        one
        for one in checkpoints(shared_root)
        if standing_of(one) is Standing.WAITING and answer_when_due(one)
    ]


def _found(folder: Path) -> Iterator[Checkpoint]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not path.name.startswith("."):
            try:
                yield Checkpoint(path)
            except (OSError, ValueError, NotOurs):
                continue  # not whole, or not ours: it is no checkpoint
