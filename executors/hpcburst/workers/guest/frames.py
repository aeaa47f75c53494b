"""Messages between pilot and guest over an inherited pair of sockets.

A message is a small dict of plain data and a list of byte parts. Parts of 32 KiB and more share
one segment of anonymous memory whose descriptor goes along: one copy in and none out. The guest
answers in the same segment when nothing there looks into it any more; parts that lie in it already
are not copied at all. Nothing here unpickles anything.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import threading
from typing import Any, Sequence

from .segments import Segment, room_for

LARGE_BYTES = 32 * 1024
"""Parts of this size and more go through shared memory; below, through the socket."""

# dict's bytes, number of parts, whose the segment is, bytes that follow, segment's bytes
_HEAD = struct.Struct("<IIIQQ")
_ROW = struct.Struct("<Qq")  # bytes of a part, where it begins in the segment or _INLINE
_INLINE = -1
_NO_SEGMENT, _GOES_ALONG, _YOURS = 0, 1, 2
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_READ_BYTES = 16 * 1024
_ONE_DESCRIPTOR = socket.CMSG_SPACE(array.array("i").itemsize)
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Channel:
    """One end of the line; both ends are alike.

    Args:
        sock: A connected stream socket, which the channel owns from now on.

    Attributes:
        lent: The segment we sent last.
        held: The segment that came with the last message, if one came.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._heard = b""
        self._descriptors: list[int] = []
        self._last_said: tuple[dict[str, Any], bytes] = ({}, b"{}")
        self._last_heard: tuple[dict[str, Any], bytes] = ({}, b"{}")
        self.lent: Segment | None = None
        self.held: Segment | None = None

    def fileno(self) -> int:
        """The socket's descriptor, to wait on while nothing is `pending`."""
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether a message was read already that waiting on the socket would not show."""
        return bool(self._heard)

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._sock.close()
        for segment in (self.lent, self.held):
            if segment is not None:
                segment.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def send(
        self, message: dict[str, Any], parts: Sequence[Any] = (), *, spare: Segment | None = None
    ) -> None:
        """Send a message; threads may call it at the same time as long as no part is large.

        Args:
            message: Plain data that JSON can say.
            parts: Bytes-like, contiguous.
            spare: Memory of at least `room_needed(parts)` bytes for the large parts; fresh memory
                is taken otherwise. It is `lent` then.

        Raises:
            OSError: The other end has gone.
        """
        views = [_flat(part) for part in parts]
        large = _large(views)
        segment = (spare or Segment.make(room_for(views[i] for i in large))) if large else None
        if segment is None:  # nothing is large, or the socket takes all
            self._post(message, views, {}, _NO_SEGMENT)
            return
        self.lent = segment
        places = dict(zip(large, segment.fill(views[i] for i in large)))  # noqa: B905 - 3.8
        self._post(message, views, places, _GOES_ALONG)

    def send_back(self, message: dict[str, Any], parts: list[Any]) -> None:
        """Answer the last message, in the memory that it came in where that can be.

        `message["free"]` tells the other end whether that memory may be used again.

        Args:
            message: Plain data that JSON can say.
            parts: Bytes-like, contiguous, known to the caller by this list only; it is emptied.

        Raises:
            OSError: The other end has gone.
        """
        views = [_flat(part) for part in parts]
        del parts[:]
        held, self.held = self.held, None
        try:
            places = None if held is None else self._places_in(held, views, message)
            if places is None:
                self.send(message, views)
            else:
                self._post(message, views, places, _YOURS if places else _NO_SEGMENT)
        finally:
            for segment in (held, self.lent):
                if segment is not None:
                    segment.close()
            self.lent = None

    def returned(self, *, free: bool) -> list[Segment]:
        """After a reply: the segments that nobody at the other end looks into.

        Args:
            free: What the reply said of the segment that we lent.
        """
        lent, held = self.lent, self.held
        self.lent = self.held = None
        if lent is not None and not free:
            lent.close()
            lent = None
        return [segment for segment in (lent, held) if segment is not None]

    def recv(self) -> tuple[dict[str, Any], list[Any]]:
        """Wait for the next message.

        Returns:
            The message and its parts. Large parts are writable views of the shared memory, which
            lives as long as they do.

        Raises:
            EOFError: The other end has gone.
            OSError: It has gone in the middle of a message.
            ValueError: What it sends is no message.
        """
        heard = self._heard or self._hear(_READ_BYTES)
        while len(heard) < _HEAD.size:
            heard += self._hear(_READ_BYTES)
        size, count, whose, follows, total = _HEAD.unpack_from(heard)
        end = _HEAD.size + follows
        if len(heard) < end:
            heard = self._hear_until(heard, end)
        self._heard = heard[end:]
        at = _HEAD.size + count * _ROW.size
        if at + size > end:
            raise ValueError("that is no message")
        self.held = self._segment(whose, total) if whose else None
        message = self._decoded(heard[at : at + size])
        rows = list(_ROW.iter_unpack(heard[_HEAD.size : at]))
        return message, _in_order(rows, heard[:end], at + size, self.held)

    # --- sending ---------------------------------------------------------------------------------

    def _places_in(
        self, held: Segment, views: list[Any], message: dict[str, Any]
    ) -> dict[int, int] | None:
        """Where the large parts are in memory that the other end gave; None if they cannot be."""
        large = _large(views)
        found = {index: held.offset_of(views[index]) for index in large}
        inside = {index: offset for index, offset in found.items() if offset is not None}
        sizes = {index: views[index].nbytes for index in inside}
        for index, size in sizes.items():  # let go, to see whether anybody else looks into it
            views[index] = _Size(size)
        message["free"] = held.left_alone
        if message["free"] and len(inside) == len(large):
            return inside
        for index, offset in inside.items():
            views[index] = held.view(offset, sizes[index])
        if inside or not message["free"] or room_for(views[i] for i in large) > held.size:
            return None
        return dict(zip(large, held.fill(views[i] for i in large)))  # noqa: B905 - 3.8

    def _post(
        self, message: dict[str, Any], views: list[Any], places: dict[int, int], whose: int
    ) -> None:
        text = self._encoded(message)
        rows = [_ROW.pack(v.nbytes, places.get(i, _INLINE)) for i, v in enumerate(views)]
        inline = [v for i, v in enumerate(views) if i not in places] if places else views
        rest = b"".join([*rows, text, *inline])
        segment = self.lent if whose == _GOES_ALONG else None
        size = 0 if segment is None else segment.size
        data = _HEAD.pack(len(text), len(views), whose, len(rest), size) + rest
        with self._sending:
            sent = self._sock.send(data) if segment is None else self._send_along(data, segment)
            if sent < len(data):
                self._sock.sendall(memoryview(data)[sent:])

    def _send_along(self, data: bytes, segment: Segment) -> int:
        descriptors = array.array("i", [segment.descriptor])
        return self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])

    def _encoded(self, message: dict[str, Any]) -> bytes:
        """As JSON; most messages say what the last one said."""
        said, text = self._last_said
        if said != message:
            text = _encode(message).encode()
            self._last_said = (dict(message), text)
        return text

    def _decoded(self, text: bytes) -> dict[str, Any]:
        if text != self._last_heard[1]:
            said = json.loads(text.decode())
            if not isinstance(said, dict):
                raise ValueError("that is no message")
            self._last_heard = (said, text)
        return dict(self._last_heard[0])

    # --- receiving -------------------------------------------------------------------------------

    def _hear_until(self, heard: bytes, size: int) -> bytes:
        whole = bytearray(heard)
        while len(whole) < size:
            whole += self._hear(size - len(whole))
        return bytes(whole)

    def _hear(self, size: int) -> bytes:
        data, ancillary, _, _ = self._sock.recvmsg(min(size, 1 << 20), _ONE_DESCRIPTOR, _CLOEXEC)
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(raw[: len(raw) - len(raw) % descriptors.itemsize])
                self._descriptors.extend(descriptors)
        if not data:
            raise EOFError("the other end has hung up")
        return data

    def _segment(self, whose: int, total: int) -> Segment:
        if whose == _YOURS:
            segment, self.lent = self.lent, None
        else:
            segment = Segment(self._descriptors.pop(0), total) if self._descriptors else None
        if segment is None:
            raise EOFError("a message came without its memory")
        return segment


def room_needed(parts: Sequence[Any]) -> int:
    """Bytes of a segment that holds the large ones of some parts."""
    views = [_flat(part) for part in parts]
    return room_for(views[index] for index in _large(views))


class _Size:
    """Holds the place of a part that is not to be looked at."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def _flat(part: Any) -> Any:
    return memoryview(part).cast("B") if len(part) else memoryview(b"")


def _large(views: Sequence[Any]) -> list[int]:
    return [index for index, view in enumerate(views) if view.nbytes >= LARGE_BYTES]


def _in_order(rows: list[Any], stream: bytes, at: int, segment: Segment | None) -> list[Any]:
    """All parts as they were given: some came in the stream, some in the segment."""
    lying = [row for row in rows if row[1] != _INLINE]
    if lying and segment is None:
        raise ValueError("a message came without its memory")
    shared = iter(segment.parts(lying) if segment else ())
    parts: list[Any] = []
    for length, offset in rows:
        if offset == _INLINE:
            parts.append(stream[at : at + length])
            at += length
            if at > len(stream):
                raise ValueError("a part is longer than its message")
        else:
            parts.append(next(shared))
    return parts
