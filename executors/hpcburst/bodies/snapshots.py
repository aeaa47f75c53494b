"""Copies of large buffers, made at the speed of memory."""

from __future__ import annotations

import mmap
import pickle
from contextlib import suppress
from typing import Any

LARGE_BYTES = 1 << 20
"""From here on a mapping of its own is cheaper than an object on the heap."""


class Snapshot(mmap.mmap):
    """Private memory in large pages: filling ordinary pages takes longer than copying into them.

    It pickles as a buffer, out of band where the pickler can, and arrives as a memoryview.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return memoryview, (pickle.PickleBuffer(self) if protocol >= 5 else self[:],)


def snapshot(view: memoryview) -> Any:
    """A copy of a flat view of bytes that later changes do not reach; bytes-like."""
    if view.nbytes < LARGE_BYTES:
        return bytes(view)
    copy = Snapshot(-1, view.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError, AttributeError):  # without large pages it is slower, not wrong
        copy.madvise(mmap.MADV_HUGEPAGE)
    memoryview(copy)[:] = view
    return copy
