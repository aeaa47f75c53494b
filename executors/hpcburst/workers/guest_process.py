"""One guest as the pilot sees it: a warm interpreter of an env, in a session of its own.

The pilot never unpickles what passes through here: it moves bytes between the driver and the guest.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hpcburst.workers.guest.frames import Channel
from hpcburst.workers.guest_lines import Transcript
from hpcburst.workers.guest_memory import Spares
from hpcburst.workers.guest_talk import GuestReply, Talk
from hpcburst.workers.oom import oom_kills

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hpcburst.results import Line
    from hpcburst.tasks import PythonCall

LEAVE_S = 1.0
"""What an idle guest gets to run its exit handlers."""

LOOK_S = 0.003
"""How often we look whether it has left; it takes some ten milliseconds."""

_BOOT = (
    "import sys; home, *told = sys.argv[1:]; del sys.argv[1:]; sys.path[0] = home; "
    "keep, sys.dont_write_bytecode = sys.dont_write_bytecode, False; "
    "from hpcburst_guest.serve import serve; from hpcburst_guest import calls, logs; "
    "sys.dont_write_bytecode = keep; del sys.path[0]; "
    "serve(*map(int, told))"
)


def ignore_line(_: Line) -> None:
    """Drop a line of output."""


class Guest:
    """A warm interpreter; one call at a time.

    It starts at once and says hello while the caller does other things; a start that fails shows in
    the reply to the first call.

    Args:
        python: The env's interpreter.
        environ: Its whole process environment.
        home: What `install_guest` gave.
        start: Runs the function that starts the process. The kernel kills the guest when the
            *thread* that started it ends, so give one that lasts as long as the guest may.
        spares: Used shared memory, if it is kept for several guests.

    Attributes:
        python: As given.
        channel: The line to it.
        poll: Waits for the line and the outputs.
        transcript: What it writes and logs.
        spares: Shared memory kept for its next call.
        greeted: Whether it has said hello.
        failed_start: Why the process could not be made; "" if it was.
        seen: Digests of the bodies it knows.
        kills_before: The job's count of memory kills when it was started.
        closing: Whether `close` was called.
        released: Whether it is gone and its descriptors belong to others.
    """

    def __init__(
        self,
        python: str,
        *,
        environ: Mapping[str, str],
        home: Path,
        start: Callable[[Callable[[], Any]], Any] = lambda function: function(),
        spares: Spares | None = None,
    ) -> None:
        self.python = python
        self._lock = threading.Lock()
        self._life = threading.Lock()
        self.closing = False
        self.released = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self._own_spares = Spares()
        self.spares = self._own_spares if spares is None else spares
        self.greeted = False
        self.failed_start = ""
        self.seen: set[str] = set()
        self._last_body = (b"", "")
        self.kills_before = oom_kills() or 0
        try:
            start(lambda: self._spawn(environ, home, theirs))
        except (OSError, ValueError) as error:
            self.failed_start = str(error)
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
        self.poll = select.poll()
        # First the line, then the outputs: when a message is seen, so is all written before it.
        for descriptor in (self.channel.fileno(), *self.outputs):
            self.poll.register(descriptor, select.POLLIN)
        self.transcript = Transcript(self.outputs)

    @property
    def alive(self) -> bool:
        """Whether it can take a call."""
        return self._process is not None and not self.closing and self.ending() is None

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's; 0 if it never started."""
        return self._process.pid if self._process else 0

    @property
    def outputs(self) -> dict[int, str]:
        """Descriptors of its output, and what the lines from there are called."""
        process = self._process
        if self.released or process is None or process.stdout is None or process.stderr is None:
            return {}
        return {process.stdout.fileno(): "stdout", process.stderr.fileno(): "stderr"}

    def call(
        self,
        call: PythonCall,
        *,
        cwd: str | None = None,
        paths: Sequence[str] = (),
        timeout_s: float | None = None,
        cancelled: threading.Event | None = None,
        on_line: Callable[[Line], None] = ignore_line,
    ) -> GuestReply:
        """Run a body to its end, or stop it; blocks. Whatever happens is a reply.

        Args:
            call: The body and its arguments.
            cwd: Folder it runs in; None is the guest's own.
            paths: Folders appended to `sys.path` for this call.
            timeout_s: Seconds it may run; then it is interrupted and, if need be, killed.
            cancelled: Set by another thread to stop it in the same way.
            on_line: Gets each line of output as it comes; must not raise.
        """
        with self._lock:
            reply = Talk(self, call, cancelled, on_line).have(cwd, paths, timeout_s)
        if reply.failure is not None and not self.alive:
            self.close()
        return reply

    def key_of(self, blob: bytes) -> str:
        """By what name the guest knows a body; the last one is remembered."""
        if blob != self._last_body[0]:
            self._last_body = (blob, hashlib.sha256(blob).hexdigest())
        return self._last_body[1]

    def ending(self) -> tuple[int, int] | None:
        """How the process ended (`si_code`, `si_status`), or None while it runs.

        It is not reaped here: as long as it is not, no stranger can get its number.
        """
        if self._process is None:
            return (os.CLD_EXITED, 0)
        try:
            told = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return (os.CLD_EXITED, self._process.returncode or 0)
        return None if told is None else (told.si_code, told.si_status)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the body, if one runs."""
        with self._life:
            if self._process is not None and self._process.returncode is None:
                os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the guest and its children at once. Idempotent."""
        with self._life:
            if self._process is not None and self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let an idle guest go, kill a busy one, and give everything back. Idempotent."""
        self.closing = True
        if not self._lock.acquire(blocking=False):
            self.kill()
            self._lock.acquire()
        try:
            self._release()
        finally:
            self._lock.release()

    def _release(self) -> None:
        self.released = True
        self.channel.close()
        self._own_spares.close()
        process = self._process
        if process is None:
            return
        self._wait_ended(LEAVE_S)
        self.kill()  # its children too
        with self._life:
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _wait_ended(self, limit_s: float) -> None:
        until = time.monotonic() + limit_s
        while self.ending() is None and time.monotonic() < until:
            time.sleep(LOOK_S)

    def _spawn(self, environ: Mapping[str, str], home: Path, theirs: socket.socket) -> None:
        """Start the process; the thread that runs this is its parent for the kernel."""
        watched, self._lifeline = os.pipe()
        told = [str(home), str(theirs.fileno()), str(watched), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                [self.python, "-c", _BOOT, *told],
                env=dict(environ),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(), watched),
                start_new_session=True,
                bufsize=0,
            )
        except BaseException:
            os.close(self._lifeline)
            self._lifeline = -1
            raise
        finally:
            os.close(watched)
        for output in self.outputs:
            os.set_blocking(output, False)
