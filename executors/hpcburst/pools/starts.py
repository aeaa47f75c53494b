"""How the jobs of each shape start: what failed in a row, and when to try again."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hpcburst.errors import BurstError, SubmitError
from hpcburst.tasks import Shape

logger = logging.getLogger("hpcburst")

RETRY_S = (0.5, 2.0, 10.0)
"""Pauses before jobs are asked for again after 1, 2, 3 failed starts in a row."""

PAUSE_S = 60.0
"""How long a shape whose jobs do not start is left alone before a new task may try it again."""

TAIL_BYTES = 4000


@dataclass(slots=True)
class _Row:
    failures: int = 0
    not_before: float = 0.0
    error: BurstError | None = None


@dataclass(slots=True)
class Starts:
    """A ledger of failed starts, by shape."""

    _rows: dict[Shape, _Row] = field(default_factory=dict)

    def succeeded(self, shape: Shape) -> None:
        """A pilot of this shape said hello: what failed before does not count."""
        self._rows.pop(shape, None)

    def failed(self, shape: Shape, error: BurstError, limit: int) -> bool:
        """Note a failed start; wait a little longer each time.

        Jobs that were asked for together fail together, and count as one.

        Returns:
            Whether it is time to give up: it was the `limit`th in a row.
        """
        row = self._rows.setdefault(shape, _Row())
        row.error = error
        if time.monotonic() < row.not_before:
            return False
        row.failures += 1
        logger.warning("a job did not start (%d in a row): %s", row.failures, error)
        give_up = row.failures >= limit
        pause_s = PAUSE_S if give_up else RETRY_S[min(row.failures, len(RETRY_S)) - 1]
        row.not_before = time.monotonic() + pause_s
        if give_up:
            row.failures = 0
        return give_up

    def paused(self) -> dict[Shape, str]:
        """Shapes that are not asked for now, with the reason."""
        now = time.monotonic()
        return {
            shape: f"the last job did not start; trying again soon. {row.error}"
            for shape, row in self._rows.items()
            if row.not_before > now
        }


def start_error(shape: Shape, found: str, job_id: str, log: str) -> SubmitError:
    """The error for a job that was started and whose pilot never said hello."""
    tail = ""
    with suppress(OSError):
        tail = Path(log).read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    return SubmitError(
        f"A job was started for a pilot ({shape})",
        f"{found} before the pilot said hello to the driver",
        "the job's log may tell why: the Python of the driver must exist on the nodes, and the "
        "driver's address must be reachable from them",
        job_id=job_id,
        log=log,
        tail=tail,
    )
