"""Start and end the two processes, and ask the server whether it is well."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from hpcburst.errors import SiteError
from hpcburst_recipes.prefect_server.place import Process

START_S = 300.0
"""Seconds a server or worker gets until it answers; it takes ten on a quiet machine."""

STOP_S = 15.0
"""Seconds between SIGTERM and SIGKILL."""

ANSWER_S = 5.0
TAIL_BYTES = 3000
TRIES = 50

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LOCAL, _STATE, _OWNER = 1, 3, 7
_LISTENS = "0A"


def start(words: Sequence[str], variables: Mapping[str, str], log: Path) -> Process:
    """Start `python -m prefect WORDS` in a session of its own; it outlives us.

    Args:
        words: Its arguments; no secret among them.
        variables: Its environment.
        log: What it writes is added there.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "ab") as written:
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
            cwd=log.parent,
        )
    return Process.of(child.pid)


def stop(process: Process) -> None:
    """End a process and wait until it is gone. Idempotent."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if process.lives():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signum)
            _wait(lambda: not process.lives(), STOP_S)


def await_answer(process: Process, answers: Callable[[], object], name: str, log: Path) -> None:
    """Wait until a process that was just started answers.

    Raises:
        SiteError: It ended, or does not answer in time.
    """
    if _wait(lambda: answers() or not process.lives(), START_S) and process.lives():
        return
    found = f"no answer within {START_S:g} s" if process.lives() else "it ended at once"
    stop(process)
    raise SiteError(
        f"The Prefect {name} was started",
        found,
        log=str(log),
        tail=log.read_bytes()[-TAIL_BYTES:].decode(errors="replace"),
    )


def is_well(url: str) -> bool:
    """Whether a server answers there; whose it is, is not asked."""
    return ask(url, "health") is not None


def is_ours(port: int) -> bool:
    """Whether all that listens on a port of this machine belongs to this user."""
    owners = [
        fields[_OWNER]
        for table in _TABLES
        for fields in map(str.split, _lines(table))
        if fields[_STATE] == _LISTENS and fields[_LOCAL].endswith(f":{port:04X}")
    ]
    return bool(owners) and set(owners) == {str(os.getuid())}


def pool_is_ready(url: str, pool: str, secret: str) -> bool:
    """Whether a worker of this pool is at work."""
    told = ask(url, f"work_pools/{pool}", secret)
    return isinstance(told, dict) and told.get("status") == "READY"


def ask(url: str, path: str, secret: str = "") -> Any:
    """What the API says; None if it says nothing."""
    request = Request(f"{url}/{path}")  # noqa: S310 - the scheme is ours: http
    if secret:
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    try:
        with urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 - see above
            return json.load(answer)
    except (URLError, OSError, ValueError):
        return None


def free_port(address: str, first: int) -> int:
    """The first port from there on that nobody listens on.

    Raises:
        SiteError: There is none nearby, or the address is not this machine's.
    """
    for port in range(first, first + TRIES):
        try:
            with socket.create_server((address, port), family=_family(address)):
                return port
        except OSError as error:
            found = error
    raise SiteError(
        f"A port of {address} was looked for from {first} on",
        f"none can be had: {found}",
        "say --host with an address of this machine, or --port",
    )


def _family(address: str) -> socket.AddressFamily:
    return socket.getaddrinfo(address, None)[0][0]


def _lines(table: str) -> list[str]:
    try:
        return Path(table).read_text().splitlines()[1:]
    except OSError:  # no IPv6 here
        return []


def _wait(condition: Callable[[], object], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
