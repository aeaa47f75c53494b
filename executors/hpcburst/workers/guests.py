"""Warm guests, kept per env: leased for one task, then given to the next."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.errors import SiteError
from hpcburst.workers.activation import replay
from hpcburst.workers.guest_memory import Spares
from hpcburst.workers.guest_process import Guest
from hpcburst.workers.guest_talk import GuestReply
from hpcburst.workers.oom import oom_kills

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hpcburst.tasks import Env

__all__ = ["Guest", "GuestPool", "GuestReply", "install_guest"]

MAX_IDLE = 8
"""Warm guests kept idle: each holds the modules its bodies imported, often 100 MB and more."""

PACKAGE = "hpcburst_guest"

FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables that point an env's interpreter at the packages of another one."""


def install_guest(folder: Path) -> Path:
    """Copy the guest's code where envs' interpreters find it and may keep their byte code.

    Args:
        folder: A private folder on the node's own disk; made if it is not there.

    Returns:
        The home to give to `Guest` and `GuestPool`. Installing again gives the same one.

    Raises:
        SiteError: The folder is open to others.
    """
    _check_private(folder)
    sources = sorted((Path(__file__).parent / "guest").glob("*.py"))
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    home = folder / f"guest-{digest}"
    if not home.exists():
        aside = Path(tempfile.mkdtemp(dir=folder, prefix=".guest-"))
        try:
            (aside / PACKAGE).mkdir(mode=0o700)
            for source in sources:
                shutil.copyfile(source, aside / PACKAGE / source.name)
            with suppress(FileExistsError, OSError):  # another thread was first
                aside.rename(home)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return home


def _check_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return
    raise SiteError(
        f"The pilot needs a private folder and was given {folder}",
        "it belongs to somebody else, is open to others, or is not a folder",
        "remove it, or set its mode to 0700",
    )


class GuestPool:
    """Warm guests of many envs. Threads may use it at the same time.

    Args:
        home: What `install_guest` gave.
        environ: Process environment, before an env's activation.
        max_idle: Guests kept idle; the longest unused is let go beyond that.
    """

    def __init__(self, *, home: Path, environ: Mapping[str, str], max_idle: int = MAX_IDLE) -> None:
        self._home = home
        self._environ = dict(environ)
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[tuple[str, Guest]] = []  # oldest first
        self._out: set[Guest] = set()
        self._closed = False
        self._spares = Spares()
        # Guests die with the thread that started them, so one thread starts them all and lasts.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="hpcburst-guests")

    @contextmanager
    def lease(self, env: Env | None) -> Iterator[Guest]:
        """A warm guest of an env for one task; a new one if none is idle.

        Args:
            env: The env; None is the pilot's own Python.

        Raises:
            SiteError: The pool is closed.
        """
        guest = self._take(env)
        try:
            yield guest
        except BaseException:
            guest.kill()  # nobody knows what it is doing
            raise
        finally:
            self._give_back(_key(env), guest)

    def warm(self, env: Env | None) -> None:
        """Start a guest of an env if none is idle; does not wait for it."""
        with self._lock:
            if self._closed or any(key == _key(env) for key, _ in self._idle):
                return
        self._give_back(_key(env), self._take(env))

    def close(self) -> None:
        """End all guests, also those that run a body. Idempotent."""
        with self._lock:
            self._closed = True
            guests = [guest for _, guest in self._idle] + list(self._out)
            self._idle.clear()
        for guest in guests:
            guest.close()
        self._starter.shutdown()
        self._spares.close()

    def _take(self, env: Env | None) -> Guest:
        guest = self._take_idle(_key(env)) or self._start(env)
        guest.kills_before = oom_kills() or 0  # what other guests were killed for is not its own
        with self._lock:
            self._out.add(guest)
            late = self._closed
        if late:
            self._give_back(_key(env), guest)
            raise _ending()
        return guest

    def _take_idle(self, key: str) -> Guest | None:
        """The warmest one: used last."""
        while True:
            with self._lock:
                if self._closed:
                    raise _ending()
                found = [row for row in self._idle if row[0] == key][-1:]
                if not found:
                    return None
                self._idle.remove(found[0])
            guest = found[0][1]
            if guest.alive:
                return guest
            guest.close()

    def _give_back(self, key: str, guest: Guest) -> None:
        leaving: list[Guest] = []
        with self._lock:
            self._out.discard(guest)
            if guest.alive and not self._closed:
                self._idle.append((key, guest))
            else:
                leaving.append(guest)
            while len(self._idle) > self._max_idle:
                leaving.append(self._idle.pop(0)[1])
        for each in leaving:
            each.close()

    def _start(self, env: Env | None) -> Guest:
        return Guest(
            sys.executable if env is None else env.interpreter,
            environ=self._environ_of(env),
            home=self._home,
            start=self._in_starter,
            spares=self._spares,
        )

    def _in_starter(self, function: Callable[[], Any]) -> Any:
        try:
            return self._starter.submit(function).result()
        except RuntimeError as error:  # shut down between our look and now
            raise _ending() from error

    def _environ_of(self, env: Env | None) -> dict[str, str]:
        """The pilot's own Python is left as it runs here; an env gets nothing of another one."""
        if env is None:
            return self._environ
        environ = {name: text for name, text in self._environ.items() if name not in FOREIGN}
        environ["PYTHONNOUSERSITE"] = "1"
        return replay(env.activation, environ)


def _ending() -> SiteError:
    return SiteError("A task came to a pilot", "the pilot is ending")


def _key(env: Env | None) -> str:
    return "" if env is None else env.key
