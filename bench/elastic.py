"""Bursts on a real batch system, side by side with dask-jobqueue on the same one.

    python bench/elastic.py [--quick] [--only WORD]

Starts a Slurm of eight nodes of its own. Prints one JSON line per figure; what they mean is told in
README.md beside this file.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contenders import ADAPT, FIXED, OURS, Centre, Contender, Driver, centre, ours, peer
from figures import CACHE, Figure, compare, paired, say, show, timed

GONE_WITHIN_S = 15.0
PATIENCE_S = 600.0
SLEEP = "#!/bin/sh\nexec sleep {seconds}\n"


@dataclass(frozen=True)
class Bench:
    """What all figures need, and how much of it."""

    work: Path
    centre: Centre
    full: bool

    def folder(self, name: str) -> Path:
        """A place for one cluster's files."""
        return self.work / name


# --- bursts with pauses --------------------------------------------------------------------------


@dataclass(slots=True)
class _Bursts:
    """Seconds that each burst took, and pilots left some time after each of ours."""

    took_s: dict[str, list[float]] = field(default_factory=dict)
    left: list[float] = field(default_factory=list)
    worked_s: float = 0.0


def bursts(bench: Bench) -> Iterator[Figure]:
    """Three bursts of 66 short tasks: how long, at what cost, and what stays."""
    told = _Bursts()
    with ExitStack() as stack:
        ours_here = stack.enter_context(ours(bench.folder("bursts")))
        adapting = stack.enter_context(peer(ADAPT, bench.folder(ADAPT)))
        fixed = stack.enter_context(peer(FIXED, bench.folder(FIXED)))
        for number in range(3 if bench.full else 1):
            _round(bench, told, number, (ours_here, adapting, fixed))
    jobs = {name: bench.centre.held_core_s(name) for name in (OURS, ADAPT, FIXED)}
    yield from _burst_figures(told, jobs)


def _round(bench: Bench, told: _Bursts, number: int, clusters: Sequence[Contender]) -> None:
    """A burst on each cluster in turn: while one has its burst, the others have their pause."""
    chance = random.Random(number)  # noqa: S311 - lengths of naps
    lengths_s = [chance.uniform(0.2, 3.0) for _ in range(66 if bench.full else 24)]
    told.worked_s += sum(lengths_s)
    begun = time.monotonic()
    for cluster in clusters:
        took_s = timed(lambda cluster=cluster: _ended(cluster.naps(lengths_s)))
        told.took_s.setdefault(cluster.name, []).append(took_s)
        if cluster.name == OURS:
            time.sleep(GONE_WITHIN_S)
            told.left.append(bench.centre.jobs(OURS))
        say(f"  burst {number + 1}, {cluster.name}: {took_s:.1f} s")
    if bench.full:
        pause_s = 30.0 + told.took_s[OURS][-1] - (time.monotonic() - begun)
        time.sleep(max(0.0, pause_s))


def _ended(futures: Sequence[Any]) -> list[Any]:
    return [future.result(PATIENCE_S) for future in futures]


def _burst_figures(told: _Bursts, jobs: Mapping[str, tuple[float, int]]) -> Iterator[Figure]:
    used = {name: told.worked_s / held_s for name, (held_s, _) in jobs.items()}
    mine = told.took_s[OURS]
    for name, called, ratio in (
        (ADAPT, "dask-jobqueue, adapt(0, 8)", 1 / 0.75),
        (FIXED, "dask-jobqueue, scale(8) and held", 1 / 1.2),
    ):
        theirs = told.took_s[name]
        yield compare(
            f"burst of short tasks: time to the last result ({jobs[OURS][1]} against "
            f"{jobs[name][1]} jobs)",
            (mine, theirs),
            peer_name=called,
            unit="s",
            ratio=round(ratio, 2),
        )
        yield compare(
            "burst of short tasks: used of held",
            ([used[OURS]], [used[name]]),
            peer_name=called,
            unit="core-s / core-s",
            more_is_better=True,
            least=0.7,
        )
    title = f"jobs left {GONE_WITHIN_S:g} s after a burst"
    yield compare(title, ([max(told.left)], []), peer_name="", unit="jobs", most=0.0)


# --- holes ---------------------------------------------------------------------------------------


def holes(bench: Bench) -> Iterator[Figure]:
    """A full cluster with holes of one to four minutes: when the first result is there."""
    fill = _Filled(bench)
    fill.begin()
    try:
        mine_s = _first_result(bench, ours(bench.folder("holes")))
        theirs_s = _first_result(bench, peer(ADAPT, bench.folder("waits")))
    finally:
        fill.end()
    at_least = "" if theirs_s < _patience_s(bench) else f", none within {theirs_s:.0f} s"
    yield compare(
        "full cluster with holes of 1-4 min: first result",
        ([mine_s], [theirs_s]),
        peer_name=f"dask-jobqueue with its default walltime of 30 min{at_least}",
        unit="s",
        ratio=5.0,
    )


class _Filled:
    """Four nodes taken for 1 to 4 minutes; four idle, each promised to a job that waits for one."""

    def __init__(self, bench: Bench) -> None:
        self.slurm = bench.centre.slurm
        self.jobs: list[str] = []

    def begin(self) -> None:
        """Fill it; the waiting jobs have their place in the plan when this returns."""
        for minutes in range(1, 5):
            self.jobs += self.slurm.fill(f"n{minutes}", minutes=minutes)
        waiting = [
            self.slurm.submit(
                SLEEP.format(seconds=30),
                *("-J", "large", "-o", "/dev/null", "-p", "batch", "-t", "120", "--exclusive"),
                *("-N", "2", "-w", f"n{number},n{number + 4}", "--mem=0"),
            )
            for number in range(1, 5)
        ]
        self.jobs += waiting
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            starts = self.slurm.run("squeue", "-h", "-t", "PD", "--start", "-o", "%S").split()
            if len(starts) == len(waiting) and "N/A" not in starts:
                return
            time.sleep(0.2)
        raise AssertionError("the waiting jobs got no place in the plan")

    def end(self) -> None:
        self.slurm.cancel(*self.jobs)


def _patience_s(bench: Bench) -> float:
    return 240.0 if bench.full else 20.0


def _first_result(bench: Bench, made: Any) -> float:
    """Seconds from the wish for a cluster to the first result of a burst on it."""
    begun = time.monotonic()
    with made as cluster:
        futures = cluster.naps([0.5] * 8)
        bench.centre.wait_for(lambda: any(future.done() for future in futures), _patience_s(bench))
        took_s = time.monotonic() - begun
        for future in futures:
            future.cancel()
    return took_s


# --- throughput ----------------------------------------------------------------------------------


def nothing() -> None:
    """The body that costs nothing."""


def rate(bench: Bench) -> Iterator[Figure]:
    """A thousand tasks that do nothing, against plain Dask on the same pilots."""
    from distributed import Client

    tasks, pilots = (1000 if bench.full else 300), 2
    with ours(bench.folder("rate"), pilots) as cluster, Client(cluster.cluster) as client:
        cluster.cluster.scale(pilots)  # held, so that both have the same all the time
        client.wait_for_workers(pilots, timeout=120)

        def by_us() -> float:
            return tasks / timed(lambda: _ended(cluster.calls(nothing, [()] * tasks)))

        def by_dask() -> float:
            return tasks / timed(
                lambda: client.gather([client.submit(nothing, pure=False) for _ in range(tasks)])
            )

        runs = paired(by_us, by_dask, 7 if bench.full else 3)
    yield compare(
        f"{tasks} tasks that do nothing on {pilots} pilots",
        runs,
        peer_name="plain Dask on the same pilots",
        unit="tasks/s",
        more_is_better=True,
        ratio=0.8,
    )


# --- a driver that dies --------------------------------------------------------------------------


def killed(bench: Bench) -> Iterator[Figure]:
    """`kill -9` of the driver with jobs that run and jobs that wait: when none is left."""
    slurm = bench.centre.slurm
    others = slurm.fill(*(f"n{number}" for number in range(2, 9)), minutes=30)
    try:
        driver = Driver(bench.folder("killed"))
        driver.launch(64, 5.0)
        jobs = bench.centre
        jobs.wait_for(lambda: jobs.jobs(OURS, "running") and jobs.jobs(OURS, "pending"), 60.0)
        time.sleep(5)  # their pilots are up by now, or on their way
        before = f"{jobs.jobs(OURS, 'running')} that ran, {jobs.jobs(OURS, 'pending')} that waited"
        driver.kill()
        took_s = jobs.wait_for(lambda: not jobs.jobs(OURS), 120.0)
    finally:
        slurm.cancel(*others)
    title = f"kill -9 of the driver: until no job is left ({before})"
    yield compare(title, ([took_s], []), peer_name="", unit="s", most=60.0)


# --- all together --------------------------------------------------------------------------------

FIGURES = (bursts, holes, rate, killed)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small burst, less patience")
    parser.add_argument("--only", default="", help="figures whose function has this in its name")
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        tempfile.TemporaryDirectory(prefix="elastic-", dir=CACHE) as folder,
        centre(Path(folder) / "slurm") as site,
    ):
        bench = Bench(Path(folder), site, full=not args.quick)
        for figures in FIGURES:
            if args.only in figures.__name__:
                say(f"Measuring: {(figures.__doc__ or '').splitlines()[0]}")
                for figure in figures(bench):
                    show(figure)
                site.slurm.reset()
    return 0


if __name__ == "__main__":
    sys.exit(main())
