"""Memory without a name that two processes share: large parts of messages lie in it.

No name means nothing to leave behind, however either side dies. The size is sealed where the system
can, so that nobody can shrink it under a reader; what is not sealed is copied out instead.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from typing import Any, Iterable, Sequence

from .native import memfd_create

_ALIGN = 64
_AT_ONCE_BYTES = 1 << 30
"""Linux reads and writes at most 2 GiB at once."""

# Linux's own numbers: Pythons built for an old C library do not name them.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALED = 2 | 4  # neither shrink nor grow
_SEALABLE = 1 | 2  # close on exec, allow sealing


class Segment:
    """One piece of shared memory, seen from one side. Not for several threads at once.

    Args:
        descriptor: The memory, which the segment owns from now on.
        size: Its bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self._map: mmap.mmap | None = None

    @classmethod
    def make(cls, size: int) -> Segment | None:
        """Fresh memory, or None where the system gives none of this kind."""
        descriptor = _anonymous_memory()
        if descriptor < 0:
            return None
        try:
            os.ftruncate(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        _seal(descriptor)
        return cls(descriptor, size)

    def fill(self, views: Iterable[memoryview]) -> list[int]:
        """Put views into it one after the other.

        Returns:
            Where each begins.
        """
        offsets, offset = [], 0
        for view in views:
            self._put(view, offset)
            offsets.append(offset)
            offset += _padded(view.nbytes)
        return offsets

    def parts(self, rows: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Writable views of what lies in it; copies where its size is not sealed.

        Args:
            rows: Bytes of each part, and where it begins.

        Raises:
            EOFError: A part lies outside.
        """
        if os.fstat(self.descriptor).st_size < self.size or any(
            offset < 0 or offset + length > self.size for length, offset in rows
        ):
            raise EOFError("the shared memory is smaller than announced")
        if not self.sealed:
            return [memoryview(_pread(self.descriptor, *row)) for row in rows]
        return [self.view(offset, length) for length, offset in rows]

    def view(self, offset: int, size: int) -> memoryview:
        """A writable view of a piece of it."""
        return memoryview(self._mapped())[offset : offset + size]

    def offset_of(self, view: memoryview) -> int | None:
        """Where a view lies in it; None if it does not, or nobody can tell."""
        if self._map is None or view.readonly:
            return None
        try:
            import ctypes

            begin, base = (
                ctypes.addressof(ctypes.c_char.from_buffer(thing)) for thing in (view, self._map)
            )
        except (ImportError, TypeError, ValueError, BufferError):
            return None
        offset = begin - base
        return offset if offset >= 0 and offset + view.nbytes <= self.size else None

    @property
    def sealed(self) -> bool:
        """Whether nobody can change its size any more."""
        try:
            return fcntl.fcntl(self.descriptor, _GET_SEALS) & _SEALED == _SEALED
        except OSError:
            return False

    @property
    def unused(self) -> bool:
        """Whether nothing on this side looks into it."""
        if self._map is None:
            return True
        try:
            self._map.resize(self.size)  # refused while there are views; changes nothing otherwise
        except (BufferError, OSError, SystemError, ValueError):
            return False
        return True

    @property
    def left_alone(self) -> bool:
        """Whether it is unused here and no child of this process can be looking into it either."""
        if not self.unused:
            return False
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # there is none
            return True
        return False

    def close(self) -> None:
        """Let go of it; views of it stay valid. Idempotent."""
        self._map = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            self._map = mmap.mmap(self.descriptor, self.size)
        return self._map

    def _put(self, view: memoryview, offset: int) -> None:
        """Into mapped memory by copy; into fresh memory by writing: no zeroing, no faults."""
        if self._map is not None:
            memoryview(self._map)[offset : offset + view.nbytes] = view
            return
        done = 0
        while done < view.nbytes:
            piece = view[done : done + _AT_ONCE_BYTES]
            done += os.pwrite(self.descriptor, piece, offset + done)


def room_for(views: Iterable[Any]) -> int:
    """Bytes of a segment that holds these parts."""
    return sum(_padded(view.nbytes) for view in views)


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _pread(descriptor: int, length: int, offset: int) -> bytearray:
    got = bytearray(length)
    view, at = memoryview(got), 0
    while at < length:
        count = os.preadv(descriptor, [view[at : at + _AT_ONCE_BYTES]], offset + at)
        if not count:
            raise EOFError("the shared memory is shorter than announced")
        at += count
    return got


def _anonymous_memory() -> int:
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create("hpcburst", _SEALABLE)
        descriptor = memfd_create("hpcburst", _SEALABLE)
        if descriptor >= 0:
            return descriptor
        return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)  # noqa: S108 - no name
    except OSError:
        return -1


def _seal(descriptor: int) -> None:
    with suppress(OSError):  # else it will be copied
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALED)
