"""What a run was: pilots held, tasks run, time used. Kept as JSON in the run's folder."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcburst.results import Outcome, Where
from hpcburst.tasks import Burst, Shape


@dataclass(slots=True)
class PilotRecord:
    """One pilot's life. Times are seconds since the epoch; 0.0 is never."""

    name: str
    shape: Shape
    job_id: str = ""
    host: str = ""
    asked_at: float = 0.0
    up_at: float = 0.0
    gone_at: float = 0.0
    end: str = ""
    node: str = ""  # what the batch system calls its host

    @property
    def held_s(self) -> float:
        """Seconds its cores were ours and could be used."""
        return max(0.0, (self.gone_at or time.time()) - self.up_at) if self.up_at else 0.0


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task's run on a pilot."""

    name: str
    pilot: str
    env_key: str
    cores: int
    started_at: float
    wall_s: float
    cpu_s: float
    max_rss_mb: float
    sends: int
    fault: str


@dataclass(slots=True)
class RunRecord:
    """Everything that happened in one run."""

    started_at: float = field(default_factory=time.time)
    ended_at: float = 0.0
    pilots: dict[str, PilotRecord] = field(default_factory=dict)
    tasks: list[TaskRecord] = field(default_factory=list)
    failed: int = 0

    def note(
        self, burst: Burst, pilot: PilotRecord, outcome: Outcome, log: str, sends: int
    ) -> Outcome:
        """Note how a task ended; returns its outcome with where it ran filled in."""
        env_key = burst.env.key if burst.env else ""
        where = Where(pilot.name, pilot.job_id, pilot.host, log, env_key)
        usage = outcome.usage
        self.failed += outcome.failure is not None
        self.tasks.append(
            TaskRecord(
                name=burst.name,
                pilot=pilot.name,
                env_key=env_key,
                cores=burst.needs.cores,
                started_at=usage.started_at,
                wall_s=usage.wall_s,
                cpu_s=usage.cpu_s,
                max_rss_mb=usage.max_rss_mb,
                sends=sends,
                fault=outcome.failure.fault.value if outcome.failure else "",
            )
        )
        return replace(outcome, where=where, sends=sends)

    @property
    def pilots_up(self) -> int:
        """Pilots that said hello."""
        return sum(bool(pilot.up_at) for pilot in self.pilots.values())

    @property
    def used_s(self) -> float:
        """Core-seconds that tasks used."""
        return sum(task.wall_s * task.cores for task in self.tasks)

    @property
    def held_s(self) -> float:
        """Core-seconds that pilots held."""
        return sum(pilot.held_s * pilot.shape.cores for pilot in self.pilots.values())

    def summary(self) -> dict[str, Any]:
        """The figures of the run, in one flat mapping."""
        return {
            "tasks": len(self.tasks),
            "failed": sum(bool(task.fault) for task in self.tasks),
            "pilots": self.pilots_up,
            "used_core_s": round(self.used_s, 2),
            "held_core_s": round(self.held_s, 2),
            "first_result_s": round(self._first_result_s(), 2),
        }

    def text(self) -> str:
        """The run in a few lines for a person."""
        figures = self.summary()
        share = 100 * self.used_s / self.held_s if self.held_s else 0.0
        headline = (
            f"{figures['tasks']} tasks ({figures['failed']} failed) on {figures['pilots']} pilots; "
            f"{self.used_s:.1f} core-seconds used of {self.held_s:.1f} held ({share:.0f} %); "
            f"first result after {figures['first_result_s']:.1f} s"
        )
        tasks = Counter(task.pilot for task in self.tasks)
        lines = [_pilot_line(pilot, tasks[pilot.name]) for pilot in self.pilots.values()]
        return "\n".join([headline, *lines])

    def write(self, folder: Path) -> Path:
        """Write `report.json` and `report.txt`; returns the path of the text."""
        self.ended_at = self.ended_at or time.time()
        document: Mapping[str, Any] = {"summary": self.summary(), **asdict(self)}
        (folder / "report.json").write_text(json.dumps(document, indent=1) + "\n")
        report = folder / "report.txt"
        report.write_text(self.text() + "\n")
        return report

    def _first_result_s(self) -> float:
        ends = [task.started_at + task.wall_s for task in self.tasks]
        asked = [pilot.asked_at for pilot in self.pilots.values()]
        return max(0.0, min(ends) - min(asked)) if ends and asked else 0.0


def _pilot_line(pilot: PilotRecord, tasks: int) -> str:
    where = f"job {pilot.job_id or '-'} on {pilot.host or '-'} ({pilot.shape})"
    if not pilot.up_at:
        return f"  {pilot.name}: {where}, never up: {pilot.end}"
    return (
        f"  {pilot.name}: {where}, up after {pilot.up_at - pilot.asked_at:.1f} s, "
        f"held {pilot.held_s:.1f} s, {tasks} tasks, {pilot.end}"
    )
