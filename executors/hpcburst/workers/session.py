"""The pilot's end of the line to the driver: one TLS connection, many tasks at once.

Messages from the driver: `{"run": number, "burst": Burst}` and `{"cancel": number}`. To the
driver: `{"lines": number, "text": [...]}` while a task runs, `{"done": number, "outcome": Outcome,
"buffers": [...]}` when it has ended, and `{"left_s": seconds}` whenever the pilot learns when its
job ends. The end of the connection is the end of the tasks on it: nobody waits for them any more.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from distributed.comm import Comm, CommClosedError
from distributed.protocol import to_serialize

from hpcburst.results import Fault, Line, Outcome
from hpcburst.tasks import Burst
from hpcburst.workers.ending import Ending
from hpcburst.workers.work import MAX_LINES, Workplace

FLUSH_S = 0.5
"""How often lines travel while a body runs: soon enough to watch, seldom enough to batch."""

HOLD_S = 0.5
"""A failure is told so much later. Who ends a job signals every process in it, and a body may die
of that before the pilot hears of it: then the task did not fail, it was lost with the pilot, and
saying nothing lets the driver send it again."""

HOLD_RAISED_S = 0.1
"""The same for what a body raised, perhaps for a child's death: it lived on for a while itself."""

CERTAIN = frozenset({Fault.ARGUMENTS, Fault.RESULT, Fault.TIMEOUT})
"""Faults that no signal from outside can cause."""

MAX_AT_ONCE = 1024
"""Threads for running tasks; the driver never sends more than the pilot has cores."""


class Session:
    """One driver's tasks on this pilot.

    Args:
        comm: The open connection.
        workplace: Where the work is done.
        ending: When the pilot's job ends, which the driver is told; once the pilot is told to end,
            no failure is told any more.
    """

    def __init__(self, comm: Comm, workplace: Workplace, ending: Ending) -> None:
        self._comm = comm
        self._workplace = workplace
        self._ending = ending
        self._outbox: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._cancelled: dict[int, threading.Event] = {}
        self._threads = ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="hpcburst-task")

    async def serve(self) -> None:
        """Take tasks until the driver hangs up; then stop what still runs."""
        writer = asyncio.create_task(self._write())
        running: set[asyncio.Task[None]] = set()
        self._ending.listen(self._tell_left)
        try:
            while True:
                message = await self._comm.read()
                if "run" in message:
                    number = message["run"]
                    self._cancelled[number] = threading.Event()  # a cancel may follow at once
                    task = asyncio.create_task(self._run(number, message["burst"]))
                    running.add(task)
                    task.add_done_callback(running.discard)
                elif "cancel" in message:
                    self._cancel(message["cancel"])
        except (CommClosedError, OSError, EOFError):
            pass
        finally:
            self._ending.unlisten(self._tell_left)
            for number in list(self._cancelled):
                self._cancel(number)
            writer.cancel()
            await asyncio.gather(*running, writer, return_exceptions=True)
            self._threads.shutdown(wait=False)

    async def _run(self, number: int, burst: Burst) -> None:
        cancelled = self._cancelled[number]
        lines: list[Line] = []

        def keep(line: Line) -> None:
            if len(lines) < MAX_LINES:
                lines.append(line)
            elif len(lines) == MAX_LINES:
                lines.append(replace(line, text=f"(what came after {MAX_LINES} lines is left out)"))

        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self._workplace.do, burst, cancelled, keep)
        sent = 0
        while not (await asyncio.wait([work], timeout=FLUSH_S))[0]:
            fresh = lines[sent:]
            if fresh:
                self._outbox.put_nowait({"lines": number, "text": fresh})
                sent += len(fresh)
        outcome = replace(work.result(), lines=tuple(lines[sent:]))
        if not await self._stands(outcome, cancelled):
            return
        del self._cancelled[number]
        large = [to_serialize(buffer) for buffer in outcome.buffers]
        message = {
            "done": number,
            "outcome": to_serialize(replace(outcome, buffers=())),
            "buffers": large,
        }
        self._outbox.put_nowait(message)

    async def _stands(self, outcome: Outcome, cancelled: threading.Event) -> bool:
        """Whether the outcome is the task's own, not the work of whoever ends this job."""
        failure = outcome.failure
        if failure is None or failure.fault in CERTAIN or cancelled.is_set():
            return True
        hold_s = HOLD_RAISED_S if failure.fault is Fault.RAISED else HOLD_S
        with suppress(TimeoutError):
            async with asyncio.timeout(hold_s):
                await self._ending.told.wait()
        return not self._ending.told.is_set()

    def _tell_left(self, left_s: float) -> None:
        self._outbox.put_nowait({"left_s": left_s})

    async def _write(self) -> None:
        """The only writer: a connection takes one message at a time."""
        with suppress(CommClosedError, OSError):
            while (message := await self._outbox.get()) is not None:
                if "text" in message:
                    message = {**message, "text": to_serialize(message["text"])}
                await self._comm.write(message)

    def _cancel(self, number: int) -> None:
        event = self._cancelled.get(number)
        if event is not None:
            event.set()
