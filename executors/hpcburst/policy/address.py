"""The address of this machine that nodes reach. Sends nothing."""

from __future__ import annotations

import fcntl
import socket
import struct

from hpcburst.errors import SiteError

LOOPBACK = "127.0.0.1"
"""Reached by this machine alone: all that the embedded queue needs."""

_ELSEWHERE = ("192.0.2.1", 9)
"""An address of nobody (RFC 5737): which of ours would be used to go there is what we ask."""

_GET_ADDRESS = 0x8915  # SIOCGIFADDR


def usual_address() -> str:
    """The address that packets to other machines leave from, or the one of this host's name.

    `LOOPBACK` on a machine that has no other.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        try:
            ours.connect(_ELSEWHERE)  # a datagram socket sends nothing when it is connected
            return str(ours.getsockname()[0])
        except OSError:
            pass
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return LOOPBACK


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface, such as `ib0`.

    Raises:
        SiteError: There is no such interface, or it has no address.
    """
    name = interface.encode()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            row = fcntl.ioctl(ours.fileno(), _GET_ADDRESS, struct.pack("256s", name[:15]))
    except OSError as error:
        known = ", ".join(known for _, known in socket.if_nameindex())
        raise SiteError(
            f"hpcburst.interface is {interface!r}",
            f"it has no address: {error.strerror}",
            f"this machine's interfaces are {known}",
        ) from error
    return socket.inet_ntoa(row[20:24])
