"""What a run is doing, said in words: the same on a terminal, in a notebook and in a log. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from hpcburst.pools.state import JobNow, RunNow, ShapeNow, Stage

_SPANS = ((2 * 86400.0, 86400.0, "d"), (2 * 3600.0, 3600.0, "h"), (120.0, 60.0, "min"))

_STAGE_WORDS = {
    Stage.SUBMITTING: "being submitted",
    Stage.PENDING: "pending",
    Stage.STARTING: "starting",
    Stage.IDLE: "idle",
    Stage.BUSY: "busy",
    Stage.DRAINING: "draining",
}


def duration(seconds: float) -> str:
    """A length of time: "40 s", "3 min", "5 h", "2 d"."""
    for least, unit, name in _SPANS:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0.0):.0f} s"


def counted(count: int, name: str) -> str:
    """A number of things: "1 task", "2 tasks"."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def tasks_words(run: RunNow) -> str:
    """How many tasks wait, run and are done."""
    failed = f" ({run.failed} failed)" if run.failed else ""
    return f"{run.waiting} waiting, {run.running} running, {run.done} done{failed}"


def stages_words(stages: Iterable[Stage]) -> str:
    """How many jobs are at each stage, in the order of a job's life."""
    return counts_words(Counter(stages))


def counts_words(counts: Mapping[str, int]) -> str:
    """The same from how many there are."""
    words = [f"{counts[stage]} {_STAGE_WORDS[stage]}" for stage in Stage if counts.get(stage)]
    return ", ".join(words) or "none"


def shape_words(row: ShapeNow, at: float) -> str:
    """Why there are not more jobs of a shape, and when they are asked for again."""
    if row.due_at is None:
        return row.why
    return f"{row.why} Asked for again in {duration(row.due_at - at)}."


def job_words(job: JobNow, at: float) -> str:
    """Where a job is, for how long, why, what happens next and when."""
    then = f"; {job.then}" if job.then else ""
    when = "" if job.due_at is None else f" in {duration(job.due_at - at)}"
    stage = _STAGE_WORDS[job.stage]
    return f"{stage} for {duration(at - job.since)}: {job.why}{then}{when}"


def answer(run: RunNow) -> str:
    """The short answer to "why is nothing running?"."""
    if run.running:
        jobs = counted(run.count(Stage.BUSY, Stage.DRAINING), "job")
        return f"{counted(run.running, 'task')} running in {jobs}."
    if not run.waiting:
        return "Nothing is waiting to be run."
    return _why_waiting(run)


def _why_waiting(run: RunNow) -> str:
    if run.trouble:
        return f"The batch system does not answer. {run.trouble}"
    for stage, words in (
        (Stage.STARTING, "started, and the pilot has not said hello"),
        (Stage.PENDING, "pending in the batch system"),
        (Stage.SUBMITTING, "being submitted"),
    ):
        there = [job for job in run.jobs if job.stage is stage]
        if there:
            return f"{counted(len(there), 'job')} {words}{_reasons(there, stage)}."
    told = [*(row.why for row in run.tasks), *(row.why for row in run.shapes)]
    reasons = dict.fromkeys(filter(None, told))
    return "No job is asked for: " + ("; ".join(reasons) or "the driver has not planned yet") + "."


def _reasons(jobs: Iterable[JobNow], stage: Stage) -> str:
    """What the batch system says of them, the most frequent first."""
    if stage is not Stage.PENDING:
        return ""
    counts = Counter(job.why for job in jobs)
    return f" ({'; '.join(words for words, _ in counts.most_common(3))})"
