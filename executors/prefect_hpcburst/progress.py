"""How a burst goes, in words for Prefect's UI. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hpcburst.pools.record import RunRecord


@dataclass(slots=True)
class Tally:
    """Task runs of a flow run.

    Attributes:
        submitted: How many there are.
        ended: How many of them have ended.
        failed: How many of those did not end well.
    """

    submitted: int = 0
    ended: int = 0
    failed: int = 0

    @property
    def percent(self) -> float:
        """The share that has ended."""
        return 100.0 * self.ended / self.submitted if self.submitted else 0.0


@dataclass(frozen=True, slots=True)
class Pilots:
    """Pilots of a flow run at one moment.

    Attributes:
        running: How many have said hello and are there.
        queued: How many the batch system has not started yet.
        core_hours: What all of them held so far.
        why: In words, what every shape has and why it has not more.
    """

    running: int = 0
    queued: int = 0
    core_hours: float = 0.0
    why: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, record: RunRecord, why: Sequence[str]) -> Pilots:
        """What a record says; it may be written to meanwhile."""
        there = [pilot for pilot in list(record.pilots.values()) if not pilot.gone_at]
        held_s = sum(p.held_s * p.shape.cores for p in list(record.pilots.values()))
        up = sum(bool(pilot.up_at) for pilot in there)
        return cls(up, len(there) - up, held_s / 3600, tuple(why))


def described(tally: Tally, pilots: Pilots) -> str:
    """The burst in a few lines of Markdown."""
    failed = f" ({tally.failed} failed)" if tally.failed else ""
    tasks = f"**{tally.ended} of {tally.submitted} task runs done**{failed}"
    held = f"{pilots.core_hours:.2f} core-hours held so far"
    count = f"{_count(pilots.running, 'pilot')} running, {pilots.queued} queued; {held}"
    return "\n\n".join([tasks, count, "\n".join(f"- {text}" for text in pilots.why)])


def reported(tally: Tally, record: RunRecord, folder: str) -> str:
    """The whole run in Markdown, when it has ended."""
    failed = f", {tally.failed} of them not well" if tally.failed else ""
    return (
        f"# Pilots of this run\n\n{tally.ended} task runs ended{failed}; "
        f"{Pilots.of(record, ()).core_hours:.2f} core-hours were held.\n\n"
        f"```text\n{record.text()}\n```\n\nLogs of the jobs: `{folder}/logs`\n"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
