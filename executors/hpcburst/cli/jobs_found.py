"""The runs of mine that are there: those that go on, and those whose driver is gone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.comms.staging import Driver, RunFolder, driver_of, run_folders
from hpcburst.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcburst.pools.state import RunNow

SILENT_S = 300.0
"""A driver on another machine that has told nothing for so long may be gone; a living one tells
once a minute that it is there."""


class Standing(StrEnum):
    """Whether somebody looks after a run."""

    LIVE = "live"
    LOST = "lost"  # its driver died; what it left is nobody's
    SILENT = "silent"  # its driver is on another machine and has told nothing for long


@dataclass(frozen=True, slots=True)
class FoundRun:
    """One run.

    Attributes:
        folder: Its folder.
        driver: Its driver.
        state: What it told last; None if nothing can be read.
        standing: Whether somebody looks after it.
    """

    folder: Path
    driver: Driver
    state: RunNow | None
    standing: Standing

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.name


def find_runs(shared_root: Path) -> list[FoundRun]:
    """Runs that go on or left something, the oldest first; those that ended well are not there."""
    from hpcburst.pools.telling import read_state

    found = []
    for folder in run_folders(shared_root):
        state = read_state(folder)
        if state is not None or RunFolder(folder).secret.exists():
            driver = driver_of(folder)
            found.append(FoundRun(folder, driver, state, _standing(driver, state)))
    return found


def pick(runs: Sequence[FoundRun], part: str) -> FoundRun:
    """The run whose name has this part.

    Raises:
        RequestError: There is none, or there are several.
    """
    named = [run for run in runs if part in run.name]
    if len(named) == 1:
        return named[0]
    found = f"{len(named)} runs are called so" if named else "no run that is there is called so"
    known = ", ".join(run.name for run in named or runs) or "none"
    raise RequestError(f"The run {part!r} was asked for", found, f"the runs are: {known}")


def _standing(driver: Driver, state: RunNow | None) -> Standing:
    if driver.alive is not None:
        return Standing.LIVE if driver.alive else Standing.LOST
    fresh = state is not None and time.time() - state.told_at < SILENT_S
    return Standing.LIVE if fresh else Standing.SILENT
