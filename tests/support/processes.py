"""See which processes of ours are there, and wait for a condition."""

from __future__ import annotations

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


def wait_until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    """Wait for a condition; fail with `what` when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {within_s:g} s")
        time.sleep(0.02)
