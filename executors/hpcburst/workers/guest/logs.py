"""What a body logs travels home with its level."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Callable

from . import streams

TASK_LOGGER = "hpcburst.task"


class HomeHandler(logging.Handler):
    """Sends records home; a forked child, which has no line of its own, writes them to stderr.

    Args:
        send: Takes level name, text and time (seconds since the epoch).
    """

    def __init__(self, send: Callable[[str, str, float], None]) -> None:
        super().__init__(logging.INFO)
        self._send = send
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; never raises into the body."""
        try:
            text = self.format(record)
            if os.getpid() != self._pid:
                sys.stderr.write(text + "\n")
                return
            streams.flush()  # what was printed before was said before
            self._send(record.levelname, text, record.created)
        except Exception:  # noqa: BLE001 - as `logging` asks of handlers
            self.handleError(record)


def install(send: Callable[[str, str, float], None]) -> None:
    """Make the root logger send INFO and above home."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(HomeHandler(send))


def task_logger(*_: Any, **__: Any) -> logging.Logger:
    """What stands in for an engine's logger function, which the env need not have."""
    return logging.getLogger(TASK_LOGGER)


STAND_INS = {"task_logger": task_logger}
"""What a body may get, by name, for objects of the driver (`bodies.body_of(stand_ins=...)`)."""
