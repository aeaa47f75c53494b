"""Shared memory that is kept for the next call: fresh pages cost more than the data in them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from hpcburst.workers.guest.frames import room_needed
from hpcburst.workers.guest.segments import Segment
from hpcburst.workers.oom import memory_left_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT_BYTES = 1 << 30
"""Kept at most for a pilot, and never more than `KEPT_SHARE` of what is left."""

KEPT_SHARE = 1 / 8
"""Of the memory that is left to the job: what is kept must not be what the next body lacks."""

KEPT_S = 30.0
"""What was not used for so long is given back at the next look."""

UNASKED_BYTES = 16 << 20
"""So little is kept without asking how much memory is left."""

TOO_LARGE = 4
"""A segment is not used for parts that need less than this part of it."""


class Spares:
    """Segments of a pilot that wait for their next use. Threads may use it at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[float, Segment]] = deque()  # oldest first

    def take(self, parts: Sequence[Any]) -> Segment | None:
        """A segment for the large ones of some parts; None if a fresh one must do."""
        if not self._kept:
            return None
        room = room_needed(parts)
        with self._lock:
            self._let_go_old()
            if not room:
                return None
            for row in reversed(self._kept):
                segment = row[1]
                if room <= segment.size <= TOO_LARGE * room and segment.unused:
                    self._kept.remove(row)
                    return segment
        return None

    def give(self, segments: Sequence[Segment]) -> None:
        """Keep segments for later, or let them go where memory is short."""
        if not segments:
            return
        with self._lock:
            now = time.monotonic()
            self._kept.extend((now, segment) for segment in segments)
            total = sum(segment.size for _, segment in self._kept)
            limit = UNASKED_BYTES
            if total > UNASKED_BYTES:
                limit = max(limit, min(KEPT_BYTES, int(KEPT_SHARE * memory_left_bytes())))
            while total > limit:
                _, segment = self._kept.popleft()
                total -= segment.size
                segment.close()

    def close(self) -> None:
        """Let all go. Idempotent."""
        with self._lock:
            while self._kept:
                self._kept.popleft()[1].close()

    def _let_go_old(self) -> None:
        until = time.monotonic() - KEPT_S
        while self._kept and self._kept[0][0] < until:
            self._kept.popleft()[1].close()
