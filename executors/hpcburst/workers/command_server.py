"""Warm servers on the pilot: a process that has imported a module once and forks for each command.

The protocol is JSON lines over an inherited socket. The server says `{"ready": true, "pid": N}`
when it is warm. We send `{"id", "argv", "cwd", "environ", "log"}`; it answers `{"id", "pid"}` when
the command runs and `{"id", "returncode", "cpu_s", "max_rss_mb"}` when it has ended, in any order.
`{"id", "kill": true}` ends one; closing the socket ends all. A front end brings the server as a
module (`python -m MODULE --fd N`); the core knows nothing of what it is warm with.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hpcburst.tasks import Command

READY_TIMEOUT_S = 60.0
"""A server that is not warm by now (a cold shared file system is slow) is taken for broken."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: exit status (negative: the signal), CPU seconds, peak memory in MB."""

    returncode: int
    cpu_s: float = 0.0
    max_rss_mb: float = 0.0


@dataclass(slots=True)
class _Served:
    """One command on a server, with the verbs of a process."""

    server: _Server
    number: int
    done: threading.Event = field(default_factory=threading.Event)
    end: Ended = Ended(-signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        return self.done.wait(timeout_s)

    def kill(self, signum: int) -> None:  # noqa: ARG002 - the server has its own escalation
        if not self.done.is_set():
            self.server.send({"id": self.number, "kill": True})

    def ended(self) -> Ended:
        self.done.wait()
        return self.end

    def close(self) -> None:
        if not self.done.is_set():
            self.kill(signal.SIGKILL)
            self.done.wait(timeout=10)


class CommandServers:
    """The pilot's warm servers, one a module, started at first use."""

    def __init__(self) -> None:
        self._servers: dict[str, _Server] = {}
        self._lock = threading.Lock()

    def start(self, command: Command) -> _Served:
        """Run a command on the server it names.

        Raises:
            OSError: The server does not start.
        """
        module = str(command.server)
        with self._lock:
            server = self._servers.get(module)
            if server is None or not server.alive:
                server = self._servers[module] = _Server(module, dict(command.environ))
        return server.run(command)

    def close(self) -> None:
        """End all servers and what runs on them. Idempotent."""
        with self._lock:
            servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            server.close()


class _Server:
    def __init__(self, module: str, environ: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--fd", str(theirs.fileno())],
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._socket = ours
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._running: dict[int, _Served] = {}
        self._is_over = False
        self._lines = ours.makefile("r", encoding="utf-8")
        self._await_ready(module)
        threading.Thread(target=self._listen, name=f"hpcburst-{module}", daemon=True).start()

    @property
    def alive(self) -> bool:
        return not self._is_over and self._process.poll() is None

    def run(self, command: Command) -> _Served:
        with self._lock:
            if self._is_over:  # it died between our look and now
                raise OSError("the warm server has ended; see the pilot's log")
            served = _Served(self, next(self._numbers))
            self._running[served.number] = served
        self.send(
            {
                "id": served.number,
                "argv": list(command.argv),
                "cwd": command.cwd,
                "environ": dict(command.environ),
                "log": command.log,
            }
        )
        return served

    def send(self, message: dict[str, Any]) -> None:
        # A dead server is heard of by the listener, which ends all that ran on it.
        with self._lock, suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._lines.close()
        self._socket.close()

    def _await_ready(self, module: str) -> None:
        self._socket.settimeout(READY_TIMEOUT_S)
        try:
            line = self._lines.readline()
        except TimeoutError:
            line = ""
        if not line:
            self.close()
            raise OSError(f"the warm server {module} did not start; see the pilot's log")
        self._socket.settimeout(None)

    def _listen(self) -> None:
        # One that answers what is no answer has died, for us: nobody must wait for it.
        with suppress(OSError, ValueError, TypeError, LookupError):
            for line in self._lines:
                self._hear(json.loads(line))
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._is_over = True
            lost, self._running = list(self._running.values()), {}
        for served in lost:
            served.done.set()

    def _hear(self, message: dict[str, Any]) -> None:
        if "returncode" not in message:
            return
        with self._lock:
            served = self._running.pop(message["id"], None)
        if served is not None:
            served.end = Ended(
                message["returncode"], message.get("cpu_s", 0.0), message.get("max_rss_mb", 0.0)
            )
            served.done.set()
