"""How jobs start: what failed in a row, when to try again, and on which nodes not to."""

from __future__ import annotations

import logging
import time
from collections import Counter
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

STRIKES = 2
"""A node on which so many jobs died at their start, and none since came up, is avoided."""

MOST_AVOIDED = 8
"""More bad nodes than these are not bad nodes: it is something else, and no job would start."""

TAIL_BYTES = 4000

_Kind = tuple[str | None, int, int, int]
"""What fails to start in one walltime fails in another: queue, cores, memory and GPUs count."""


@dataclass(slots=True)
class _Row:
    shape: Shape
    failures: int = 0
    not_before: float = 0.0
    error: BurstError | None = None


@dataclass(slots=True)
class Starts:
    """A ledger of failed starts, by what jobs ask for and by node."""

    _rows: dict[_Kind, _Row] = field(default_factory=dict)
    _nodes: Counter[str] = field(default_factory=Counter)

    def succeeded(self, shape: Shape, node: str = "") -> None:
        """A pilot of this shape said hello: what failed before does not count."""
        self._rows.pop(_kind(shape), None)
        self._nodes.pop(node, None)

    def failed(self, shape: Shape, error: BurstError, limit: int, node: str = "") -> bool:
        """Note a failed start; wait a little longer each time.

        Jobs that were asked for together fail together, and count as one.

        Returns:
            Whether it is time to give up: it was the `limit`th in a row.
        """
        if node:
            self._nodes[node] += 1
        row = self._rows.setdefault(_kind(shape), _Row(shape))
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
            row.shape: f"the last job did not start; trying again soon. {row.error}"
            for row in self._rows.values()
            if row.not_before > now
        }

    def again_at(self) -> dict[Shape, float]:
        """When shapes that are not asked for now are tried again (monotonic seconds)."""
        now = time.monotonic()
        rows = list(self._rows.values())
        return {row.shape: row.not_before for row in rows if row.not_before > now}

    def avoided(self) -> list[str]:
        """Nodes that jobs should keep away from, by the names the batch system gave."""
        bad = sorted(node for node, strikes in self._nodes.items() if strikes >= STRIKES)
        return bad if len(bad) <= MOST_AVOIDED else []


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


def _kind(shape: Shape) -> _Kind:
    return (shape.queue, shape.cores, shape.memory_mb, shape.gpus)
