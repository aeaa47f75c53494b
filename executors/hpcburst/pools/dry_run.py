"""What a run would submit first for some tasks, and why, down to the scripts. Starts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcburst.comms.credentials import Credentials
from hpcburst.comms.staging import RunFolder
from hpcburst.jobs.dialect import Gap
from hpcburst.jobs.known import dialect_for
from hpcburst.policy.decide import grant, longest_s
from hpcburst.policy.model import Site
from hpcburst.pools.caps import HOUR_S, queue_of
from hpcburst.pools.fleet import PilotScripts
from hpcburst.pools.planner import plan
from hpcburst.pools.situation import Learned
from hpcburst.pools.state import TasksNow, tasks_now
from hpcburst.pools.tickets import Kind, Ticket, demand_of_kinds
from hpcburst.tasks import Burst, Command, Needs, Shape

RUN, PORT = "RUN", "PORT"
"""What stands in a script for what only a run decides."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Equal tasks that somebody thinks of running.

    Attributes:
        count: How many.
        needs: What each asks for.
        takes_s: Seconds that each takes; None when nothing is known but its walltime.
    """

    count: int
    needs: Needs
    takes_s: float | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """Equal jobs that would be submitted.

    Attributes:
        shape: What each asks for.
        queue: The queue they go to.
        jobs: How many.
        core_hours: What they cost at most, at the queue's price.
        script: The script of each, with `RUN` and `PORT` for what only a run decides.
    """

    shape: Shape
    queue: str
    jobs: int
    core_hours: float
    script: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do first.

    Attributes:
        tasks: The tasks, each with what those wait for that get no place at once.
        submissions: What would be submitted, the most important first.
        why: For each shape that plays a role, why there is not more of it.
    """

    tasks: tuple[TasksNow, ...]
    submissions: tuple[Submission, ...]
    why: Mapping[Shape, str]


def dry_run(tasks: Sequence[Tasks], site: Site, gaps: Sequence[Gap], learned: Learned) -> DryRun:
    """What a run with these tasks would submit first.

    Args:
        tasks: They are all queued at once.
        site: What the site allows this run.
        gaps: Room in the schedule, when it is known.
        learned: What earlier runs taught.

    Raises:
        RequestError: No queue can hold what a task needs.
        SiteError: A path cannot be written into a job script.
    """
    counts: Counter[Kind] = Counter()
    for row in tasks:
        counts[_kind(row, site)] += row.count
    decided = plan(demand_of_kinds(counts, {}, ()), (), site, gaps, learned)
    scripts = _scripts(site)
    submissions = tuple(
        Submission(
            shape,
            queue_of(shape, site).name,
            count,
            count * shape.cores * shape.walltime_s / HOUR_S * queue_of(shape, site).price,
            scripts.text("pilot-1", shape),
        )
        for shape, count in decided.submit.items()
    )
    return DryRun(tasks_now(decided), submissions, decided.why)


def _kind(tasks: Tasks, site: Site) -> Kind:
    shape = grant(tasks.needs, site)
    burst = Burst("planned", Command(("true",), "/", {}), tasks.needs)
    ticket = Ticket(burst, shape, learned_s=tasks.takes_s)
    ticket.longest_s = longest_s(shape, tasks.needs, site)
    return ticket.kind


def _scripts(site: Site) -> PilotScripts:
    run = RunFolder(site.paths.shared_root / "runs" / RUN)
    credentials = Credentials(*(Path(run.secret / name) for name in ("tls.crt", "tls.key")))
    dialect = dialect_for(site.scheduler, site.dialect, run.secret / "spool")
    return PilotScripts(dialect, site, f"tls://{site.host}:{PORT}", credentials, str(run.logs))
