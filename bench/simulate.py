"""Bursts of tasks on a simulated cluster full of other people's jobs, with the real planner.

python bench/simulate.py --quick                            # some seconds, and a picture
python bench/simulate.py --pilots 10000 --tasks 1000000     # an hour, or so
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import plots
from figures import CACHE, Figure, compare, say, show
from simulation import NODE_CORES, NODE_MEMORY_MB, UNTIL_S, Holes, Policy, Simulation, Task

from hpcburst.jobs.dialect import Gap
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.pools.planner import Learned, Plan, plan
from hpcburst.tasks import Shape

MEMORY_MB = 1000
"""Of a pilot of one core."""

# -- who decides ---------------------------------------------------------------------------------


def ours(simulation: Simulation) -> Plan:
    """The planner, with the gap map."""
    return _plan(simulation, simulation.gaps())


def ours_blind(simulation: Simulation) -> Plan:
    """The planner on a system that does not tell its plan."""
    return _plan(simulation, ())


def _plan(simulation: Simulation, gaps: Sequence[Gap]) -> Plan:
    learned = Learned(start_delay_s=simulation.history.start_delay_s())
    return plan(simulation.rows(), simulation.views(), simulation.site, gaps, learned)


def fixed(pilots: int, shape: Shape) -> Policy:
    """So many pilots of one shape until all is done, as `cluster.scale(n)` holds them."""

    def decide(simulation: Simulation) -> Plan:
        if not simulation.undone:
            return Plan({}, dict.fromkeys(simulation.pilots, "the end"), {})
        missing = pilots - len(simulation.pilots)
        return Plan({shape: missing} if missing > 0 else {}, {}, {})

    return decide


# -- what is asked of it -------------------------------------------------------------------------


def site_of(nodes: int, pilots: int, walltime_s: float = 1800.0) -> Site:
    """A site with one queue."""
    queue = Queue("batch", NODE_CORES, NODE_MEMORY_MB, 0, 4 * 3600.0, nodes * NODE_CORES)
    shape = Shape(1, MEMORY_MB, 0, walltime_s)
    limits = Limits(max_jobs=pilots, max_pending=pilots)
    return Site("slurm", (queue,), shape, limits, Paths(Path("/shared"), Path("/node")))


def bursts(number: int, size: int, seed: int, longest_s: float = 3.0) -> list[Task]:
    """Bursts of tasks of 0.2 s and more, ten minutes apart."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    return [
        Task("fit", chance.uniform(0.2, longest_s), 600.0 * burst)
        for burst in range(number)
        for _ in range(size)
    ]


@dataclass(frozen=True, slots=True)
class Result:
    """What one simulation gave."""

    first_s: float
    wait_s: float
    done_s: float
    used: float
    jobs: int
    lost: int
    plans_ms: Sequence[float]

    @classmethod
    def of(cls, simulation: Simulation) -> Result:
        """The figures of a simulation that ended."""
        tasks = simulation.tasks
        if simulation.undone:
            raise AssertionError(f"{simulation.undone} tasks were never done")
        return cls(
            first_s=min(task.ended_s for task in tasks),
            wait_s=statistics.fmean(task.begun_s - task.arrives_s for task in tasks),
            done_s=max(task.ended_s for task in tasks),
            used=simulation.used_s / simulation.held_s,
            jobs=simulation.jobs,
            lost=simulation.lost,
            plans_ms=simulation.plan_ms,
        )


def in_holes(seed: int, pilots: int = 8) -> dict[str, Result]:
    """Bursts on a full cluster with holes of one to four minutes, under each policy."""
    site = site_of(nodes=16, pilots=pilots)
    half_hour = site.default_shape
    policies: Mapping[str, tuple[Policy, bool]] = {
        "ours": (ours, True),
        "ours, told no gaps": (ours_blind, True),
        f"{pilots} pilots of 30 min": (fixed(pilots, half_hour), False),
        f"{pilots} pilots of 2 min": (fixed(pilots, replace(half_hour, walltime_s=120.0)), False),
    }
    results = {}
    for name, (policy, polite) in policies.items():
        holes = Holes.of_minutes(16, seed)
        with_roomy_end = Holes(tuple((*row, (UNTIL_S, math.inf)) for row in holes.spans))
        tasks = bursts(3, 66, seed)
        simulation = Simulation(site, tasks, with_roomy_end, policy, polite=polite)
        results[name] = Result.of(simulation.run())
    return results


def at_size(pilots: int, tasks: int, seed: int = 1) -> Result:
    """Very many tasks of a minute on an idle cluster of the size."""
    nodes = math.ceil(pilots / NODE_CORES)
    chance = random.Random(seed)  # noqa: S311 - a simulation
    work = [Task(f"kind-{number % 5}", chance.uniform(30, 90)) for number in range(tasks)]
    site = site_of(nodes, pilots)
    return Result.of(Simulation(site, work, Holes.idle(nodes), ours_blind).run())


def table(rows: Mapping[str, Result]) -> Iterator[str]:
    """The results for a person."""
    heads = ("first s", "wait s", "done s", "  used", " jobs", " lost", "plan ms", "most ms")
    yield f"{'policy':24} " + " ".join(f"{head:>{max(5, len(head))}}" for head in heads)
    for name, row in rows.items():
        yield (
            f"{name:24} {row.first_s:7.0f} {row.wait_s:6.0f} {row.done_s:6.0f} {row.used:6.2f} "
            f"{row.jobs:5} {row.lost:5} {statistics.median(row.plans_ms):7.1f} "
            f"{max(row.plans_ms):7.1f}"
        )


def figures_of(runs: Sequence[Mapping[str, Result]]) -> Iterator[Figure]:
    """Ours against each fixed policy, over the seeds."""
    for peer in [name for name in runs[0] if not name.startswith("ours")]:
        rows = [(run["ours"], run[peer]) for run in runs]
        yield compare(
            "bursts in holes of 1-4 min: first result",
            ([mine.first_s for mine, _ in rows], [theirs.first_s for _, theirs in rows]),
            peer_name=peer,
            unit="s",
            ratio=5.0 if "30 min" in peer else None,
        )
        yield compare(
            "bursts in holes of 1-4 min: mean wait of a task",
            ([mine.wait_s for mine, _ in rows], [theirs.wait_s for _, theirs in rows]),
            peer_name=peer,
            unit="s",
        )
        yield compare(
            "bursts in holes of 1-4 min: used of held",
            ([mine.used for mine, _ in rows], [theirs.used for _, theirs in rows]),
            peer_name=peer,
            unit="core-s / core-s",
            more_is_better=True,
        )


def main() -> None:
    """Simulate, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--pilots", type=int, default=0, help="at most so many pilots at once")
    parser.add_argument("--tasks", type=int, default=0, help="so many tasks of about a minute")
    parser.add_argument("--plot", type=Path, default=CACHE / "simulate.png", help="where it goes")
    options = parser.parse_args()
    runs = []
    for seed in range(3 if options.quick else 15):
        runs.append(in_holes(seed))
        say(f"holes, seed {seed}:")
        for line in table(runs[-1]):
            say(line)
    for figure in figures_of(runs):
        show(figure)
    pilots = options.pilots or (500 if options.quick else 2000)
    tasks = options.tasks or 10 * pilots
    say(f"{tasks} tasks on at most {pilots} pilots ...")
    result = at_size(pilots, tasks)
    for line in table({"ours": result}):
        say(line)
    size = f"{pilots} pilots and {tasks} tasks"
    for name, value_ms in (
        ("median", statistics.median(result.plans_ms)),
        ("most", max(result.plans_ms)),
    ):
        title = f"a decision about {size}, {name}"
        show(compare(title, ([value_ms], []), peer_name="", unit="ms", most=1000.0))
    options.plot.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    plots.draw(runs, result.plans_ms, size, options.plot)
    say(f"drawn: {options.plot}")


if __name__ == "__main__":
    main()
