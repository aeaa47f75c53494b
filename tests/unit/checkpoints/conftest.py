"""What the tests of checkpoints share: a model, and a bundle that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, model_validator

from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.bundle import make_bundle
from hpcburst_recipes.checkpoints.question import Question, question


class Choice(BaseModel):
    """Which threshold should the next stage use?"""

    threshold: float = Field(0.5, ge=0, le=1)
    keep: list[str] = []
    note: str = ""

    @model_validator(mode="after")
    def _odd(self) -> Choice:
        if self.note == "no such luck":
            raise ValueError("the model alone knows why not")
        return self


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A shared root of our own."""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def asked() -> Question:
    """A question with a slider, a list and a note."""
    return question("review-fit", Choice)


@pytest.fixture
def bundle(root: Path, asked: Question) -> Callable[..., Checkpoint]:
    """Makes bundles: `bundle(show)`."""

    def make(show: dict[str, Any] | None = None, **changes: Any) -> Checkpoint:
        mine = question("review-fit", Choice, **changes) if changes else asked
        return make_bundle(root, mine, show or {})

    return make
