"""What earlier runs taught: how long tasks take and jobs wait, in a small file of the user's.

It is there to help and never to harm: what cannot be read is forgotten, what cannot be written is
not kept, and two runs that write at once lose a lesson at most.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private
from hpcburst.errors import RequestError
from hpcburst.tasks import Shape

logger = logging.getLogger("hpcburst")

FILE = "history.json"

LAST = 2
"""The mean of the last two runs foretells the next one better than longer memories do (Tsafrir,
Etsion and Feitelson 2007: what is recent beats what is alike)."""

MOST_TASKS = 2000
"""Names remembered, the latest ones; with names of the usual length, 200 kB."""

MOST_STARTS = 200
"""Shapes remembered, the latest ones."""

STARTS_LAST_S = 6 * 3600.0
"""How busy a queue is changes within the day; what it was last night is no help."""

MOST_BYTES = 2_000_000
"""A larger file is not ours."""


@dataclass(slots=True)
class History:
    """Durations of tasks and delays of starts, kept between runs.

    Attributes:
        path: The file; None keeps nothing.
    """

    path: Path | None = None
    _tasks: dict[str, list[float]] = field(default_factory=dict)
    _starts: dict[Shape, list[tuple[float, float]]] = field(default_factory=dict)
    _news: set[str | Shape] = field(default_factory=set)

    @classmethod
    def of(cls, shared_root: Path) -> History:
        """The history under a shared root; empty when there is none that can be read."""
        history = cls(shared_root / FILE)
        history._read()
        return history

    def note_task(self, name: str, env_key: str, wall_s: float) -> None:
        """A task of that name took so long in that env; only what succeeded should be told."""
        if math.isfinite(wall_s) and wall_s >= 0:
            key = _key(name, env_key)
            _latest(self._tasks, key, wall_s)
            self._news.add(key)
            _forget_oldest(self._tasks, MOST_TASKS)

    def task_s(self, name: str, env_key: str) -> float | None:
        """Seconds that such a task is expected to take; None when none ended yet."""
        known = self._tasks.get(_key(name, env_key))
        return sum(known) / len(known) if known else None

    def note_start(self, shape: Shape, delay_s: float) -> None:
        """A job of this shape took so long from its submission to its pilot's hello."""
        if math.isfinite(delay_s) and delay_s >= 0:
            _latest(self._starts, shape, (time.time(), delay_s))
            self._news.add(shape)
            _forget_oldest(self._starts, MOST_STARTS)

    def start_delay_s(self) -> dict[Shape, float]:
        """What jobs of each shape waited lately; for `Learned.start_delay_s`."""
        now = time.time()
        fresh = {
            shape: [delay_s for at, delay_s in rows if 0 <= now - at < STARTS_LAST_S]
            for shape, rows in self._starts.items()
        }
        return {shape: sum(rows) / len(rows) for shape, rows in fresh.items() if rows}

    def save(self) -> None:
        """Write what is new over what other runs wrote meanwhile; a failure is not told aloud."""
        if self.path is None or not self._news:
            return
        shapes = [key for key in self._news if isinstance(key, Shape)]
        names = [key for key in self._news if isinstance(key, str)]
        self._news = set()
        History.of(self.path.parent).merge(
            {name: self._tasks[name] for name in names if name in self._tasks},
            {shape: self._starts[shape] for shape in shapes if shape in self._starts},
        )

    def merge(
        self,
        tasks: Mapping[str, list[float]],
        starts: Mapping[Shape, list[tuple[float, float]]],
    ) -> None:
        """Put rows in the place of those that are known, as the latest, and write the file."""
        for name, durations in tasks.items():
            self._tasks.pop(name, None)
            self._tasks[name] = durations
        for shape, delays in starts.items():
            self._starts.pop(shape, None)
            self._starts[shape] = delays
        if self.path is None:
            return
        try:
            write_private(self.path, json.dumps(self._document()).encode())
        except OSError as error:  # a full disk, a folder gone: the run goes on without
            logger.debug("what this run learned is not kept: %s", error)

    def _document(self) -> dict[str, Any]:
        _forget_oldest(self._tasks, MOST_TASKS)
        _forget_oldest(self._starts, MOST_STARTS)
        starts = [[asdict(shape), rows] for shape, rows in self._starts.items()]
        return {"tasks": self._tasks, "starts": starts}

    def _read(self) -> None:
        """Whatever is there and makes sense; the rest is forgotten."""
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            if self.path is None or self.path.stat().st_size > MOST_BYTES:
                return
            document = json.loads(self.path.read_bytes())
            for key, rows in document["tasks"].items():
                if numbers := _numbers(rows):
                    self._tasks[str(key)] = numbers[-LAST:]
            for fields, rows in document["starts"]:
                self._read_start(fields, rows)

    def _read_start(self, fields: Mapping[str, Any], rows: Sequence[Sequence[float]]) -> None:
        with suppress(RequestError):
            pairs = [tuple(_numbers(row)) for row in rows]
            shape = Shape(**fields)
            whole = min(shape.walltime_s, shape.memory_mb) > 0  # also that they are numbers
            if whole and all(len(pair) == 2 for pair in pairs):
                self._starts[shape] = [(pair[0], pair[1]) for pair in pairs][-LAST:]


def _key(name: str, env_key: str) -> str:
    return f"{env_key}|{name[:200]}"


def _numbers(values: Sequence[Any]) -> list[float]:
    numbers = [float(value) for value in values]
    return numbers if all(math.isfinite(value) and value >= 0 for value in numbers) else []


def _latest(rows: dict[Any, list[Any]], key: object, value: object) -> None:
    """Add to a row, keep its last values, and make it the latest row."""
    rows[key] = [*rows.pop(key, []), value][-LAST:]


def _forget_oldest(rows: dict[Any, list[Any]], most: int) -> None:
    while len(rows) > most:
        del rows[next(iter(rows))]
