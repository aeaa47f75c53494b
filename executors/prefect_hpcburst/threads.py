"""Threads in which Prefect's task engines run and wait for bodies that run elsewhere."""

from __future__ import annotations

import time
from concurrent.futures import Executor, Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class EngineThreads(Executor):
    """A pool of daemon threads, served in order of submission.

    The standard pool's threads keep the process alive, and an engine may sleep for minutes before
    its next retry: that must not hold a run that was stopped.

    Args:
        limit: Threads at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._idle = Semaphore(0)
        self._lock = Lock()
        self._closed = False
        self._patience_s: float | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call in a thread, after those submitted before it.

        Raises:
            RuntimeError: The pool was shut down.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the task runner has ended")
            self._work.put((future, partial(fn, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
                self._start_thread()
        return future

    def hurry(self, patience_s: float) -> None:
        """Let `shutdown` wait no longer than this for what still runs."""
        self._patience_s = patience_s

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work and end the threads. Idempotent."""
        with self._lock:
            self._closed = True
        if cancel_futures:
            self._cancel_waiting()
        for _ in self._threads:
            self._work.put(None)
        until = None if self._patience_s is None else time.monotonic() + self._patience_s
        for thread in self._threads if wait else ():
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def _cancel_waiting(self) -> None:
        while True:
            try:
                row = self._work.get_nowait()
            except Empty:
                return
            if row is not None:
                row[0].cancel()

    def _start_thread(self) -> None:
        name = f"hpcburst-engine-{len(self._threads)}"
        thread = Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (row := self._work.get()) is not None:
            _run(*row)
            del row  # an idle thread must not hold the last result
            self._idle.release()


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the edge of the thread: its future tells
        future.set_exception(error)
