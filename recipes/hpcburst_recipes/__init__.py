"""Recipes on top of hpcburst: checkpoints, the demo, and the local conda channel it can make.

Importing this package does nothing and costs nothing: the names below load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcburst_recipes.checkpoints.decision import Decision, NoAnswer, Rejected
    from hpcburst_recipes.checkpoints.flow import checkpoint

__all__ = ["Decision", "NoAnswer", "Rejected", "checkpoint"]

_HOMES = {
    "Decision": "hpcburst_recipes.checkpoints.decision",
    "NoAnswer": "hpcburst_recipes.checkpoints.decision",
    "Rejected": "hpcburst_recipes.checkpoints.decision",
    "checkpoint": "hpcburst_recipes.checkpoints.flow",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hpcburst_recipes' has no attribute {name!r}")
    return getattr(import_module(home), name)
