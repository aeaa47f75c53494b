"""Calls into the C library that not every Python offers; all do without where they must."""

from __future__ import annotations

import os
import signal
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent: a body may hold the interpreter for long.

    The kernel means the parent's thread; the pilot starts guests from one that lasts.

    Args:
        parent: Process id that `os.getppid` gives as long as the parent lives.
    """
    libc = _libc()
    if libc is None:
        return  # the lifeline is watched all the same
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(70)


def flush_c() -> None:
    """Write out what C code printed: its streams are fully buffered on a pipe."""
    libc = _libc()
    if libc is not None:
        libc.fflush(None)


def memfd_create(name: str, flags: int) -> int:
    """As `os.memfd_create`, which Pythons built for an old C library lack; -1 if there is none."""
    call = getattr(_libc(), "memfd_create", None)
    return -1 if call is None else int(call(name.encode(), flags))


_loaded: list[Any] = []


def _libc() -> Any:
    if not _loaded:
        try:
            import ctypes

            _loaded.append(ctypes.CDLL(None))
        except (ImportError, OSError):  # a Python built without libffi
            _loaded.append(None)
    return _loaded[0]
