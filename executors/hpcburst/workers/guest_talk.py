"""One call as a conversation with a guest: what is said, what is heard, and what silence means."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hpcburst.results import Failure, Fault, Line, Stored, Usage
from hpcburst.workers.guest.usage import USAGE
from hpcburst.workers.oom import oom_kills

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from hpcburst.tasks import PythonCall
    from hpcburst.workers.guest_process import Guest

START_LIMIT_S = 120.0
"""An interpreter not up by then never will be; a cold shared file system may need a minute."""

GRACE_S = 2.0
"""What a body gets between interrupt and kill: enough to leave Python code and stay warm."""

POLL_S = 0.1
"""How often a running call looks whether it was cancelled."""

MAX_BODIES = 256
"""Bodies a guest remembers: one that closes over another value each time is another body."""

END_S = 10.0
"""How long a guest that hung up may take to be gone: it may be writing a core dump."""


_CHILD_KILLED = (
    "(Meanwhile the kernel killed a process of this job at the job's memory limit: "
    "ask for more, @needs(memory=...))"
)


@dataclass(frozen=True, slots=True)
class GuestReply:
    """How a call ended.

    Attributes:
        payload: The pickled value; b"" if there is none.
        buffers: Its large buffers: writable views of memory that nobody else looks into.
        kept: Where the value was left instead of coming home; None if it came, or there is none.
        failure: What went wrong; None if it ended well.
        usage: What it took.
    """

    payload: bytes = b""
    buffers: tuple[Any, ...] = ()
    kept: Stored | None = None
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)


class _HungUpError(Exception):
    """The guest closed its end of the line: it is dead or dying."""


class Talk:
    """The conversation about one call.

    Args:
        guest: Whom to talk to; nobody else does meanwhile.
        call: The body and its arguments.
        cancelled: Set by another thread to stop it.
        on_line: Gets each line of output as it comes.
    """

    def __init__(
        self,
        guest: Guest,
        call: PythonCall,
        cancelled: threading.Event | None,
        on_line: Callable[[Line], None],
    ) -> None:
        self._guest = guest
        self._call = call
        self._cancelled = cancelled
        self._on_line = on_line
        self._begun = time.time()

    def have(self, cwd: str | None, paths: Sequence[str], timeout_s: float | None) -> GuestReply:
        """Greet if need be, ask, listen, and tell how it ended."""
        if self._guest.failed_start:
            return self._not_started(self._guest.failed_start)
        if self._guest.closing:
            return self._lost()
        if self._guest.greeted:
            self._read(0)  # what children of an earlier body still wrote is not this one's
        self._guest.transcript.begin(self._on_line)
        try:
            return self._greet() or self._ask(cwd, paths, timeout_s)
        except _HungUpError:
            return self._died()

    def _greet(self) -> GuestReply | None:
        """Wait for the guest's hello, once in its life."""
        if self._guest.greeted:
            return None
        try:
            heard = self._listen(time.monotonic() + START_LIMIT_S)
        except _HungUpError:
            return self._not_started(f"it ended at once: {self._ending()[1]}")
        if isinstance(heard, Fault):
            self._guest.kill()
            if heard is Fault.CANCELLED:
                return self._withdrawn()
            return self._not_started(f"it did not answer within {START_LIMIT_S:g} s")
        self._guest.transcript.expect(heard[0]["mark"])
        self._guest.greeted = True
        return None

    def _ask(self, cwd: str | None, paths: Sequence[str], timeout_s: float | None) -> GuestReply:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        if self._cancelled is not None and self._cancelled.is_set():
            return self._withdrawn()
        self._send(cwd, paths)
        heard = self._listen(until)
        if isinstance(heard, Fault):
            return self._stop(heard, timeout_s)
        return self._reply(*heard)

    @property
    def _name(self) -> str:
        return self._call.body.name

    def _send(self, cwd: str | None, paths: Sequence[str]) -> None:
        body, seen = self._call.body, self._guest.seen
        key = self._guest.key_of(body.blob)
        forget = len(seen) >= MAX_BODIES
        if forget:
            seen.clear()
        message = {
            "key": key,
            "name": body.name,
            "blob": key not in seen,
            "forget": forget,
            "cwd": cwd,
            "paths": list(paths),
            "keep": self._call.keep,
        }
        parts = [self._call.payload, *self._call.buffers]
        if key not in seen:
            parts.insert(0, body.blob)
        try:
            self._guest.channel.send(message, parts, spare=self._guest.spares.take(parts))
        except OSError as error:
            raise _HungUpError from error
        seen.add(key)

    def _listen(
        self, until: float | None, *, heed_cancel: bool = True
    ) -> tuple[dict[str, Any], list[Any]] | Fault:
        """The next message that is not a log record; or why to stop listening."""
        cancelled = self._cancelled if heed_cancel else None
        transcript = self._guest.transcript
        while True:
            if self._read(_slice_ms(until, cancelled)):
                message, parts = self._hear()
                if "log" not in message:
                    return message, parts
                line = Line(message["text"], message["log"], message["at"])
                transcript.log(message["mark"], line)
            if cancelled is not None and cancelled.is_set():
                return Fault.CANCELLED
            if until is not None and time.monotonic() >= until:
                return Fault.TIMEOUT

    def _hear(self) -> tuple[dict[str, Any], list[Any]]:
        try:
            return self._guest.channel.recv()
        except (EOFError, OSError, ValueError) as error:
            raise _HungUpError from error

    def _read(self, limit_ms: float | None) -> bool:
        """Wait; take what the outputs hold; tell whether there is a message too.

        All that was written before that message was sent has been taken then.
        """
        guest = self._guest
        line = guest.channel.fileno()
        message = guest.channel.pending
        for descriptor, _ in guest.poll.poll(0 if message else limit_ms):
            if descriptor == line:
                message = True
            elif not guest.transcript.read(descriptor):
                guest.poll.unregister(descriptor)
        return message

    # --- how it ended ----------------------------------------------------------------------------

    def _reply(self, message: dict[str, Any], parts: list[Any]) -> GuestReply:
        self._guest.transcript.end()
        self._guest.spares.give(self._guest.channel.returned(free=message.get("free", False)))
        usage = Usage(*USAGE.unpack(parts.pop(0)))
        if "kept" in message:
            return GuestReply(kept=Stored(*message["kept"]), usage=usage)
        if message["reply"] == "ok":
            return GuestReply(bytes(parts[0]), tuple(parts[1:]), usage=usage)
        failure = Failure(
            Fault(message["reply"]),
            message["kind"],
            message["message"],
            message["traceback"],
            bytes(parts[0]) if parts else None,
        )
        if failure.fault is Fault.RAISED and self._was_short_of_memory():
            told = f"{failure.traceback.rstrip()}\n{_CHILD_KILLED}\n"
            failure = replace(failure, traceback=told, child_out_of_memory=True)
        if failure.fault is Fault.ARGUMENTS:  # a body it could not rebuild must be sent again
            self._guest.seen.discard(self._guest.key_of(self._call.body.blob))
        return GuestReply(failure=failure, usage=usage)

    def _stop(self, fault: Fault, timeout_s: float | None) -> GuestReply:
        """Interrupt the body, and kill its interpreter if that does not help."""
        if fault is Fault.CANCELLED:
            kind, why = "Cancelled", f"{self._name} was withdrawn and has been stopped"
        else:
            kind, why = "Timeout", f"{self._name} ran longer than {timeout_s:g} s and was stopped"
        self._guest.interrupt()
        try:
            heard = self._listen(time.monotonic() + GRACE_S, heed_cancel=False)
        except _HungUpError:
            heard = fault
        if isinstance(heard, Fault):
            self._guest.kill()
            self._ending()
            return self._failed(fault, kind, f"{why} by killing its process")
        self._guest.transcript.end()
        message, parts = heard
        self._guest.spares.give(self._guest.channel.returned(free=message.get("free", False)))
        failure = Failure(fault, kind, why, message.get("traceback", ""))
        return GuestReply(failure=failure, usage=Usage(*USAGE.unpack(parts[0])))

    def _withdrawn(self) -> GuestReply:
        return self._failed(Fault.CANCELLED, "Cancelled", f"{self._name} was withdrawn")

    def _lost(self) -> GuestReply:
        return self._failed(Fault.CANCELLED, "Cancelled", f"{self._name} lost its pilot")

    def _not_started(self, why: str) -> GuestReply:
        python, self._guest.failed_start = self._guest.python, why
        return self._failed(Fault.ENV, "NotStarted", f"{python} does not start as Python: {why}")

    def _died(self) -> GuestReply:
        if self._guest.closing:
            return self._lost()
        kind, how = self._ending()
        fault = Fault.DIED
        if kind == "SIGKILL":
            if self._was_short_of_memory():
                fault, how = Fault.OUT_OF_MEMORY, f"{how} at the job's memory limit"
            else:
                how += ": by the memory limit, the batch system or a person"
        return self._failed(fault, kind, f"The process that ran {self._name} {how}")

    def _was_short_of_memory(self) -> bool:
        """Whether the kernel killed a process of this job for memory since the guest was leased."""
        kills = oom_kills()
        return kills is not None and kills > self._guest.kills_before

    def _ending(self) -> tuple[str, str]:
        """Name and words for how the process ended; one that hung up but lives on is ended."""
        until = time.monotonic() + END_S
        while (ending := self._guest.ending()) is None:
            if time.monotonic() >= until:
                self._guest.kill()
            time.sleep(0.001)
        code, status = ending
        if code == os.CLD_EXITED:
            return f"exit {status}", f"exited with status {status}"
        name = signal.Signals(status).name
        return name, f"was killed by {name}"

    def _failed(self, fault: Fault, kind: str, message: str) -> GuestReply:
        """A failure that the guest did not tell itself; the last it wrote may say more."""
        if self._guest.outputs:
            self._read(0)
        self._guest.transcript.end()
        said = self._guest.transcript.last_errors
        wall_s = time.time() - self._begun
        usage = Usage(started_at=self._begun, wall_s=max(wall_s, 0.0))
        return GuestReply(failure=Failure(fault, kind, message, said), usage=usage)


def _slice_ms(until: float | None, cancelled: threading.Event | None) -> float | None:
    """How long to wait for the next event: until the deadline, or the next look at `cancelled`."""
    left = None if until is None else max(until - time.monotonic(), 0.0)
    if cancelled is not None:
        left = POLL_S if left is None else min(left, POLL_S)
    return None if left is None else left * 1000 + 0.5
