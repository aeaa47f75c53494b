"""The warm server a pilot starts once: it imports Snakemake, then forks for every nested call.

Its only door is a socket inherited from the pilot (`--fd N`), JSON lines both ways: `{"ready"}`
when warm; a request `{"id", "argv", "cwd", "environ", "log"}` is answered with `{"id", "pid"}` and,
when the call has ended, `{"id", "returncode", "cpu_s", "max_rss_mb"}`; `{"id", "kill": true}` ends
one call. When the socket closes every call is ended and so is the server. It starts no thread: a
fork of a threaded process may hang.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from snakemake_executor_plugin_hpcburst import fork, warmth

GRACE_S = 2.0
"""Seconds between asking a call to end and making it."""

NOT_FORKED = 71
"""Exit status of a call the node had no process for (EX_OSERR of sysexits.h)."""

_READ_BYTES = 1 << 16


@dataclass(slots=True)
class Child:
    """A call under way: process `pid` leads its session, `kill_at` is set once it must end."""

    request_id: int
    pid: int
    kill_at: float | None = None


@dataclass(slots=True)
class Zygote:
    """The server's loop. One thread; every event is a byte on a socket.

    Attributes:
        channel: The socket to the pilot.
        parent: Pid of the pilot.
        children: The calls under way, by pid.
    """

    channel: socket.socket
    parent: int
    children: dict[int, Child] = field(default_factory=dict)
    _received: bytes = b""
    _stopping: bool = False
    _conda: warmth.WarmConda = field(default_factory=warmth.WarmConda)
    _wakeup: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)

    def serve(self) -> None:
        """Answer requests until the pilot hangs up; then end every call."""
        self._listen_to_signals()
        self._send(ready=True, pid=os.getpid())
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ, self._read_requests)
            selector.register(self._wakeup[0], selectors.EVENT_READ, self._drain_wakeups)
            try:
                while not self._stopping:
                    for key, _ in selector.select(self._patience_s()):
                        key.data()
                    self._reap()
                    self._kill_overdue()
            finally:
                self._end_all()

    def _listen_to_signals(self) -> None:
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, fork.ORPHANED):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == fork.ORPHANED and os.getppid() == self.parent:
            return  # the kernel tells us of the thread that started us; its process lives on
        if number != signal.SIGCHLD:
            self._stopping = True

    def _drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            self._wakeup[0].recv(_READ_BYTES)

    def _read_requests(self) -> None:
        received = b""
        with suppress(ConnectionError):
            received = self.channel.recv(_READ_BYTES)
        if not received:
            self._stopping = True
            return
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            self._answer(json.loads(line))

    def _answer(self, request: dict[str, Any]) -> None:
        if request.get("kill"):
            for child in self.children.values():
                if child.request_id == request["id"]:
                    self._ask_to_end(child)
        else:
            self._start(request)

    def _start(self, request: dict[str, Any]) -> None:
        self._conda.learn_for(request)
        try:
            pid = self._fork(request)
        except OSError as error:
            sys.stderr.write(f"zygote: no process for a call: {error}\n")
            sys.stderr.flush()
            self._send(id=request["id"], returncode=NOT_FORKED, cpu_s=0.0, max_rss_mb=0.0)
            return
        self.children[pid] = Child(request["id"], pid)
        self._send(id=request["id"], pid=pid)

    def _fork(self, request: dict[str, Any]) -> int:
        """Fork; signals wait meanwhile, so that none meets the child half-made."""
        server = os.getpid()
        sys.stdout.flush()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                for end in (self.channel, *self._wakeup):
                    end.close()
                fork.run(request, server=server, before=lambda: self._conda.keep_for(request))
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _reap(self) -> None:
        for pid in [pid for pid in self.children if _has_ended(pid)]:
            fork.signal_group(
                pid, signal.SIGKILL
            )  # what a call leaves behind is not the next one's
            _, status, usage = os.wait4(pid, 0)
            self._send(
                id=self.children.pop(pid).request_id,
                returncode=os.waitstatus_to_exitcode(status),
                cpu_s=usage.ru_utime + usage.ru_stime,
                max_rss_mb=usage.ru_maxrss * 1024 / 1e6,
            )
        self._conda.take_in()

    def _ask_to_end(self, child: Child) -> None:
        if child.kill_at is None:
            child.kill_at = time.monotonic() + GRACE_S
            fork.signal_group(child.pid, signal.SIGTERM)

    def _kill_overdue(self) -> None:
        for child in self.children.values():
            if child.kill_at is not None and child.kill_at <= time.monotonic():
                fork.signal_group(child.pid, signal.SIGKILL)

    def _patience_s(self) -> float | None:
        times = [child.kill_at for child in self.children.values() if child.kill_at is not None]
        return max(0.01, min(times) - time.monotonic()) if times else None

    def _end_all(self) -> None:
        for child in self.children.values():
            self._ask_to_end(child)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup[0], selectors.EVENT_READ)
            while self.children:
                selector.select(self._patience_s())
                self._drain_wakeups()
                self._reap()
                self._kill_overdue()
        self._conda.close()
        self.channel.close()

    def _send(self, **answer: Any) -> None:
        with suppress(OSError):  # nobody listens any more: the read side notices and ends it all
            self.channel.sendall(json.dumps(answer).encode() + b"\n")


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it stays a zombie, so that its process group keeps its name."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, pid, flags) is not None


def main() -> None:
    """Serve the socket of `--fd N`."""
    parser = argparse.ArgumentParser(description="Runs nested snakemake calls in forks.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the pilot")
    descriptor = parser.parse_args().fd
    parent = os.getppid()
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as channel:
        fork.end_with_parent(fork.ORPHANED, parent)
        warmth.import_snakemake()
        Zygote(channel, parent).serve()


if __name__ == "__main__":
    main()
