"""See which processes of ours are there, and wait for a condition."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

OURS = ("hpcburst.workers.pilot", "jobs/localqueue.py", "hpcburst_guest", "hpcburst.zygote")


def ours(mark: str = "") -> dict[int, str]:
    """Live processes of hpcburst's: pid to command line. `mark` must occur in it too."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                command = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z" and mark in command and any(word in command for word in OURS):
                    found[int(entry.name)] = command
    return found


def marked(variable: str) -> dict[int, str]:
    """Live processes that carry `variable` ("NAME=value") in their environment: what we started."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z" and variable.encode() in (entry / "environ").read_bytes().split(
                    b"\0"
                ):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode(errors="replace")
    return found


def below(pid: int) -> list[int]:
    """A process and all processes that it and they have started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """Addresses and ports that processes listen on."""
    held = descriptors(pids)
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
                address, port = fields[1].split(":")
                found.add((_address(address), int(port, 16)))
    return found


def descriptors(pids: list[int]) -> set[str]:
    """What the open descriptors of processes lead to."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    found.add(str(entry.readlink()))
    return found


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(words) == 4 else socket.AF_INET6, words)


def wait_until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    """Wait for a condition; fail with `what` when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {within_s:g} s")
        time.sleep(0.02)
