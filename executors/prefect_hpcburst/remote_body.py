"""What stands in for a task's function under a BurstTaskRunner: the same call, elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcburst.answers import value_of
from hpcburst.bodies import call_of
from hpcburst.programs import command_of, completed_of
from hpcburst.tasks import Burst, Command, Needs, PythonCall
from prefect_hpcburst.output import log_for_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hpcburst.results import Line, Outcome
    from prefect_hpcburst.flight import Flight


@dataclass(frozen=True)
class Order:
    """Everything about a task that its every run shares.

    Attributes:
        fn: Its function.
        needs: What it asks for.
        flight: What carries it.
        timeout_s: Seconds its body may run, by Prefect's `timeout_seconds`.
        log_prints: Whether what it prints goes to its log.
    """

    fn: Callable[..., Any]
    needs: Needs
    flight: Flight
    timeout_s: float | None = None
    log_prints: bool = True


class StandIn:
    """Has the name and the signature of the function it stands for.

    Args:
        fn: That function.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        name = getattr(fn, "__name__", type(fn).__name__)
        self.__name__ = name
        self.__qualname__ = getattr(fn, "__qualname__", name)
        self.__doc__ = fn.__doc__
        self.__module__ = getattr(fn, "__module__", __name__)
        self.__signature__ = inspect.signature(fn)


class Refusal(StandIn):
    """Stands for a function that cannot travel: its run fails with the reason.

    Args:
        fn: The function.
        reason: Why not.
    """

    def __init__(self, fn: Callable[..., Any], reason: Exception) -> None:
        super().__init__(fn)
        self._reason = reason

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Raise the reason."""
        raise self._reason


class RemoteBody(StandIn):
    """Called by Prefect's engine as the task's function; runs the body on a pilot.

    Args:
        order: What to run.
    """

    def __init__(self, order: Order) -> None:
        super().__init__(order.fn)
        self._order = order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; raises what `run_remotely` does."""
        return run_remotely(self._order, args, kwargs)


class AsyncRemoteBody(RemoteBody):
    """The same for an `async def`: awaited by the engine, run to its end in the guest."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; raises what `run_remotely` does."""
        return await asyncio.to_thread(run_remotely, self._order, args, kwargs)


def stand_ins() -> dict[Any, str]:
    """Objects of Prefect's that bodies may use where there is no Prefect, and their stand-ins."""
    import prefect

    return {prefect.get_run_logger: "task_logger"}


def run_remotely(order: Order, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task's body on a pilot and return its value; its output goes to the run's log.

    A task with a command gives a `Completed`.

    Raises:
        BaseException: What the body raised, or a BurstError.
        asyncio.CancelledError: The flow run was stopped.
    """
    burst = Burst(
        name=_run_name() or getattr(order.fn, "__name__", "task"),
        work=_work(order, *_plain_lists((args, kwargs))),
        needs=order.needs,
        env=order.flight.env(order.needs),
        timeout_s=_least(order.timeout_s, order.needs.walltime_s),
        cwd=os.getcwd(),  # noqa: PTH109 - the text is what travels
        paths=_import_paths(order.needs),
    )
    outcome = _outcome(order, burst)
    if order.needs.command:
        return completed_of(outcome, order.needs, burst.name)
    return value_of(outcome, burst.name)


def _work(order: Order, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PythonCall | Command:
    if order.needs.command:
        return command_of(order.fn, order.needs, args, kwargs)
    return call_of(order.fn, args, kwargs, stand_ins=stand_ins())


def _plain_lists(arguments: Any) -> Any:
    """Lists of futures come resolved, but still as Prefect's own kind of list: make them lists."""
    from prefect.futures import PrefectFutureList
    from prefect.utilities.collections import visit_collection

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, PrefectFutureList) else value

    return visit_collection(arguments, visit_fn=plain, return_data=True)


def _outcome(order: Order, burst: Burst) -> Outcome:
    """Wait in the engine's own thread, where its logger knows which task run is meant."""
    told: queue.SimpleQueue[Sequence[Line] | None] = queue.SimpleQueue()
    log = log_for_run(prints=order.log_prints)
    future = order.flight.launch(burst, told.put)
    future.add_done_callback(lambda _: told.put(None))
    try:
        while (lines := told.get()) is not None:
            for line in lines:
                log(line)
        return order.flight.outcome(future)
    except BaseException:
        future.cancel()  # whoever stopped us wants the body stopped too
        raise


def _run_name() -> str:
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    return context.task_run.name if context and context.task_run else ""


def _import_paths(needs: Needs) -> tuple[str, ...]:
    """Folders a body may import from: its own file's, and the flow script's."""
    script = sys.path[0] if sys.path else ""
    return tuple(dict.fromkeys(folder for folder in (needs.folder, script) if folder))


def _least(*limits_s: float | None) -> float | None:
    stated = [limit for limit in limits_s if limit]
    return min(stated) if stated else None
