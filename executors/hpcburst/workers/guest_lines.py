"""What a guest writes, as lines."""

from __future__ import annotations

import codecs
import os
import time
from typing import TYPE_CHECKING

from hpcburst.results import Line

if TYPE_CHECKING:
    from collections.abc import Callable

TAIL_BYTES = 8192
"""How much of it is kept to tell why an interpreter died."""

LINE_CHARS = 65536
"""A longer line is cut: something else than lines is being written."""

_READ_BYTES = 65536
_READS = 16  # as much as the largest pipe holds: a body that never stops writing is still stopped


class LineReader:
    """One output of a guest during one call.

    Args:
        descriptor: Non-blocking; not closed here.
        name: "stdout" or "stderr".
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._tail = b""

    @property
    def tail(self) -> str:
        """The end of what was written."""
        return self._tail.decode("utf-8", "replace").strip()

    def read(self, on_line: Callable[[Line], None] | None) -> bool:
        """Give on all that a pipe can hold; drop it if there is nobody to give it to.

        Returns:
            False at the end of the stream.
        """
        for _ in range(_READS):
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            if on_line is not None:
                self._take(data, on_line)
        return True

    def end(self, on_line: Callable[[Line], None]) -> None:
        """Give on the last line, if it has no end."""
        self._split(self._decoder.decode(b"", final=True) + "\n" if self._rest else "", on_line)

    def _take(self, data: bytes, on_line: Callable[[Line], None]) -> None:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        self._split(self._decoder.decode(data), on_line)

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
