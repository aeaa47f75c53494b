"""The picture of a simulation: waits and use by policy, and what a decision costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("first_s", "first result after (s)", "log"),
    ("wait_s", "mean wait of a task (s)", "log"),
    ("used", "used of held", "linear"),
)
OURS_COLOUR, PEER_COLOUR = "tab:blue", "tab:gray"


def draw(
    runs: Sequence[Mapping[str, Any]], plans_ms: Sequence[float], size: str, path: Path
) -> None:
    """Write a PNG.

    Args:
        runs: For each seed, the result of each policy.
        plans_ms: What each decision took.
        size: About what they were.
        path: The file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for number, (name, label, scale) in enumerate(PANELS):
        _dots(axes[number], runs, name)
        axes[number].set_xscale(scale)
        axes[number].set_xlabel(label)
        if number:
            axes[number].set_yticklabels([])
    axes[2].set_xlim(0, 1)
    ordered = sorted(plans_ms)
    shares = [(rank + 1) / len(ordered) for rank in range(len(ordered))]
    axes[3].plot(ordered, shares, color=OURS_COLOUR)
    axes[3].set_xscale("log")
    axes[3].set_ylim(0, 1)
    axes[3].set_xlabel("a decision takes (ms)")
    axes[3].set_ylabel("part of the decisions")
    axes[3].set_title(size, fontsize="medium")
    figure.suptitle(f"Bursts in holes of 1-4 min, {len(runs)} seeds: a dot each")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _dots(axes: Any, runs: Sequence[Mapping[str, Any]], name: str) -> None:
    """A row for each policy, the first on top."""
    policies = list(runs[0])
    for row, policy in enumerate(policies):
        values = [getattr(run[policy], name) for run in runs]
        colour = OURS_COLOUR if policy.startswith("ours") else PEER_COLOUR
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.6)
    axes.set_yticks(range(len(policies)), policies)
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
