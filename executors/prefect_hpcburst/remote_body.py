"""What stands in for a task's function while a BurstTaskRunner runs it: the same call, elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import queue
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from hpcburst.answers import value_of
from hpcburst.bodies import call_of
from hpcburst.results import Line, Outcome
from hpcburst.tasks import Body, Burst, Env, Needs

Launch = Callable[[Burst, Callable[[Sequence[Line]], None]], "Future[Outcome]"]

_STREAMS = {"stdout": logging.INFO, "stderr": logging.INFO}


@dataclass(frozen=True)
class Order:
    """Everything about a task that its every run shares.

    Attributes:
        name: The task's name.
        body: Its function, as data.
        needs: What it asks for.
        env: Its env, perhaps still being built.
        launch: Queues a burst.
        timeout_s: Seconds its body may run.
        log_prints: False leaves prints to the flow's own output.
    """

    name: str
    body: Body
    needs: Needs
    env: Future[Env | None]
    launch: Launch
    timeout_s: float | None = None
    log_prints: bool = True


class RemoteBody:
    """Called by Prefect's engine as the task's function; runs the body on a pilot.

    Args:
        fn: The function it stands for.
        order: What to send.
    """

    def __init__(self, fn: Callable[..., Any], order: Order) -> None:
        self.__name__ = getattr(fn, "__name__", order.name)
        self.__qualname__ = getattr(fn, "__qualname__", order.name)
        self.__doc__ = fn.__doc__
        self.__module__ = getattr(fn, "__module__", __name__)
        self.__signature__ = inspect.signature(fn)
        self._order = order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return run_remotely(self._order, args, kwargs)


class AsyncRemoteBody(RemoteBody):
    """The same for an `async def`: awaited by the engine, run to its end in the guest."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(run_remotely, self._order, args, kwargs)


def run_remotely(order: Order, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task's body on a pilot and return its value; its output goes to the run's log.

    Raises:
        BaseException: What the body raised, or a BurstError.
    """
    burst = Burst(
        name=_run_name(order.name),
        work=call_of(order.body, args, kwargs),
        needs=order.needs,
        env=order.env.result(),
        timeout_s=_least(order.timeout_s, order.needs.walltime_s),
        cwd=os.getcwd(),  # noqa: PTH109 - the text is what travels
        paths=_import_paths(order.needs),
    )
    return value_of(_wait(order, burst), burst.name)


def _wait(order: Order, burst: Burst) -> Outcome:
    """Wait in the engine's own thread, where its logger knows which task run is meant."""
    told: queue.SimpleQueue[Sequence[Line] | None] = queue.SimpleQueue()
    future = order.launch(burst, told.put)
    future.add_done_callback(lambda _: told.put(None))
    try:
        log = _logger() if order.log_prints else _print
        while (lines := told.get()) is not None:
            for line in lines:
                log(line)
        return future.result()
    except BaseException:
        future.cancel()  # whoever stopped us wants the body stopped too
        raise


def _logger() -> Callable[[Line], None]:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        logger = get_run_logger()
    except MissingContextError:
        return _print

    def log(line: Line) -> None:
        level = _STREAMS.get(line.level) or logging.getLevelName(line.level)
        logger.log(level if isinstance(level, int) else logging.INFO, "%s", line.text)

    return log


def _print(line: Line) -> None:
    stream = sys.stdout if line.level == "stdout" else sys.stderr
    stream.write(line.text + "\n")


def _run_name(task_name: str) -> str:
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    return context.task_run.name if context and context.task_run else task_name


def _import_paths(needs: Needs) -> tuple[str, ...]:
    """Folders a body may import from: its own file's, and the flow script's."""
    script = sys.path[0] if sys.path else ""
    return tuple(dict.fromkeys(folder for folder in (needs.folder, script) if folder))


def _least(*limits_s: float | None) -> float | None:
    stated = [limit for limit in limits_s if limit]
    return min(stated) if stated else None
