"""One line on the terminal that says what is going on: jobs, pilots, and when the next one comes.

It is there on a terminal only, is rewritten in place, and gives way to every line of the log.
"""

from __future__ import annotations

import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TextIO

EVERY_S = 1.0
"""How often the line is rewritten."""

GIVE_WAY_S = 0.6
"""A record of the log may be printed by another thread, a little later: nothing is drawn before."""

CLEAR = "\r\x1b[2K"


class PilotLife(Protocol):
    """What the run's record tells of one pilot: seconds since the epoch, 0.0 for never."""

    asked_at: float
    up_at: float
    gone_at: float


def describe(jobs: int, pilots: Iterable[PilotLife], now: float) -> str:
    """The line.

    Args:
        jobs: Snakemake jobs under way.
        pilots: All pilots of the run so far.
        now: Seconds since the epoch.
    """
    lives = list(pilots)
    up = sum(1 for life in lives if life.up_at and not life.gone_at)
    queued = [life.asked_at for life in lives if not life.up_at and not life.gone_at]
    words = [_counted(jobs, "job") + " under way", f"{_counted(up, 'pilot')} up"]
    if queued:
        delays = [life.up_at - life.asked_at for life in lives if life.up_at]
        words.append(f"{len(queued)} queued{_expected(delays, now - min(queued))}")
    return "hpcburst: " + ", ".join(words)


def _expected(delays: list[float], waited_s: float) -> str:
    """When the oldest queued pilot starts, as earlier ones of this run did."""
    if not delays:
        return f" for {waited_s:.0f} s"
    left_s = statistics.median(delays) - waited_s
    return f" (next in about {left_s:.0f} s)" if left_s >= 1 else f" for {waited_s:.0f} s"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class LiveLine:
    """The line, drawn by a thread of its own until `close`.

    Args:
        text: Gives the line; called in that thread. "" is no line.
        logger: Whose records the line gives way to.
        stream: Where it goes; nothing is drawn if that is no terminal.
    """

    def __init__(self, text: Callable[[], str], logger: Any, stream: TextIO | None = None) -> None:
        self._text, self._logger = text, logger
        self._stream = stream or sys.stderr
        self._guard = threading.Lock()
        self._shown = False
        self._quiet_until = 0.0
        self._closed = threading.Event()
        self._handler = _GiveWay(self._give_way)
        self._thread = threading.Thread(target=self._draw_on, name="hpcburst-live", daemon=True)

    def start(self) -> None:
        """Begin to draw, on a terminal."""
        if self._stream.isatty() and hasattr(self._logger, "handlers"):
            self._logger.handlers.insert(0, self._handler)  # before those that print
            self._thread.start()

    def close(self) -> None:
        """Take the line away. Idempotent."""
        if self._thread.is_alive():
            self._closed.set()
            self._thread.join()
            self._logger.removeHandler(self._handler)

    def _draw_on(self) -> None:
        while not self._closed.wait(EVERY_S):
            self._draw(self._text())
        self._give_way()

    def _draw(self, text: str) -> None:
        with self._guard:
            if text and time.monotonic() >= self._quiet_until:
                self._stream.write(f"{CLEAR}{text}")
                self._stream.flush()
                self._shown = True

    def _give_way(self) -> None:
        with self._guard:
            self._quiet_until = time.monotonic() + GIVE_WAY_S
            if self._shown:
                self._stream.write(CLEAR)
                self._stream.flush()
                self._shown = False


class _GiveWay(logging.Handler):
    """Calls somebody before a record is printed."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - that there is one is enough
        """See above."""
        self._call()
