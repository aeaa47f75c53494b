"""What every bench shares: paired runs, medians, and one JSON line per figure."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

CACHE = Path(os.environ.get("HPCBURST_BENCH_CACHE", Path(__file__).parents[1] / ".cache" / "bench"))
"""What is slow to make (a channel, the peers' virtual environments) is kept here between runs."""

Sample = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One comparison.

    Attributes:
        name: What was measured.
        ours: Median of ours, in `unit`.
        peer: Median of the peer's, in `unit`; None where there is no peer on this machine.
        peer_name: Who the peer is.
        unit: Of both.
        ratio: How many times better ours is; larger is better for us.
        goal: What was promised, in words.
        holds: Whether it came true; None where there was nothing to hold it against.
        n: Runs behind each median.
        ours_range: Smallest and largest of ours.
        peer_range: The same of the peer's.
    """

    name: str
    ours: float
    peer: float | None
    peer_name: str
    unit: str
    ratio: float | None
    goal: str
    holds: bool | None
    n: int
    ours_range: tuple[float, float] = (0.0, 0.0)
    peer_range: tuple[float, float] | None = None


def compare(  # noqa: PLR0913 - a goal is one of three kinds, and each has its name
    name: str,
    runs: tuple[Sequence[float], Sequence[float]],
    *,
    peer_name: str,
    unit: str,
    more_is_better: bool = False,
    most: float | None = None,
    least: float | None = None,
    ratio: float | None = None,
) -> Figure:
    """A figure from paired runs.

    Args:
        name: What was measured.
        runs: Ours and the peer's; the peer's may be empty.
        peer_name: Who the peer is.
        unit: Of both.
        more_is_better: Whether it is a rate; else it is a time or a size.
        most: The goal for ours: at most this many units.
        least: The goal for ours: at least this many units.
        ratio: The goal for the ratio: at least this.
    """
    ours, peer = runs
    mine = statistics.median(ours)
    theirs = statistics.median(peer) if peer else None
    times = None if theirs is None else mine / theirs if more_is_better else theirs / mine
    goals, held = [], []
    if most is not None:
        goals.append(f"at most {most:g} {unit}")
        held.append(mine <= most)
    if least is not None:
        goals.append(f"at least {least:g} {unit}")
        held.append(mine >= least)
    if ratio is not None:
        goals.append(f"ratio at least {ratio:g}")
        held.append(times is not None and times >= ratio)
    return Figure(
        name=name,
        ours=_rounded(mine),
        peer=None if theirs is None else _rounded(theirs),
        peer_name=peer_name,
        unit=unit,
        ratio=None if times is None else _rounded(times),
        goal=" and ".join(goals),
        holds=all(held) if held else None,
        n=len(ours),
        ours_range=(_rounded(min(ours)), _rounded(max(ours))),
        peer_range=(_rounded(min(peer)), _rounded(max(peer))) if peer else None,
    )


def paired(ours: Sample, peer: Sample, n: int) -> tuple[list[float], list[float]]:
    """Runs of both in turn, so that both meet what else the machine does; one more to warm up."""
    ours()
    peer()
    rows = [(ours(), peer()) for _ in range(n)]
    return [row[0] for row in rows], [row[1] for row in rows]


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def second(action: Callable[[], object]) -> float:
    """Seconds of an action right after the same one.

    Memory that lay idle for a while may have to be fetched back by the machine under a virtual one,
    which is slower than any of what is measured.
    """
    action()
    return timed(action)


def show(figure: Figure) -> None:
    """Print a figure as one line of JSON."""
    print(json.dumps(asdict(figure)), flush=True)


def say(text: str) -> None:
    """Tell who waits what is going on."""
    print(text, file=sys.stderr, flush=True)


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")
