"""Keep daemons on the loopback that listen on whatever address the machine's name has.

On a desktop that is a loopback address already, as /etc/hosts has it; on most servers and in most
containers it is the one that other machines know. There, a library for tests (nss_wrapper) gives
the daemons, and nobody else, another /etc/hosts. There, sbatch and all that asks works as anywhere,
but srun does not: it listens too, where the machine's name leads, and is not found.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

LIBRARY = "/usr/lib/*/libnss_wrapper.so"
PACKAGE = "libnss-wrapper"
LOOPBACK = "127.0.0.1"


def host_name() -> str:
    """The name of this machine, without its domain."""
    return socket.gethostname().split(".")[0]


def own_address() -> str:
    """The address on the loopback that this machine's name has; empty when it has none there."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
    return address if ipaddress.ip_address(address).is_loopback else ""


def packages() -> dict[str, str]:
    """What must be installed for it on this machine: package by file."""
    return {} if own_address() else {LIBRARY: PACKAGE}


def environ(folder: Path) -> dict[str, str]:
    """Variables for daemons with which this machine's name has a loopback address.

    Args:
        folder: Where the table of hosts is written when one is needed.
    """
    if own_address():
        return {}
    names = {socket.gethostname(), host_name(), "localhost"}
    table = folder / "hosts"
    table.write_text(f"{LOOPBACK} {' '.join(sorted(names))}\n")
    (library, *_) = map(str, Path("/").glob(LIBRARY[1:]))
    return {"LD_PRELOAD": library, "NSS_WRAPPER_HOSTS": str(table)}
