"""What a body takes: time, CPU and memory, read from descriptors that stay open."""

from __future__ import annotations

import os
import resource
import struct
import time
from contextlib import suppress

USAGE = struct.Struct("<4d")
"""Seconds since the epoch, elapsed seconds, CPU seconds, peak of resident memory in MB (10^6 bytes)
or 0.0 if it cannot be read: the fields of `hpcburst.results.Usage`."""

SHORT_S = 0.001
"""In so short a time memory has no peak to speak of; it is enough to know about what it is now."""

FRESH_S = 0.1
"""How long that is known without asking the system again."""

_PAGE_MB = resource.getpagesize() / 1e6
_READ_BYTES = 4096


class Meter:
    """Measures one call after the other."""

    def __init__(self) -> None:
        self._forget = _opened("/proc/self/clear_refs", os.O_WRONLY)
        self._status = _opened("/proc/self/status", os.O_RDONLY)
        self._statm = _opened("/proc/self/statm", os.O_RDONLY)
        self._begun = (0.0, 0.0, 0.0)
        self._children_s = _children_s()
        self._has_peak = True
        self._size_mb, self._size_until = 0.0, 0.0

    def begin(self) -> None:
        """Count from here."""
        if self._has_peak and self._forget >= 0:  # of an earlier body
            with suppress(OSError):
                os.write(self._forget, b"5")
            self._has_peak = False
        self._begun = (time.time(), time.perf_counter(), time.process_time())

    def end(self) -> bytes:
        """What was taken since `begin`, as `USAGE` packs it."""
        started_at, wall, cpu = self._begun
        now = time.perf_counter()
        children_s, self._children_s = self._children_s, _children_s()
        cpu_s = time.process_time() - cpu + self._children_s - children_s
        size_mb = self._peak_mb() if now - wall > SHORT_S else self._about_mb(now)
        return USAGE.pack(started_at, now - wall, cpu_s, size_mb)

    def _peak_mb(self) -> float:
        """Not `ru_maxrss`: Linux counts the pilot's own peak into it, from before our start."""
        self._has_peak = True
        self._size_until = 0.0
        status = _read(self._status)
        at = status.find(b"VmHWM:") + 6
        end = status.find(b"kB", at)
        return int(status[at:end]) * 1024 / 1e6 if 6 <= at < end else 0.0

    def _about_mb(self, now: float) -> float:
        if now > self._size_until:
            fields = _read(self._statm).split()
            self._size_mb = int(fields[1]) * _PAGE_MB if fields else 0.0
            self._size_until = now + FRESH_S
        return self._size_mb


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _opened(path: str, flags: int) -> int:
    try:
        return os.open(path, flags)
    except OSError:
        return -1


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, _READ_BYTES, 0) if descriptor >= 0 else b""
    except OSError:
        return b""
