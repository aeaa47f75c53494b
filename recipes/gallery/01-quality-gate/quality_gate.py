"""A quality gate: score samples on pilots, ask a person where to cut, go on with what is kept.

Run it with `python quality_gate.py`; answer from another terminal with `hpcburst checkpoint`.
"""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow, task
from pydantic import BaseModel

from hpcburst import needs
from hpcburst_recipes import checkpoint
from prefect_hpcburst import BurstTaskRunner

STEPS = 5
"""Cuts that are offered."""


class Cut(BaseModel):
    """Which samples go on to the expensive stage?"""

    threshold: float = 0.5
    drop: list[str] = []
    note: str = ""


@task
@needs(cores=1, walltime="2m")
def score(sample: str) -> float:
    """Share of good reads in a sample: three in four are fine, the others are not."""
    dice = random.Random(sample)  # noqa: S311 - an example, not a secret
    centre = 0.8 if dice.random() < 0.75 else 0.35
    return round(sum(dice.gauss(centre, 0.2) for _ in range(50)) / 50, 3)


@flow(task_runner=BurstTaskRunner(max_jobs=2))  # type: ignore[arg-type]  # Prefect's is invariant
def quality_gate(count: int = 24) -> list[str]:
    """Score the samples, ask, and return the names of those that go on."""
    samples = [f"sample-{number:02d}" for number in range(count)]
    futures: Any = score.map(samples)
    scores = dict(zip(samples, futures.result(), strict=True))
    cuts = cuts_of(scores)
    with TemporaryDirectory() as folder:
        cut = checkpoint(
            "quality-gate",
            ask=Cut,
            show={"scores": scores, "histogram": draw(scores, Path(folder) / "histogram.svg")},
            choices={
                "threshold": {at: f"keeps {kept} of {count}" for at, kept, _ in cuts},
                "drop": samples,
            },
            preselect={"threshold": max(cuts, key=lambda each: each[2])[0]},
            walltime="30m",
        )
    kept = [name for name, value in scores.items() if value >= cut.threshold]
    return [name for name in kept if name not in cut.drop]


def cuts_of(scores: dict[str, float]) -> list[tuple[float, int, float]]:
    """The widest gaps between neighbours: where to cut, how many stay, how wide the gap is."""
    ordered = sorted(scores.values())
    gaps = [
        (round((low + high) / 2, 3), len(ordered) - place, high - low)
        for place, (low, high) in enumerate(pairwise(ordered), 1)
    ]
    return sorted(sorted(gaps, key=lambda each: -each[2])[:STEPS])


def draw(scores: dict[str, float], path: Path) -> Path:
    """The scores as bars, the lowest first."""
    bars = "".join(
        f'<rect x="{20 * place}" y="{100 - 100 * value:.0f}" width="16" height="{100 * value:.0f}"'
        f' fill="{"#2e7d32" if value > 0.5 else "#c62828"}"/>'
        for place, value in enumerate(sorted(scores.values()))
    )
    size = f'width="{20 * len(scores)}" height="100"'
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{bars}</svg>')
    return path


if __name__ == "__main__":
    print(" ".join(quality_gate()))
