"""What stands in for a task's function under a BurstTaskRunner: the same call, elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpcburst.answers import value_of
from hpcburst.bodies import call_of
from hpcburst.policy.growth import words
from hpcburst.programs import command_of, completed_of
from hpcburst.references import Reference
from hpcburst.results import Fault
from hpcburst.tasks import Burst, Command, Needs, PythonCall
from prefect_hpcburst.output import log_for_run, log_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from hpcburst.results import Line, Outcome
    from prefect_hpcburst.flight import Flight
    from prefect_hpcburst.growing import Growth


NOTHING = Command((), "", {})
"""The work of a burst that has not been made yet."""


@dataclass(frozen=True)
class Order:
    """Everything about a task that its every run shares.

    Attributes:
        fn: Its function.
        needs: What it asks for at first.
        growth: What its runs ask for later on.
        flight: What carries it.
        timeout_s: Seconds its body may run, by Prefect's `timeout_seconds`.
        log_prints: Whether what it prints goes to its log.
        value_comes_home: Whether its value is needed here, however large.
    """

    fn: Callable[..., Any]
    needs: Needs
    growth: Growth
    flight: Flight
    timeout_s: float | None = None
    log_prints: bool = True
    value_comes_home: bool = False


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
        return _run_or_tell(self._order, args, kwargs)


class AsyncRemoteBody(RemoteBody):
    """The same for an `async def`: awaited by the engine, run to its end in the guest."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; raises what `run_remotely` does."""
        return await asyncio.to_thread(_run_or_tell, self._order, args, kwargs)


def stand_ins() -> dict[Any, str]:
    """Objects of Prefect's that bodies may use where there is no Prefect, and their stand-ins."""
    import prefect

    return {prefect.get_run_logger: "task_logger"}


def run_remotely(order: Order, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task's body on a pilot and return its value; its output goes to the run's log.

    A task with a command gives a `Completed`, and a large value is given by a `Reference`.

    Raises:
        BaseException: What the body raised, or a BurstError.
        asyncio.CancelledError: The flow run was stopped.
    """
    run_id, name = _task_run()
    needs = order.growth.needs(run_id)
    sent = Burst(
        name=name or getattr(order.fn, "__name__", "task"),
        work=NOTHING,
        needs=needs,
        env=order.flight.env(needs),
        timeout_s=_least(order.timeout_s, needs.walltime_s),
        cwd=os.getcwd(),  # noqa: PTH109 - the text is what travels
        paths=_import_paths(needs),
    )
    told = Reference.load if needs.command else Reference.travelling
    outcome = _outcome(order, sent, lambda: _work(order, needs, *_told((args, kwargs), told)))
    if _cannot_be_read(outcome) and _has_reference((args, kwargs)):
        # A value may need a class that is known here, and not to the body that gets it.
        told = Reference.load
        outcome = _outcome(order, sent, lambda: _work(order, needs, *_told((args, kwargs), told)))
    return _value(order, sent, outcome, run_id)


def _run_or_tell(order: Order, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same, but when somebody cancelled the flow run that is a state, and not a crash."""
    from prefect.states import Cancelled

    try:
        return run_remotely(order, args, kwargs)
    except asyncio.CancelledError:
        if not order.flight.cancelled:
            raise
        return Cancelled(message="Its flow run was cancelled; the body was stopped.")


def _value(order: Order, burst: Burst, outcome: Outcome, run_id: UUID | None) -> Any:
    if outcome.failure is not None and (more := order.growth.note(run_id, outcome.failure)):
        log_warning(f"It ran short of that: its next try asks for {words(more)}")
    if burst.needs.command:
        return completed_of(outcome, burst.needs, burst.name)
    if outcome.stored is not None:
        return Reference(outcome.stored, burst.name)
    return value_of(outcome, burst.name)


def _work(
    order: Order, needs: Needs, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> PythonCall | Command:
    if needs.command:
        return command_of(order.fn, needs, args, kwargs)
    call = call_of(order.fn, args, kwargs, stand_ins=stand_ins())
    return replace(call, keep=_keep(order))


def _keep(order: Order) -> str | None:
    """Where a large value stays; None where Prefect itself asks for it at once."""
    from prefect.results import should_persist_result

    if order.value_comes_home or should_persist_result():
        return None
    return order.flight.results_folder()


def _told(arguments: Any, told: Callable[[Reference], Any]) -> Any:
    """The arguments as they travel.

    Lists of futures come resolved, but still as Prefect's own kind of list: they become lists.
    """
    from prefect.futures import PrefectFutureList
    from prefect.utilities.collections import visit_collection

    def plain(value: Any) -> Any:
        if isinstance(value, Reference):
            return told(value)
        return list(value) if isinstance(value, PrefectFutureList) else value

    return visit_collection(arguments, visit_fn=plain, return_data=True)


def _has_reference(arguments: Any) -> bool:
    found: list[Reference] = []
    _told(arguments, found.append)
    return bool(found)


def _cannot_be_read(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.fault is Fault.ARGUMENTS


def _outcome(order: Order, burst: Burst, make: Callable[[], PythonCall | Command]) -> Outcome:
    """How a body ended, when there was room for what it takes along.

    What found no room is not held while it waits: it is made again when there is some.
    """
    work: PythonCall | Command | None = make()
    size_bytes = _freight_bytes(work)
    if not order.flight.has_room(size_bytes):
        work = None
    with order.flight.room_for(size_bytes):
        return _heard(order, replace(burst, work=work or make()))


def _freight_bytes(work: PythonCall | Command | None) -> int:
    if not isinstance(work, PythonCall):
        return 0
    return len(work.payload) + sum(map(len, work.buffers))


def _heard(order: Order, burst: Burst) -> Outcome:
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


def _task_run() -> tuple[UUID | None, str]:
    """Id and name of the task run whose engine calls us."""
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    return (context.task_run.id, context.task_run.name) if context else (None, "")


def _import_paths(needs: Needs) -> tuple[str, ...]:
    """Folders a body may import from: its own file's, and the flow script's."""
    script = sys.path[0] if sys.path else ""
    return tuple(dict.fromkeys(folder for folder in (needs.folder, script) if folder))


def _least(*limits_s: float | None) -> float | None:
    stated = [limit for limit in limits_s if limit]
    return min(stated) if stated else None
