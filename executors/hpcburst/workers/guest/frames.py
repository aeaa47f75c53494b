"""Messages between pilot and guest over an inherited pair of sockets.

A message is a small dict of plain data and a list of byte parts. Parts of 32 KiB and more share
one segment of anonymous memory whose descriptor goes along: one copy in, none out, and no name that
could stay behind. Nothing here unpickles anything.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import socket
import struct
import threading
from typing import Any, Sequence

LARGE_BYTES = 32 * 1024
"""Parts of this size and more go through shared memory; below, through the socket."""

_HEAD = struct.Struct("<IIQQ")  # dict's bytes, number of parts, bytes that follow, segment's bytes
_ROW = struct.Struct("<Q?")  # bytes of a part, whether it lies in the segment
_ALIGN = 64
_WRITE_BYTES = 1 << 30  # Linux writes at most 2 GiB at once
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """One end of the line; both ends are alike.

    Args:
        sock: A connected stream socket, which the channel owns from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._sock.fileno()

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._sock.close()

    def send(self, message: dict[str, Any], parts: Sequence[Any] = ()) -> None:
        """Send a message; threads may call it at the same time.

        Args:
            message: Plain data that JSON can say.
            parts: Bytes-like, contiguous.

        Raises:
            OSError: The other end has gone.
        """
        views = [memoryview(part).cast("B") if len(part) else memoryview(b"") for part in parts]
        segment, total = _segment([view for view in views if view.nbytes >= LARGE_BYTES])
        try:
            text = json.dumps(message).encode()
            shared = [segment >= 0 and view.nbytes >= LARGE_BYTES for view in views]
            stream = [_ROW.pack(view.nbytes, lies) for view, lies in zip(views, shared)]  # noqa: B905 - 3.8
            stream.append(text)
            stream += [bytes(view) for view, lies in zip(views, shared) if not lies]  # noqa: B905 - 3.8
            follows = sum(map(len, stream))
            head = _HEAD.pack(len(text), len(views), follows, total)
            with self._sending:
                self._write(b"".join([head, *stream]), segment)
        finally:
            if segment >= 0:
                os.close(segment)

    def recv(self, *, copy: bool = False) -> tuple[dict[str, Any], list[Any]]:
        """Wait for the next message.

        Args:
            copy: Whether large parts are `bytes` of their own; else they are writable views of
                the shared memory, which lives as long as they do.

        Raises:
            EOFError: The other end has gone.
            OSError: It has gone in the middle of a message.
        """
        head, descriptors = self._read_head()
        try:
            size, count, follows, total = _HEAD.unpack(head)
            rest = memoryview(self._read(follows))
            at = count * _ROW.size
            rows = list(_ROW.iter_unpack(rest[:at]))
            message = json.loads(bytes(rest[at : at + size]))
            shared = _parts(descriptors[0], rows, total, copy) if total else []
            return message, _in_order(rows, rest[at + size :], shared)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _write(self, stream: bytes, segment: int) -> None:
        along = []
        if segment >= 0:
            along = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [segment]))]
        sent = self._sock.sendmsg([stream], along)
        if sent < len(stream):
            self._sock.sendall(memoryview(stream)[sent:])

    def _read_head(self) -> tuple[bytearray, list[int]]:
        descriptors = array.array("i")
        space = socket.CMSG_SPACE(descriptors.itemsize)
        data, ancillary, _, _ = self._sock.recvmsg(_HEAD.size, space, _CLOEXEC)
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(raw[: len(raw) - len(raw) % descriptors.itemsize])
        if not data:
            raise EOFError("the other end has hung up")
        return bytearray(data) + self._read(_HEAD.size - len(data)), list(descriptors)

    def _read(self, size: int) -> bytearray:
        got = bytearray(size)
        view, at = memoryview(got), 0
        while at < size:
            count = self._sock.recv_into(view[at:])
            if not count:
                raise EOFError("the other end has hung up")
            at += count
        return got


def _in_order(rows: list[Any], inline: memoryview, shared: list[Any]) -> list[Any]:
    """All parts as they were given: some came in the stream, some in the segment."""
    parts, from_segment, at = [], iter(shared), 0
    for length, lies in rows:
        if lies:
            parts.append(next(from_segment))
        else:
            parts.append(bytes(inline[at : at + length]))
            at += length
    return parts


def _segment(views: list[memoryview]) -> tuple[int, int]:
    """A descriptor of anonymous memory that holds the views one after the other, and its size."""
    total = sum(_padded(view.nbytes) for view in views)
    descriptor = _anonymous_memory() if total else -1
    if descriptor < 0:
        return -1, 0
    try:
        os.ftruncate(descriptor, total)
        offset = 0
        for view in views:
            _fill(descriptor, view, offset)
            offset += _padded(view.nbytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, total


def _fill(descriptor: int, view: memoryview, offset: int) -> None:
    """Write, not map and copy: fresh pages need no zeroing and no faults then."""
    done = 0
    while done < view.nbytes:
        done += os.pwrite(descriptor, view[done : done + _WRITE_BYTES], offset + done)


def _parts(descriptor: int, rows: list[Any], total: int, copy: bool) -> list[Any]:
    parts: list[Any] = []
    offset = 0
    shared = None if copy else memoryview(mmap.mmap(descriptor, total))
    for length in (length for length, lies in rows if lies):
        if shared is None:
            parts.append(_pread(descriptor, length, offset))
        else:
            parts.append(shared[offset : offset + length])
        offset += _padded(length)
    return parts


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    first = os.pread(descriptor, length, offset)
    if len(first) == length:
        return first
    pieces = [first]
    got = len(first)
    while got < length:
        pieces.append(os.pread(descriptor, length - got, offset + got))
        if not pieces[-1]:
            raise EOFError("the shared memory is shorter than announced")
        got += len(pieces[-1])
    return b"".join(pieces)


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _anonymous_memory() -> int:
    """A descriptor of memory without a name; -1 if there is none, then the socket takes all."""
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create("hpcburst")
        # Pythons built for an old C library lack the call, though the machine has it.
        return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)  # noqa: S108 - no name
    except OSError:
        return -1
