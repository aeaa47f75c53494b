"""The driver's end of the line to one pilot: hand over tasks, hear how they end.

One TLS connection carries all tasks of a pilot. That it breaks is how the loss of a pilot is known,
at once and without polling. (The pilot's end is `workers.session`.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from hpcburst.results import Line as OutputLine
from hpcburst.results import Outcome
from hpcburst.tasks import Burst
from hpcburst.workers.pilot import OPERATION

CONNECT_TIMEOUT_S = 30.0


def _ignore(_left_s: float) -> None:
    """The listener of a pilot whose end nobody asked for."""


class LineBroken(Exception):
    """The pilot is gone, with the tasks it had."""


@dataclass(slots=True)
class _Call:
    outcome: asyncio.Future[Outcome]
    on_lines: Callable[[Sequence[OutputLine]], None]
    lines: list[OutputLine] = field(default_factory=list)

    def hear(self, lines: Sequence[OutputLine]) -> None:
        self.lines.extend(lines)
        if lines:
            self.on_lines(lines)


@dataclass(slots=True)
class Line:
    """An open line to a pilot."""

    comm: Any
    on_left: Callable[[float], None] = _ignore
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _calls: dict[int, _Call] = field(default_factory=dict)
    _outbox: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def open(
        cls,
        address: str,
        connection_args: dict[str, Any],
        on_left: Callable[[float], None] = _ignore,
    ) -> Line:
        """Connect to the pilot at `address`.

        Args:
            address: Where it listens.
            connection_args: The run's TLS.
            on_left: Called with the seconds until its job ends, whenever the pilot learns of it.

        Raises:
            OSError: It does not answer.
        """
        from distributed.comm import connect

        comm = await connect(address, timeout=CONNECT_TIMEOUT_S, **connection_args)
        await comm.write({"op": OPERATION, "reply": False})
        line = cls(comm, on_left)
        line._tasks = [asyncio.create_task(line._read()), asyncio.create_task(line._write())]
        return line

    async def run(
        self,
        burst: Burst,
        on_lines: Callable[[Sequence[OutputLine]], None],
        on_number: Callable[[int], None],
    ) -> Outcome:
        """Run a task on the pilot.

        Args:
            burst: The task.
            on_lines: Gets lines of output as they come.
            on_number: Gets the number by which `cancel` knows the task.

        Raises:
            LineBroken: The pilot went away before the task ended.
        """
        number = next(self._numbers)
        call = _Call(asyncio.get_running_loop().create_future(), on_lines)
        if self.comm.closed():
            raise LineBroken
        self._calls[number] = call
        on_number(number)
        self._outbox.put_nowait({"run": number, "burst": burst})
        try:
            return await call.outcome
        finally:
            self._calls.pop(number, None)

    def cancel(self, number: int) -> None:
        """Stop a task; its `run` returns with a cancelled outcome."""
        self._outbox.put_nowait({"cancel": number})

    def close(self) -> None:
        """Hang up: the pilot stops what it runs for us. Idempotent."""
        self.comm.abort()
        for task in self._tasks:
            task.cancel()
        self._lose()

    async def _write(self) -> None:
        from distributed.protocol import to_serialize

        try:
            while True:
                message = await self._outbox.get()
                if "burst" in message:
                    message["burst"] = to_serialize(message["burst"])
                await self.comm.write(message)
        except OSError:
            pass
        finally:
            self.comm.abort()  # a line that cannot speak is no line
            self._lose()

    async def _read(self) -> None:
        try:
            while True:
                self._hear(await self.comm.read())
        except (OSError, EOFError):
            pass
        finally:
            self._lose()

    def _hear(self, message: dict[str, Any]) -> None:
        if "left_s" in message:
            self.on_left(message["left_s"])
            return
        number: int = message["lines"] if "lines" in message else message["done"]
        call = self._calls.get(number)
        if call is None:
            return
        if "lines" in message:
            call.hear(message["text"])
            return
        outcome: Outcome = message["outcome"]
        call.hear(outcome.lines)
        if not call.outcome.done():
            whole = replace(outcome, lines=tuple(call.lines), buffers=tuple(message["buffers"]))
            call.outcome.set_result(whole)

    def _lose(self) -> None:
        for call in self._calls.values():
            if not call.outcome.done():
                call.outcome.set_exception(LineBroken())
