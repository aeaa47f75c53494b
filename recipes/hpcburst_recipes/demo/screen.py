"""What the demo shows while it works: a progress bar on a terminal, plain lines without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_EVERY = 0.25
"""Without a terminal, a step says something at every such share of its way."""


class Step(Protocol):
    """One step of the demo, as it goes."""

    def at(self, done: int, total: int, note: str = "") -> None:
        """Say how far it is."""


@dataclass(slots=True)
class _Bar:
    progress: Progress
    title: str
    task: int

    def at(self, done: int, total: int, note: str = "") -> None:
        words = f"{self.title} [dim]{note}[/]" if note else self.title
        self.progress.update(self.task, completed=done, total=total or None, description=words)  # type: ignore[arg-type]


@dataclass(slots=True)
class _Lines:
    title: str
    said: float = field(default=0.0)

    def at(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002 - bars show the note
        share = done / total if total else 0.0
        if share - self.said >= LINE_EVERY or (share >= 1.0 > self.said):
            self.said = share
            print(f"  {self.title}: {done} of {total}", flush=True)


class Screen:
    """Where the demo speaks to its user."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """One line."""
        self.console.print(text, markup=False)
        sys.stdout.flush()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One step, with a bar on a terminal and lines without one."""
        if not self.console.is_terminal:
            print(title, flush=True)
            yield _Lines(title)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            yield _Bar(progress, title, progress.add_task(title, total=None))
