"""Join standard input and output to a unix socket: `relay.py SOCKET`, run on the socket's node.

It reaches a session where ssh forwards nothing. A program; the standard library alone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

BLOCK = 65536


def main(argv: list[str]) -> int:
    """Relay until either side ends."""
    far = socket.socket(socket.AF_UNIX)
    far.connect(argv[0])
    threading.Thread(target=_send, args=(far,), daemon=True).start()
    while block := far.recv(BLOCK):
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    return 0


def _send(far: socket.socket) -> None:
    while block := os.read(0, BLOCK):
        far.sendall(block)
    far.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
