"""Values kept in files on the shared file system: one body leaves them, later ones map them.

A file holds a head, the length of each part, and the parts: the payload of `values.dumps`, then
its buffers. They begin at round places, so that arrays over a mapping of the file are aligned.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from contextlib import suppress
from typing import Any, Iterable, Sequence

LARGE_BYTES = 4 * 1000 * 1000
"""Values of this size and more are kept: a file costs a shared file system some milliseconds."""

_MAGIC = b"hpcburst"
_HEAD = struct.Struct("<8sQ")  # magic, number of parts
_LENGTH = struct.Struct("<Q")
_ALIGN = 64
_CHUNK_BYTES = 8 * 1024 * 1024


def write(folder: str, payload: bytes, buffers: Iterable[Any]) -> tuple[str, int, str]:
    """Keep a value in a new file of a folder, closed to others.

    Args:
        folder: A private folder that every node sees.
        payload: What `values.dumps` gave.
        buffers: Its large buffers.

    Returns:
        Path of the file, its bytes, and a digest of what it holds.

    Raises:
        OSError: There is no room, or no such folder; nothing is left behind.
    """
    parts = [memoryview(payload), *(memoryview(buffer).cast("B") for buffer in buffers)]
    name = os.urandom(12).hex()
    aside, path = os.path.join(folder, "." + name), os.path.join(folder, name)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            size, digest = _write(file, parts)
        os.rename(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
    return path, size, digest


def read(path: str) -> tuple[memoryview, list[memoryview]]:
    """The payload and the buffers of a kept value.

    They are views of a private mapping: what is written to them stays in this process, and what is
    not looked at is not read.

    Raises:
        OSError: There is no such file.
        ValueError: It holds no value, or not the whole of one.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _HEAD.size:
            raise ValueError("{} is no kept value".format(path))
        mapped = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE)
    whole = memoryview(mapped)
    magic, count = _HEAD.unpack_from(whole)
    begin = _HEAD.size + count * _LENGTH.size
    if magic != _MAGIC or begin > size:
        raise ValueError("{} is no kept value".format(path))
    lengths = [row[0] for row in _LENGTH.iter_unpack(whole[_HEAD.size : begin])]
    places = _places(begin, lengths)
    if places[-1] + lengths[-1] > size:
        raise ValueError("{} is cut off".format(path))
    parts = [whole[at : at + length] for at, length in zip(places, lengths)]  # noqa: B905 - 3.8
    return parts[0], parts[1:]


def _write(file: Any, parts: Sequence[memoryview]) -> tuple[int, str]:
    lengths = [part.nbytes for part in parts]
    table = b"".join(map(_LENGTH.pack, lengths))
    head = _HEAD.pack(_MAGIC, len(parts)) + table
    digest = hashlib.blake2b(head, digest_size=32)
    _write_all(file, memoryview(head))
    at = len(head)
    for place, part in zip(_places(at, lengths), parts):  # noqa: B905 - 3.8
        _write_all(file, memoryview(bytes(place - at)))
        for begin in range(0, part.nbytes, _CHUNK_BYTES):
            chunk = part[begin : begin + _CHUNK_BYTES]
            digest.update(chunk)
            _write_all(file, chunk)
        at = place + part.nbytes
    return at, digest.hexdigest()


def _write_all(file: Any, chunk: memoryview) -> None:
    while chunk.nbytes:
        chunk = chunk[file.write(chunk) :]


def _places(begin: int, lengths: Iterable[int]) -> list[int]:
    """Where parts of these lengths begin."""
    places, at = [], begin
    for length in lengths:
        at += -at % _ALIGN
        places.append(at)
        at += length
    return places
