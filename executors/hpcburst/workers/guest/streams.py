"""stdout and stderr of a body, in an order that the pilot can restore.

They are two pipes, and log records take a third way, so nothing tells which was written first.
Whenever another one of the three speaks, both pipes get the same numbered mark: what stands before
it there was said before what stands after it. What C code, child processes and writers of bytes say
has no marks of its own; it lies between those of its time.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from contextlib import suppress
from typing import Callable

from .native import flush_c

LOG = b"L"
"""Ends the number of a mark that a log record belongs to."""


class Marks:
    """Writes the marks.

    Args:
        token: Random text, so that no body writes a mark by accident.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        # Copies: a body may point 1 and 2 elsewhere, and its children must not see these.
        self._pipes = [os.dup(1), os.dup(2)]
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a handler of a signal may print
        self._number = 0
        self._speaker = 0

    def begin(self) -> None:
        """A call begins: nobody has spoken yet."""
        self._speaker = 0

    def speaks(self, descriptor: int) -> None:
        """Mark that stdout or stderr is written to next, if the other one was before."""
        if self._speaker == descriptor or os.getpid() != self._pid:
            return
        with self._lock:
            changed, self._speaker = self._speaker != 0, descriptor
            if changed:
                self._mark(b"")

    def log(self, send: Callable[[int], None]) -> None:
        """Mark a log record: `send` gets the number, and sends the record on its own way."""
        with self._lock:
            self._speaker = 0
            send(self._number + 1)
            self._mark(LOG)

    def _mark(self, kind: bytes) -> None:
        self._number += 1
        mark = b"\0%b:%d%b\0" % (self._token, self._number, kind)
        for pipe in self._pipes:
            os.write(pipe, mark)


class _Marked(io.TextIOWrapper):
    """A stream whose writes are marked. Not in a lower layer: an interrupt there writes twice."""

    def __init__(self, descriptor: int, marks: Marks) -> None:
        lower = open(descriptor, "wb", closefd=False)  # noqa: SIM115 - open as long as we are
        lower.raw.name = "<stdout>" if descriptor == 1 else "<stderr>"  # type: ignore[attr-defined]
        super().__init__(lower, "utf-8", "backslashreplace", line_buffering=True)
        self.mode = "w"  # type: ignore[misc]
        self._descriptor = descriptor
        self._marks = marks

    def write(self, text: str) -> int:
        """As of every stream."""
        with suppress(OSError):
            self._marks.speaks(self._descriptor)
        return super().write(text)


def install(marks: Marks) -> None:
    """Make lines leave as they are written, marked, in one encoding, whatever the env's locale."""
    sys.stdout = sys.__stdout__ = _Marked(1, marks)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _Marked(2, marks)  # type: ignore[misc]


def flush() -> None:
    """Hand over all that was written, by Python and by C."""
    flush_c()
    for name in ("stdout", "stderr"):
        stream, own = getattr(sys, name), getattr(sys, "__%s__" % name)
        for each in (own,) if stream is own else (stream, own):
            with suppress(Exception):  # a body may have closed or replaced it
                each.flush()


def restore() -> None:
    """Undo a body's redirections."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
