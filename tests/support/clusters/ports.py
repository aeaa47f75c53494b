"""Ports on the loopback for clusters that start side by side."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from support.clusters.errors import ClusterError

FIRST, LAST = 16800, 32000
"""Below the ports that Linux gives to clients (32768 and up): none of those is in the way."""

STEP = 128


@contextmanager
def free_ports(count: int) -> Iterator[int]:
    """The first of `count` free ports in a row; no other start is given them while this lasts."""
    for first in range(FIRST, LAST - count, STEP):
        with ExitStack() as held, suppress(OSError):
            # Blocks are held by names of the kernel's: they leave no file and end with the holder.
            for block in range(first, first + count, STEP):
                holder = held.enter_context(socket.socket(socket.AF_UNIX))
                holder.bind(f"\0hpcburst-test-ports-{block}")
            for port in range(first, first + count):
                _check_free(port)
            yield first
            return
    raise ClusterError(f"no {count} free ports in a row between {FIRST} and {LAST}")


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemons do
        probe.bind(("127.0.0.1", port))
