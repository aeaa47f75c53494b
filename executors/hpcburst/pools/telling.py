"""A run tells what it is doing: a small private file in its folder, for other processes.

It is written aside and renames itself into place, when something changed and at most every two
seconds; a driver that has nothing to tell says once a minute that it is there. It is removed when
the run ends well: one that stays is of a driver that died, and names the jobs it left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private
from hpcburst.errors import RequestError
from hpcburst.pools.state import JobNow, RunNow, ShapeNow, Stage, TasksNow
from hpcburst.tasks import Shape

logger = logging.getLogger("hpcburst")

FILE = "state.json"

INTERVAL_S = 2.0
"""How often it is written at most: often enough for a person who looks, and for the shared file
system one small file every two seconds for each run, not for each task."""

SHARE = 0.05
"""The part of the time that telling may take: ten thousand jobs are told of every ten seconds."""

ALIVE_S = 60.0
"""How often it is written though nothing changed."""

MOST_BYTES = 20_000_000
"""A larger file is not ours; one of ten thousand jobs is half as large."""


@dataclass(slots=True)
class Teller:
    """Writes the state of one run.

    Attributes:
        folder: The run's folder.
        look: Says what the run is doing; called where `keep_telling` runs.
    """

    folder: Path
    look: Callable[[], RunNow]
    _told: RunNow | None = None

    async def keep_telling(self) -> None:
        """Tell whenever there is news, until cancelled."""
        while True:
            began = time.monotonic()
            state = self.look()
            if self.is_news(state):
                await asyncio.to_thread(self.tell, state)
            took_s = time.monotonic() - began
            await asyncio.sleep(max(INTERVAL_S, took_s / SHARE))

    def is_news(self, state: RunNow) -> bool:
        """Whether this must be told: it differs from what was told last, or that is long ago."""
        told = self._told
        return told is None or state != told or state.told_at - told.told_at >= ALIVE_S

    def tell(self, state: RunNow) -> None:
        """Write it down. A failure is not told aloud: the run goes on without."""
        self._told = state
        try:
            write_private(self.folder / FILE, json.dumps(asdict(state)).encode())
        except OSError as error:
            logger.debug("what the run is doing is not written down: %s", error)

    def fall_silent(self) -> None:
        """The run ended: there is nothing more to tell."""
        forget_state(self.folder)


def read_state(folder: Path) -> RunNow | None:
    """What the run in this folder told last; None if it told nothing that can be read."""
    path = folder / FILE
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RequestError):
        if path.stat().st_size <= MOST_BYTES:
            return _run(json.loads(path.read_bytes()))
    return None


def forget_state(folder: Path) -> None:
    """Remove what the run in this folder told: there is nothing left to look after."""
    with suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)


def _run(fields: dict[str, Any]) -> RunNow:
    tasks = tuple(TasksNow(**row) for row in fields.pop("tasks"))
    shapes = tuple(ShapeNow(**{**row, "shape": _shape(row)}) for row in fields.pop("shapes"))
    jobs = tuple(
        JobNow(**{**row, "shape": _shape(row), "stage": Stage(row["stage"])})
        for row in fields.pop("jobs")
    )
    return RunNow(**fields, tasks=tasks, shapes=shapes, jobs=jobs)


def _shape(row: dict[str, Any]) -> Shape:
    return Shape(**row["shape"])
