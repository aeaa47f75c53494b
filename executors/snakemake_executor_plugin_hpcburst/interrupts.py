"""A second Ctrl-C while batch jobs are being ended must not leave them behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

NOTE = b"hpcburst is ending its batch jobs, so that none is left behind. This takes some seconds.\n"


@contextmanager
def held_off() -> Iterator[None]:
    """Hold Ctrl-C off for the time of a clean-up that ends by itself; who presses it is told.

    Anywhere but in the main thread, which alone gets signals, this does nothing.
    """
    try:
        before = signal.signal(signal.SIGINT, lambda *_: _tell())
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tell() -> None:
    os.write(2, NOTE)  # stderr itself: a handler must not meet a buffer half-written
