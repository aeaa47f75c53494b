"""Values on the shared file system, as the driver holds them: by reference, until asked for."""

from __future__ import annotations

import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from hpcburst.errors import RequestError, RunError
from hpcburst.results import Stored
from hpcburst.workers.guest import values


class Reference:
    """A large value that a body left in a file, and the life of that file.

    The file is removed when nobody holds the reference any more, at the latest when the process
    ends. Whoever pickles a reference gets something that is known by the value's digest alone: that
    does for keys of caches, and cannot be read again.

    Args:
        stored: Where the value is.
        name: The task that left it, for messages.
    """

    def __init__(self, stored: Stored, name: str) -> None:
        self.stored = stored
        self._name = name
        weakref.finalize(self, _remove, stored.path)

    def load(self) -> Any:
        """The value. Arrays in it are views of the file: what is not looked at is not read.

        Raises:
            RunError: The file is gone.
            RequestError: The value cannot be rebuilt here.
        """
        try:
            return values.load_kept(self.stored.path)
        except FileNotFoundError as error:
            raise RunError(
                f"The value of task {self._name!r} was asked for",
                f"its file is gone ({self.stored.path})",
                "run the task again",
            ) from error
        except Exception as error:
            raise RequestError(
                f"Task {self._name!r} returned a value of its env",
                f"it cannot be read here ({type(error).__name__}: {error})",
                "return plain data, arrays or the path of a file",
            ) from error

    def travelling(self) -> values.Kept:
        """What goes to a guest in its place: the guest loads the value by itself."""
        return values.Kept(self.stored.path)

    def __repr__(self) -> str:
        size_mb = self.stored.size_bytes / 1e6
        return f"<value of task {self._name!r}, {size_mb:.0f} MB in {self.stored.path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unreadable, (self.stored.digest,)


def _unreadable(digest: str) -> NoReturn:
    raise RequestError(
        f"A reference to a value was unpickled (digest {digest[:16]})",
        "only the process that ran the task can read it",
        "pass the value: future.result()",
    )


def _remove(path: str) -> None:
    with suppress(OSError):
        Path(path).unlink(missing_ok=True)
