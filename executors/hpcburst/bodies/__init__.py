"""A function as data: what the driver sends so that another Python can run it.

Functions travel as source, not as byte code: byte code of one minor version crashes another. With
a function goes what its names stand for: its closure and defaults, the globals it loads, functions
and classes of the same module as text, modules by name, all else pickled. What a library defines is
imported in the env by its name. Only a function that was defined at a prompt, and so has no source,
travels as byte code, and only an env with a Python of the same minor version takes it.
"""

from __future__ import annotations

import hashlib
import marshal
import pickle
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from hpcburst.bodies.collect import Collector, is_installed
from hpcburst.bodies.snapshots import snapshot
from hpcburst.errors import RequestError
from hpcburst.tasks import Body, PythonCall
from hpcburst.workers.guest import values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_STAND_INS: Mapping[Any, str] = {}


def body_of(function: Any, *, stand_ins: Mapping[Any, str] = NO_STAND_INS) -> Body:
    """A function as data, with what it needs as it is now.

    Args:
        function: A Python function, a callable of a library, or a picklable callable. An engine's
            task is taken as the function in its `.fn`. Decorators of ours and the engine's are
            dropped.
        stand_ins: Objects of the driver that the env need not have, such as an engine's logger
            function, and the name of what the guest puts in their place (`guest.logs.STAND_INS`).

    Returns:
        The body. Its digest changes with its source and with what goes along, not with its place:
        neither editing the code above it nor moving the file changes it.

    Raises:
        RequestError: Its source is not where it was, or a value it uses cannot be pickled.
    """
    function = _unwrapped(function)
    collector = Collector(function, stand_ins)
    return _packed(collector, _root(collector, function))


def call_of(
    function: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    stand_ins: Mapping[Any, str] = NO_STAND_INS,
) -> PythonCall:
    """A call as data: the body and a snapshot of its arguments.

    Classes of the function's own module whose instances are among the arguments go along. They do
    not when `function` is a Body already: then the body must name them itself.

    Args:
        function: A Body, or what `body_of` takes.
        args: Positional arguments.
        kwargs: Arguments by name.
        stand_ins: As for `body_of`.

    Raises:
        RequestError: The body or an argument cannot travel; says which and of what type.
    """
    call = (tuple(args), dict(kwargs or {}))
    if isinstance(function, Body):
        payload, buffers = _arguments(function.name, call, None)
        return PythonCall(function, payload, buffers)
    function = _unwrapped(function)
    collector = Collector(function, stand_ins)
    root = _root(collector, function)
    payload, buffers = _arguments(collector.name, call, collector)
    return PythonCall(_packed(collector, root), payload, buffers)


def _unwrapped(function: Any) -> Any:
    inner = getattr(function, "fn", None)
    return inner if isinstance(inner, FunctionType) else function


def _root(collector: Collector, function: Any) -> tuple[Any, ...]:
    if not callable(function):
        raise RequestError(f"{function!r} was given as a body", "it cannot be called")
    if _is_named(function) and (is_installed(function) or not _has_source(function)):
        return ("named", function.__module__, function.__qualname__)
    if is_installed(function) and _is_inside_a_task(function):
        return ("inner", function.__module__, function.__qualname__)
    return collector.spec(collector.name, function)


def _has_source(function: Any) -> bool:
    return isinstance(function, (FunctionType, MethodType, type)) or hasattr(
        function, "__wrapped__"
    )


def _is_named(function: Any) -> bool:
    """Whether importing its module and asking for its name gives this very function."""
    return _found_by_name(function) is function


def _is_inside_a_task(function: Any) -> bool:
    """Whether its name in its module stands for an engine's task made from it."""
    return getattr(_found_by_name(function), "fn", None) is function


def _found_by_name(function: Any) -> Any:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__":
        return None
    try:
        return values.find(module, name)
    except (ImportError, AttributeError):
        return None


def _packed(collector: Collector, root: tuple[Any, ...]) -> Body:
    items = [item.told() for item in collector.items]
    core = {"root": root, "items": items}
    places = [item.place for item in collector.items]
    # marshal 0 writes equal values equally; pickle would also show which of them are one object.
    digest = hashlib.sha256(marshal.dumps(core, 0)).hexdigest()
    blob = pickle.dumps({**core, "places": places, "modules": collector.modules}, 5)
    return Body(collector.name, digest, blob)


def _arguments(
    name: str, call: tuple[tuple[Any, ...], dict[str, Any]], collector: Collector | None
) -> tuple[bytes, tuple[Any, ...]]:
    key_of = collector.key_of if collector else None
    try:
        payload, buffers = values.dumps(call, key_of=key_of)
    except RequestError:
        raise
    except Exception as error:
        raise _cannot_travel(name, call, key_of, error) from error
    return payload, tuple(map(snapshot, buffers))


def _cannot_travel(
    name: str, call: tuple[tuple[Any, ...], dict[str, Any]], key_of: Any, error: Exception
) -> RequestError:
    """Find the argument that it is."""
    named = {f"number {index + 1}": value for index, value in enumerate(call[0])}
    named.update({repr(key): value for key, value in call[1].items()})
    for which, value in named.items():
        try:
            values.dumps(value, key_of=key_of)
        except Exception as inner:  # noqa: BLE001 - pickling runs the user's code
            return RequestError(
                f"{name} was called with its argument {which} of type {type(value).__qualname__}",
                f"it cannot be pickled ({inner})",
                "pass plain data, arrays or the path of a file",
            )
    return RequestError(f"{name} was called", f"its arguments cannot be pickled ({error})")
