"""Futures of tasks whose large values stay on the shared file system.

Inside Prefect's engine such a value is a `Reference`. Whoever asks a future or its state gets the
value itself; a task that gets the future as an argument gets the reference, and its guest reads it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture, PrefectTaskRunFuture
from prefect.results import ResultRecord  # type: ignore[attr-defined]  # a name of its own too
from prefect.utilities.annotations import unmapped
from prefect.utilities.collections import visit_collection

from hpcburst.references import Reference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prefect.futures import PrefectFuture

R = TypeVar("R")


class BurstFuture(PrefectConcurrentFuture[R]):
    """The future of a task whose body runs on a pilot."""

    @property
    def state(self) -> State[R]:
        """The state of its run; its `result()` reads a value that was left on the file system."""
        return _reading(super().state)

    @property
    def engines_state(self) -> State[R]:
        """The same as the engine has it, with the reference."""
        return super().state

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """The value, as of every future."""
        value: R = _loaded(super().result(timeout, raise_on_failure))
        return value


class Upstream(PrefectTaskRunFuture[Any]):
    """A future as an argument of another task: its value is the reference.

    Args:
        future: The future the user passed.
    """

    def __init__(self, future: BurstFuture[Any]) -> None:
        super().__init__(future.task_run_id)
        self._future = future

    @property
    def state(self) -> State[Any]:
        """The state of its run, with the reference."""
        return self._future.engines_state

    def wait(self, timeout: float | None = None) -> None:
        """As of every future."""
        self._future.wait(timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """As of every future."""
        return self._future.result(timeout, raise_on_failure)

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """As of every future."""
        self._future.add_done_callback(lambda _: fn(self))


class ReadingState(State[R]):
    """A state whose result is read from the file system when it is asked for."""

    def result(self, *args: Any, **kwargs: Any) -> Any:
        """The value, as of every state; to be awaited where Prefect's own is."""
        value = super().result(*args, **kwargs)
        return _loaded_later(value) if inspect.isawaitable(value) else _loaded(value)

    async def aresult(self, *args: Any, **kwargs: Any) -> Any:
        """The value, as of every state."""
        return _loaded(await super().aresult(*args, **kwargs))


def by_reference(parameters: Any) -> Any:
    """Arguments of a task with each future of ours told as one whose value is the reference."""

    def told(value: Any) -> Any:
        return Upstream(value) if isinstance(value, BurstFuture) else value

    return visit_collection(parameters, visit_fn=told, return_data=True)


def unmapped_by_reference(parameters: dict[str, Any]) -> dict[str, Any]:
    """The same for what `map` passes to all; over the others it goes itself, and needs values."""
    return {
        name: by_reference(value) if isinstance(value, unmapped) else value
        for name, value in parameters.items()
    }


def _reading(state: State[R]) -> State[R]:
    data = state.data
    if isinstance(data, ResultRecord) and isinstance(data.result, Reference):
        fields = {name: getattr(state, name) for name in State.model_fields}
        return ReadingState.model_construct(**fields)
    return state


def _loaded(value: Any) -> Any:
    return value.load() if isinstance(value, Reference) else value


async def _loaded_later(value: Awaitable[Any]) -> Any:
    return _loaded(await value)
