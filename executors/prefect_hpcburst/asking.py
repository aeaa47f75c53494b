"""What a task asks for: what it states, what its runner was told of it, and what a call says.

`@needs` is kept on the task's function, because a function is all that `task.with_options` carries
over. So `with_needs` gives a task a copy of its function, with what was said anew kept beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import Task

from hpcburst.errors import RequestError
from hpcburst.tasks import Needs, changed_needs, needs_of
from hpcburst.templates import check_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    AnyTask = TypeVar("AnyTask", bound=Task[..., Any])

SAID = "__hpcburst_said__"
"""Where `with_needs` leaves what a call asks for, on the copy of the function."""

COPY_OF = "__hpcburst_copy_of__"
"""Where it leaves the function that was copied: it is that one which travels."""


def with_needs(task: AnyTask, **fields: Any) -> AnyTask:
    """The same task with other needs: `with_needs(fit, memory="16GB").submit(block)`.

    What is not said stays as the task or its runner has it. While `prefect_hpcburst` is imported
    it is a method of tasks, too: `fit.with_needs(memory="16GB").submit(block)`.

    Args:
        task: A task, with `@needs` or without.
        **fields: What `hpcburst.needs` takes.

    Returns:
        A copy of the task; the task itself stays as it is. `with_options` keeps its needs.

    Raises:
        RequestError: A field is unknown or its value cannot be read.
    """
    said = {**getattr(task.fn, SAID, {}), **fields}
    wanted = changed_needs(needs_of(task), said)
    if wanted.command:
        check_fields(wanted.command, task.fn)
    fn = _copied(task.fn)
    changed = copy.copy(task)
    changed.fn = fn
    for holder in (fn, changed):
        setattr(holder, SAID, said)
        setattr(holder, COPY_OF, travelling(task.fn))
    return changed


def needs_for(task: Task[..., Any], by_name: Mapping[str, Mapping[str, Any]]) -> Needs:
    """What a task asks for; a call outdoes the runner, and the runner what the task states.

    Args:
        task: The task.
        by_name: Fields that the runner was given for tasks, by their name.

    Raises:
        RequestError: The fields do not go together.
    """
    said = getattr(task.fn, SAID, {})
    return changed_needs(needs_of(task), {**by_name.get(task.name, {}), **said})


def read_by_name(by_name: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Needs of tasks by their names, as a runner is given them.

    Raises:
        RequestError: They cannot be read.
    """
    for name, fields in by_name.items():
        if not isinstance(fields, Mapping):
            raise RequestError(
                f"The needs {fields!r} were given for tasks named {name!r}",
                "needs are fields with values",
                'write for instance needs={"fit": {"memory": "8GB"}}',
            )
        alone = {key: value for key, value in fields.items() if key != "ok"}
        changed_needs(Needs(), alone)  # only to see that it can be read
    return {name: dict(fields) for name, fields in by_name.items()}


def travelling(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs on the pilot: the one a copy with other needs was made from."""
    original: Callable[..., Any] = getattr(fn, COPY_OF, fn)
    return original


def make_method() -> None:
    """Give every task of Prefect the method `with_needs`.

    A Task cannot get it any other way: `@task` makes it from the function below, and nothing of
    ours is called when it does.
    """
    Task.with_needs = with_needs  # type: ignore[attr-defined]


def _copied(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function like this one whose attributes are its own."""
    if not isinstance(fn, FunctionType):
        made = copy.copy(fn)
        if made is fn or not hasattr(made, "__dict__"):
            raise RequestError(
                f"Needs were given for the call of a task around {fn!r}",
                "nothing can be kept on it",
                "write a function that calls it, and make that the task",
            )
        return made
    copied = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copied.__kwdefaults__ = fn.__kwdefaults__
    copied.__annotations__ = fn.__annotations__
    copied.__qualname__, copied.__module__, copied.__doc__ = (
        fn.__qualname__, fn.__module__, fn.__doc__,
    )  # fmt: skip
    copied.__dict__.update(fn.__dict__)
    return copied
