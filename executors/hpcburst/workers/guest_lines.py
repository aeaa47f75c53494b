"""What a guest writes and logs, as lines in the order in which it did."""

from __future__ import annotations

import codecs
import heapq
import os
import re
import time
from typing import TYPE_CHECKING

from hpcburst.results import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TAIL_BYTES = 8192
"""How much of it is kept to tell why an interpreter died."""

LINE_CHARS = 65536
"""A longer line is cut: something else than lines is being written."""

_READ_BYTES = 65536
_READS = 16  # as much as the largest pipe holds: a body that never stops writing is still stopped
_MARK_BYTES = 40  # the longest mark is shorter
_EVER = 1 << 62


class Transcript:
    """Both outputs of a guest and its log records, one call after the other.

    The guest puts the same numbered marks into both outputs (`guest.streams`). What stands after a
    mark is told when both outputs have reached it and its log record is here: nothing that was said
    earlier can follow then.

    Args:
        outputs: Descriptors, non-blocking, not closed here; and "stdout" or "stderr".
    """

    def __init__(self, outputs: Mapping[int, str]) -> None:
        self._outputs = {fd: _Output(fd, name) for fd, name in outputs.items()}
        self._waiting: list[tuple[int, bool, int, _Output | Line, bytes]] = []  # a heap
        self._count = 0
        self._last_log = 0
        self._awaited: set[int] = set()  # marks whose log record is on its way
        self._on_line: Callable[[Line], None] | None = None

    def expect(self, token: str) -> None:
        """Know the guest's marks by the token it told."""
        for output in self._outputs.values():
            output.expect(token)

    def begin(self, on_line: Callable[[Line], None]) -> None:
        """A call begins; `on_line` gets its lines and must not raise."""
        self._on_line = on_line
        for output in self._outputs.values():
            output.tail = b""

    def read(self, descriptor: int) -> bool:
        """Take what a pipe holds, and tell what has its place; drop it between calls.

        Returns:
            False at the end of the stream.
        """
        output = self._outputs[descriptor]
        open_still = output.read()
        for number, is_log, data in output.pieces():
            if is_log and number > self._last_log:
                self._awaited.add(number)
            self._add(number, output, data)
        self._tell(self._settled())
        return open_still

    def log(self, number: int, line: Line) -> None:
        """Take a log record, and tell what has its place."""
        self._last_log = number
        self._awaited = {mark for mark in self._awaited if mark > number}
        self._add(number, line, b"")
        self._tell(self._settled())

    def end(self) -> None:
        """The call has ended: tell all that is left, also a last line without an end."""
        for output in self._outputs.values():
            for number, _, data in output.pieces(to_the_end=True):
                self._add(number, output, data)
        self._tell(_EVER)
        if self._on_line is not None:
            for output in self._outputs.values():
                output.finish(self._on_line)
        self._on_line = None
        self._awaited.clear()

    @property
    def last_errors(self) -> str:
        """The end of what was written to stderr."""
        tails = [output.tail for output in self._outputs.values() if output.name == "stderr"]
        return b"".join(tails).decode("utf-8", "replace").strip()

    def _add(self, number: int, what: _Output | Line, data: bytes) -> None:
        """Keep a piece for its turn: a log record comes right at its mark, text after it."""
        if self._on_line is not None and (data or isinstance(what, Line)):
            self._count += 1
            row = (number, isinstance(what, _Output), self._count, what, data)
            heapq.heappush(self._waiting, row)

    def _settled(self) -> int:
        """The last mark before which nothing new can turn up."""
        reached = min((output.reached for output in self._outputs.values()), default=_EVER)
        return min([reached, *(number - 1 for number in self._awaited)])

    def _tell(self, settled: int) -> None:
        while self._waiting and self._waiting[0][0] <= settled:
            *_, what, data = heapq.heappop(self._waiting)
            if self._on_line is None:
                continue
            if isinstance(what, Line):
                self._on_line(what)
            else:
                what.tell(data, self._on_line)


class _Output:
    """One of the two pipes.

    Attributes:
        name: "stdout" or "stderr".
        reached: Number of the last mark read.
        tail: The end of what was written in this call.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.reached = 0
        self.tail = b""
        self._descriptor = descriptor
        self._mark: re.Pattern[bytes] | None = None
        self._begins = b""
        self._raw = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def expect(self, token: str) -> None:
        """Know marks with this token."""
        self._begins = b"\0%b:" % token.encode()
        self._mark = re.compile(re.escape(self._begins) + rb"(\d+)(L?)\0")

    def read(self) -> bool:
        """Take what the pipe holds; False at its end."""
        chunks = [self._raw]
        open_still = True
        for _ in range(_READS):
            try:
                chunks.append(os.read(self._descriptor, _READ_BYTES))
            except BlockingIOError:
                break
            open_still = bool(chunks[-1])
            if len(chunks[-1]) < _READ_BYTES:
                break
        self._raw = b"".join(chunks)
        if not open_still:
            self.reached = _EVER
        return open_still

    def pieces(self, *, to_the_end: bool = False) -> list[tuple[int, bool, bytes]]:
        """What was read, cut at the marks: the mark before it, whether that is a log record's."""
        if not self._raw:
            return []
        found, at, is_log = [], 0, False
        for mark in self._mark.finditer(self._raw) if self._mark else ():
            found.append((self.reached, is_log, self._raw[at : mark.start()]))
            self.reached, is_log, at = int(mark[1]), bool(mark[2]), mark.end()
        keep = 0 if to_the_end else self._unfinished(at)
        found.append((self.reached, is_log, self._raw[at : len(self._raw) - keep]))
        self._raw = self._raw[len(self._raw) - keep :]
        self.tail = (self.tail + b"".join(data for *_, data in found))[-TAIL_BYTES:]
        return found

    def _unfinished(self, at: int) -> int:
        """Bytes at the end that may be the beginning of a mark."""
        begin = self._raw.rfind(b"\0", max(at, len(self._raw) - _MARK_BYTES))
        if begin < 0 or self._mark is None:
            return 0
        end = self._raw[begin:]
        may_be = self._begins.startswith(end[: len(self._begins)])
        return len(end) if may_be else 0

    def tell(self, data: bytes, on_line: Callable[[Line], None]) -> None:
        """Give on whole lines."""
        self._split(self._decoder.decode(data), on_line)

    def finish(self, on_line: Callable[[Line], None]) -> None:
        """Give on the last line, if it has no end."""
        left = self._decoder.decode(b"", final=True)
        if left or self._rest:
            self._split(left + "\n", on_line)

    def _split(self, text: str, on_line: Callable[[Line], None]) -> None:
        *whole, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LINE_CHARS:
            whole.append(self._rest)
            self._rest = ""
        for line in whole:
            on_line(Line(_shown(line), self.name, time.time()))


def _shown(line: str) -> str:
    """What a terminal would show: progress bars write over themselves."""
    return line.rstrip("\r").rpartition("\r")[2][:LINE_CHARS]
