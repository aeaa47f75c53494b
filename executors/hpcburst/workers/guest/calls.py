"""One call of a body: make it ready, run it, say how it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import types
from contextlib import contextmanager, suppress
from typing import Any, Iterator, Sequence

from . import stored, streams, values
from .logs import STAND_INS
from .rebuild import Rebuilt
from .usage import Meter

HERE = os.path.dirname(os.path.abspath(__file__))
_ASYNCIO = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "asyncio")

_INSTEAD = {
    "generator": "return a list: list(...)",
    "async_generator": "collect it into a list and return that",
    "map": "return a list: list(...)",
    "filter": "return a list: list(...)",
    "zip": "return a list: list(...)",
    "TextIOWrapper": "close the file and return its path",
    "BufferedReader": "close the file and return its path",
    "BufferedWriter": "close the file and return its path",
    "function": "return its result, or define it at the top of the file",
    "module": "return its name",
    "Connection": "return the rows",
}


class RefusedError(Exception):
    """A call that cannot even begin, or whose value cannot go home."""

    def __init__(self, fault: str, message: str, cause: BaseException) -> None:
        super().__init__(message)
        self.fault = fault
        self.cause = cause


class Caller:
    """Runs calls one after the other and remembers the bodies it has seen.

    Args:
        marks: Told when a call begins.
    """

    def __init__(self, marks: streams.Marks) -> None:
        self._marks = marks
        self._meter = Meter()
        self._bodies: dict[str, Rebuilt] = {}
        self._home = os.getcwd()
        self._reached = ("", "")
        self._path = list(sys.path)
        self._main = threading.get_ident()
        self._handler = self.interrupt
        self._running = False
        self._held = False
        self._late = False

    def interrupt(self, *_: Any) -> None:
        """Handler of SIGINT: stops a body, and nothing else.

        Raises:
            KeyboardInterrupt: A body runs.
        """
        if self._held:
            self._late = True
        elif self._running:
            raise KeyboardInterrupt

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Put an interrupt off: half a message on the line would be the end of the guest.

        Raises:
            KeyboardInterrupt: One came meanwhile.
        """
        if threading.get_ident() != self._main:  # only the main thread is interrupted
            yield
            return
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._late:
                self._late = False
                self.interrupt()

    def answer(self, message: dict[str, Any], parts: Sequence[Any]) -> Any:
        """Do what one message asks; never raises.

        Returns:
            The reply and its parts: what it took, then the pickled value, or the pickled exception
            if it has one.
        """
        self._marks.begin()
        self._meter.begin()
        try:
            reply, out = self._answer(message, parts)
        except BaseException as error:  # noqa: BLE001 - all that a body raises is a reply
            self._running = False
            reply, out = _failure(error, self._bodies.get(message["key"]))
        streams.flush()
        streams.restore()
        return reply, [self._meter.end(), *out]

    def _answer(self, message: dict[str, Any], parts: Sequence[Any]) -> Any:
        body, args, kwargs = self._ready(message, parts)
        value = self._run(body.function, args, kwargs)
        try:
            payload, buffers = values.dumps(value, key_of=body.key_of)
        except Exception as error:
            raise RefusedError(
                "result", _unpicklable(message["name"], value, error), error
            ) from error
        return _home_or_kept(message.get("keep"), payload, buffers)

    def _ready(self, message: dict[str, Any], parts: Sequence[Any]) -> Any:
        name, parts = message["name"], list(parts)
        self._go_to(message["cwd"] or self._home, message["paths"])
        blob = parts.pop(0) if message["blob"] else None
        if message["forget"]:
            self._bodies.clear()
        try:
            if blob is not None:
                self._bodies[message["key"]] = Rebuilt(bytes(blob), STAND_INS)
            body = self._bodies[message["key"]]
        except Exception as error:
            text = "The body {} cannot be rebuilt in Python {} of {}: {}"
            raise RefusedError("arguments", _filled(text, name, error), error) from error
        try:
            args, kwargs = values.loads(parts[0], parts[1:], resolve=body.resolve)
        except Exception as error:
            text = "The arguments of {} cannot be read in Python {} of {}: {}"
            raise RefusedError("arguments", _filled(text, name, error), error) from error
        return body, args, kwargs

    def _go_to(self, cwd: str, paths: list[str]) -> None:
        try:
            if self._reached != (cwd, _here()):  # a shared file system is not asked for nothing
                os.chdir(cwd)
                self._reached = (cwd, _here())
        except OSError as error:
            text = "The folder {} is to be worked in, and this node cannot enter it: {}"
            raise RefusedError("arguments", text.format(cwd, error.strerror), error) from error
        sys.path[:] = self._path + [path for path in paths if path not in self._path]
        if signal.getsignal(signal.SIGINT) is not self._handler:  # changed by the last body
            signal.signal(signal.SIGINT, self._handler)

    def _run(self, function: Any, args: Any, kwargs: Any) -> Any:
        pid = os.getpid()
        try:
            self._running = True
            value = function(*args, **kwargs)
            if isinstance(value, types.CoroutineType):
                import asyncio

                value = asyncio.run(value)
            return value
        finally:
            self._running = False
            if os.getpid() != pid:  # the body forked, and its child came back here
                os._exit(0 if sys.exc_info()[0] is None else 1)


def _home_or_kept(folder: str | None, payload: bytes, buffers: Sequence[memoryview]) -> Any:
    """The reply with a value: a large one is left in a file, if there is a folder for it."""
    size = len(payload) + sum(buffer.nbytes for buffer in buffers)
    if folder and size >= stored.LARGE_BYTES:
        with suppress(OSError):  # no room there: it goes home
            return {"reply": "ok", "kept": list(stored.write(folder, payload, buffers))}, []
    return {"reply": "ok"}, [payload, *buffers]


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed
        return ""


def _failure(error: BaseException, body: Rebuilt | None) -> Any:
    fault, cause = "raised", error
    message = _text(error)
    if isinstance(error, RefusedError):
        fault, cause, message = error.fault, error.cause, str(error)
    reply = {
        "reply": fault,
        "kind": type(cause).__name__,
        "message": message,
        "traceback": "" if fault == "result" else _traceback(cause),
    }
    pickled = _pickled(cause, body) if fault == "raised" else None
    return reply, [] if pickled is None else [pickled]


def _pickled(error: BaseException, body: Rebuilt | None) -> bytes | None:
    """The exception, if it survives the way home.

    `SystemExit` and its kin must not: they would end the driver.
    """
    if body is None or not isinstance(error, Exception):
        return None
    try:
        payload, _ = values.dumps(error, key_of=body.key_of, in_band=True)
        values.loads(payload, resolve=body.resolve)
        return payload
    except Exception:  # noqa: BLE001 - pickling runs the user's code
        return None


def _traceback(error: BaseException) -> str:
    """The traceback as the user knows it, without the frames that only brought it here."""
    told = traceback.TracebackException(type(error), error, error.__traceback__)
    own = [frame for frame in told.stack if not frame.filename.startswith(HERE)]
    while own and own[0].filename.startswith(_ASYNCIO):
        del own[0]
    told.stack[:] = own
    return "".join(told.format())


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as inner:  # noqa: BLE001 - it is the user's own __str__
        return "(its message cannot be had: {})".format(type(inner).__name__)


def _filled(text: str, name: str, error: BaseException) -> str:
    version = "{}.{}".format(*sys.version_info[:2])
    return text.format(name, version, sys.prefix, "{}: {}".format(type(error).__name__, error))


def _unpicklable(name: str, value: Any, error: BaseException) -> str:
    kind = type(value).__name__
    instead = _INSTEAD.get(kind, "return plain data, arrays or the path of a file")
    return "{} returned a value of type {} that cannot be pickled ({}); {}".format(
        name, kind, _text(error), instead
    )
