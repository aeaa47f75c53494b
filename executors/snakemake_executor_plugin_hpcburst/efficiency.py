"""What the jobs of each rule used of what they asked for: as text for the log, and as CSV. Pure.

The figures come from the kernel, through the pilot that waited for the job (`wait4`): every batch
system has them, and no accounting database is asked.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from hpcburst.results import Outcome, Usage
from hpcburst.tasks import Needs

HEADS = (
    *("rule", "jobs", "failed", "wall s", "longest s", "runtime s", "CPU s", "cores"),
    *("CPU %", "max RSS MB", "mem_mb", "memory %"),
)

WORTH_SAYING_S = 60.0
"""A rule whose jobs held cores for less than this wasted nothing worth a remark."""


@dataclass(slots=True)
class RuleUsage:
    """What all jobs of one rule took together.

    Attributes:
        rule: Name of the rule or group.
        jobs: Jobs that ran, each attempt counted.
        failed: How many of them failed.
        wall_s: Elapsed seconds, added up.
        longest_s: Elapsed seconds of the longest.
        runtime_s: The most seconds one of them asked for; 0.0 if none did.
        cpu_s: CPU seconds, added up.
        core_s: Seconds that cores were held, added up.
        cores: The most cores one of them asked for.
        max_rss_mb: Most memory one of its processes had, in MB (10^6 bytes).
        memory_mb: The most memory one of them asked for, in MB; 0 if none did.
    """

    rule: str
    jobs: int = 0
    failed: int = 0
    wall_s: float = 0.0
    longest_s: float = 0.0
    runtime_s: float = 0.0
    cpu_s: float = 0.0
    core_s: float = 0.0
    cores: int = 0
    max_rss_mb: float = 0.0
    memory_mb: int = 0

    def add(self, needs: Needs, usage: Usage, *, ok: bool) -> None:
        """Count one job that ran."""
        self.jobs += 1
        self.failed += not ok
        self.wall_s += usage.wall_s
        self.longest_s = max(self.longest_s, usage.wall_s)
        self.runtime_s = max(self.runtime_s, needs.walltime_s or 0.0)
        self.cpu_s += usage.cpu_s
        self.core_s += usage.wall_s * needs.cores
        self.cores = max(self.cores, needs.cores)
        self.max_rss_mb = max(self.max_rss_mb, usage.max_rss_mb)
        self.memory_mb = max(self.memory_mb, needs.memory_mb or 0)

    @property
    def cpu_share(self) -> float | None:
        """The part of its cores' time in which they computed; None if they were not held."""
        return self.cpu_s / self.core_s if self.core_s else None

    @property
    def memory_share(self) -> float | None:
        """The part of the memory it asked for that it used; None if it asked for none."""
        return self.max_rss_mb / self.memory_mb if self.memory_mb and self.max_rss_mb else None


@dataclass(slots=True)
class Ledger:
    """The jobs of a run, by rule, in the order in which rules first ended.

    Attributes:
        rules: A row for each rule.
    """

    rules: dict[str, RuleUsage] = field(default_factory=dict)

    def note(self, rule: str, needs: Needs, outcome: Outcome) -> None:
        """Count a job that ran on a pilot, or in a batch job of its own."""
        if outcome.usage.wall_s:
            name = _printable(rule)
            row = self.rules.setdefault(name, RuleUsage(name))
            row.add(needs, outcome.usage, ok=outcome.ok)

    def text(self, threshold: float) -> str:
        """The table, and a line for each rule that used less than this part of what it held."""
        rows = [HEADS, *(_cells(row) for row in self.rules.values())]
        remarks = [line for row in self.rules.values() for line in _remarks(row, threshold)]
        return "\n".join([*_columns(rows), *remarks])

    def csv(self) -> str:
        """The table for programs; times in seconds, memory in MB, shares as numbers up to 1."""
        names = list(RuleUsage.__dataclass_fields__)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*names, "cpu_share", "memory_share"])
        for row in self.rules.values():
            numbers = [_rounded(value) for value in asdict(row).values()]
            shares = [_rounded(share) for share in (row.cpu_share, row.memory_share)]
            writer.writerow([*numbers, *shares])
        return text.getvalue()


def _cells(row: RuleUsage) -> tuple[str, ...]:
    return (
        row.rule,
        str(row.jobs),
        str(row.failed),
        f"{row.wall_s:.1f}",
        f"{row.longest_s:.1f}",
        f"{row.runtime_s:.0f}" if row.runtime_s else "-",
        f"{row.cpu_s:.1f}",
        str(row.cores),
        _percent(row.cpu_share),
        f"{row.max_rss_mb:.0f}",
        str(row.memory_mb or "-"),
        _percent(row.memory_share),
    )


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        padded = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *padded])


def _remarks(row: RuleUsage, threshold: float) -> Iterator[str]:
    if row.core_s < WORTH_SAYING_S:
        return
    if row.cores > 1 and row.cpu_share is not None and row.cpu_share < threshold:
        yield (
            f"Rule {row.rule} computed in {row.cpu_share:.0%} of the time it held "
            f"{row.cores} cores: fewer threads would do, or there is much to read and write."
        )
    if row.memory_share is not None and row.memory_share < threshold:
        yield (
            f"Rule {row.rule} asked for mem_mb={row.memory_mb} and its largest process "
            f"had {row.max_rss_mb:.0f} MB."
        )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _rounded(value: object) -> object:
    return "" if value is None else round(value, 3) if isinstance(value, float) else value


def _printable(name: str) -> str:
    """A name that stays on its line, in the log and in the CSV."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
