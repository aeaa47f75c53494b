"""What a run is doing now, and why it is not doing more: frozen data, and what makes it.

The driver leaves it in the run's folder (`telling`), where `hpcburst jobs` reads it; notebooks,
`repr` and reports show the same. Times are seconds since the epoch, for other processes read them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hpcburst.policy.model import Site
from hpcburst.pools.pilots import Pilot
from hpcburst.pools.planner import PATIENT_S
from hpcburst.pools.record import RunRecord
from hpcburst.pools.situation import Demand, Phase, Plan
from hpcburst.tasks import Shape


class Stage(StrEnum):
    """Where a job is in its life, as people ask for it."""

    SUBMITTING = "submitting"  # its submit command has not answered
    PENDING = "pending"  # it waits in the batch system
    STARTING = "starting"  # it runs, and its pilot has not said hello
    IDLE = "idle"  # its pilot has no task
    BUSY = "busy"  # its pilot has tasks
    DRAINING = "draining"  # its pilot finishes what it has and takes no more


@dataclass(frozen=True, slots=True)
class JobNow:
    """One batch job.

    Attributes:
        name: What the run calls it: that of its pilot.
        job_id: What the batch system calls it; "" while that is not known.
        shape: What it asks for.
        stage: Where it is in its life.
        since: When that began; for an idle pilot, when it became idle.
        host: The node it runs on; "" while it does not run.
        tasks: Tasks it has.
        why: Why it is there, in words: the batch system's own where it waits.
        then: What happens next, in words.
        due_at: When that happens, at the latest; None when nobody can know.
    """

    name: str
    job_id: str
    shape: Shape
    stage: Stage
    since: float
    host: str
    tasks: int
    why: str
    then: str
    due_at: float | None = None


@dataclass(frozen=True, slots=True)
class ShapeNow:
    """The jobs of one shape.

    Attributes:
        shape: What they ask for.
        stages: How many of them are at each stage.
        why: Why there are not more, in words.
        due_at: When jobs of it are asked for again, where they are not for the time being.
    """

    shape: Shape
    stages: Mapping[str, int]
    why: str
    due_at: float | None = None


@dataclass(frozen=True, slots=True)
class TasksNow:
    """Equal tasks that have not ended.

    Attributes:
        what: What each of them asks for, in words.
        waiting: How many no pilot has.
        running: How many a pilot has.
        why: What the waiting ones wait for, in words.
    """

    what: str
    waiting: int
    running: int
    why: str


@dataclass(frozen=True, slots=True)
class RunNow:
    """A run.

    Attributes:
        run: Name of its folder.
        scheduler: The batch system it uses.
        started_at: When it began.
        waiting: Tasks that no pilot has.
        done: Tasks that ended, well or badly.
        failed: Those of them that ended badly.
        tasks: The others, equal ones together, as the last plan saw them.
        shapes: Shapes of its jobs.
        jobs: Its jobs.
        core_hours: What its jobs have cost, at the queues' prices.
        budget: What they may cost; None is no such limit.
        trouble: What the batch system answered when it did not answer; "" when it does.
        told_at: When this was found out.
    """

    run: str
    scheduler: str
    started_at: float
    waiting: int = 0
    done: int = 0
    failed: int = 0
    tasks: tuple[TasksNow, ...] = ()
    shapes: tuple[ShapeNow, ...] = ()
    jobs: tuple[JobNow, ...] = ()
    core_hours: float = field(default=0.0, compare=False)
    budget: float | None = None
    trouble: str = ""
    told_at: float = field(default=0.0, compare=False)

    @property
    def running(self) -> int:
        """Tasks that a pilot has."""
        return sum(job.tasks for job in self.jobs)

    def count(self, *stages: Stage) -> int:
        """Jobs that are at one of these stages."""
        return sum(job.stage in stages for job in self.jobs)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What holds around the pilots. Moments are those of the keeper's clock.

    Attributes:
        site: States the time-outs.
        submit_s: Seconds that a submit command may take.
        look_at: When the batch system is asked after its jobs again.
        trouble: What it answered when it did not answer; "" when it does.
        again_at: When jobs of a shape are asked for again that fail to start.
        held: Pilots that are held without work, by shape.
        spent_h: Core-hours that are spent.
        told_at: When all this was found out, in seconds since the epoch.
        offset_s: What makes a moment of that clock one since the epoch.
    """

    site: Site
    submit_s: float
    look_at: float
    trouble: str = ""
    again_at: Mapping[Shape, float] = field(default_factory=dict)
    held: Mapping[Shape, int] = field(default_factory=dict)
    spent_h: float = 0.0
    told_at: float = 0.0
    offset_s: float = 0.0

    def told(self, moment: float) -> float | None:
        """A moment as others read it, to a tenth of a second: what stays, compares equal."""
        return round(moment + self.offset_s, 1) if math.isfinite(moment) else None


def run_now(
    run: str,
    record: RunRecord,
    waiting: int,
    pilots: Iterable[Pilot],
    plan: Plan,
    outlook: Outlook,
) -> RunNow:
    """What a run is doing.

    Args:
        run: Name of its folder.
        record: What happened in it until now.
        waiting: Tasks that no pilot has.
        pilots: All that are asked for, pending, up or draining.
        plan: What was decided last.
        outlook: What holds around the pilots.
    """
    jobs = jobs_now(pilots, outlook)
    return RunNow(
        run,
        outlook.site.scheduler,
        record.started_at,
        waiting=waiting,
        done=len(record.tasks),
        failed=record.failed,
        tasks=tasks_now(plan),
        shapes=shapes_now(jobs, plan, outlook),
        jobs=jobs,
        core_hours=round(outlook.spent_h, 3),
        budget=outlook.site.limits.max_core_hours,
        trouble=outlook.trouble,
        told_at=outlook.told_at,
    )


def jobs_now(pilots: Iterable[Pilot], outlook: Outlook) -> tuple[JobNow, ...]:
    """The jobs of these pilots: where each is in its life, why, and what comes next."""
    return tuple(_job(pilot, outlook) for pilot in pilots)


def shapes_now(jobs: Iterable[JobNow], plan: Plan, outlook: Outlook) -> tuple[ShapeNow, ...]:
    """What there is of each shape, and why there is not more, as the last plan saw it."""
    stages: dict[Shape, Counter[str]] = {shape: Counter() for shape in plan.why}
    for job in jobs:
        stages.setdefault(job.shape, Counter())[job.stage.value] += 1
    again_at = {shape: outlook.told(moment) for shape, moment in outlook.again_at.items()}
    return tuple(
        ShapeNow(shape, dict(counts), plan.why.get(shape, ""), again_at.get(shape))
        for shape, counts in stages.items()
    )


def tasks_now(plan: Plan) -> tuple[TasksNow, ...]:
    """The tasks that wait or run, as the last plan saw them."""
    return tuple(
        TasksNow(_each(row), row.waiting, row.running, words if row.waiting else "")
        for row, words in plan.waits.items()
    )


def _each(row: Demand) -> str:
    """What each of equal tasks asks for, in words."""
    words = ["1 core" if row.cores == 1 else f"{row.cores} cores"]
    words += [f"{row.memory_mb} MB"] if row.memory_mb else []
    words += [f"{row.gpus} GPU"] if row.gpus else []
    words += [] if row.expected_s is None else [f"about {row.expected_s:.3g} s"]
    words += [f"queue {row.queue}"] if row.queue else []
    return ", ".join(words)


def _job(pilot: Pilot, outlook: Outlook) -> JobNow:
    stage = _stage(pilot)
    why, then, due = _words(pilot, stage, outlook)
    began = pilot.job_seen_running if stage is Stage.STARTING else pilot.since
    return JobNow(
        name=pilot.name,
        job_id=pilot.record.job_id,
        shape=pilot.shape,
        stage=stage,
        since=outlook.told(began or pilot.since) or 0.0,
        host=pilot.record.host or pilot.record.node,
        tasks=pilot.busy,
        why=why,
        then=then,
        due_at=outlook.told(due),
    )


def _stage(pilot: Pilot) -> Stage:
    if pilot.phase is Phase.ASKED:
        return Stage.SUBMITTING
    if pilot.phase is Phase.PENDING:
        return Stage.STARTING if pilot.job_seen_running else Stage.PENDING
    if pilot.phase is Phase.DRAINING:
        return Stage.DRAINING
    return Stage.BUSY if pilot.busy else Stage.IDLE


def _words(pilot: Pilot, stage: Stage, outlook: Outlook) -> tuple[str, str, float]:
    """Why it is at this stage, what happens next, and when at the latest (keeper's clock)."""
    match stage:
        case Stage.SUBMITTING:
            due = pilot.since + outlook.submit_s
            return "the submit command has not answered", "it counts as failed", due
        case Stage.PENDING:
            why = pilot.waits_for or "the batch system has given no reason yet"
            return why, "the batch system is asked again", outlook.look_at
        case Stage.STARTING:
            due = (pilot.job_seen_running or pilot.since) + outlook.site.limits.connect_s
            return "its pilot has not said hello", "it is ended and counts as failed", due
        case _:
            return _words_up(pilot, stage, outlook)


def _words_up(pilot: Pilot, stage: Stage, outlook: Outlook) -> tuple[str, str, float]:
    """The same for a pilot that is up."""
    if stage is Stage.BUSY:
        return "it works", "it takes no more tasks", pilot.drains_at
    if stage is Stage.DRAINING:
        return "its walltime is nearly over", "its job ends", pilot.deadline
    if outlook.held.get(pilot.shape):
        return "no task fits it, and it is held (scale)", "it stays", math.inf
    stated_s = outlook.site.limits.idle_s
    patience_s = PATIENT_S if stated_s is None else stated_s
    return "no task fits it", "it leaves", pilot.since + patience_s
