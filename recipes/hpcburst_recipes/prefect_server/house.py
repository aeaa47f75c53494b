"""What `hpcburst prefect up`, `status` and `down` do."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.comms.exports import SERVER_FILE
from hpcburst.errors import RequestError, SiteError
from hpcburst_recipes.prefect_server import processes
from hpcburst_recipes.prefect_server.place import Place, Running, disk_folder
from hpcburst_recipes.prefect_server.settings import (
    api_url,
    check_database,
    client_variables,
    first_port,
    server_variables,
    sqlite_url,
    without_prefect,
)

if TYPE_CHECKING:
    from hpcburst.policy.model import Site

WORKER_TYPE = "hpcburst"


@dataclass(frozen=True, slots=True)
class Wish:
    """What `up` is asked for.

    Attributes:
        pool: Work pool of the worker.
        address: Address the server listens on; None is the site's own.
        port: Its port; None is one of the user's own.
        database: URL of a database that others run; None is a file of its own.
        group: Group that may use the server; None is nobody else.
        worker: Whether a worker is wanted.
    """

    pool: str = "hpcburst"
    address: str | None = None
    port: int | None = None
    database: str | None = None
    group: str | None = None
    worker: bool = True


@dataclass(frozen=True, slots=True)
class House:
    """The server and the worker of one place.

    Attributes:
        site: What the site allows.
        place: Where the files lie.
        say: Told what takes a while.
    """

    site: Site
    place: Place
    say: Callable[[str], None]

    def up(self, wish: Wish) -> Running:
        """Start what does not run yet.

        Raises:
            SiteError: It cannot be started, or runs on a machine that cannot be reached from here.
            RequestError: Something asked for cannot be.
        """
        if wish.group and self.place.folder == self.site.paths.shared_root / "prefect":
            raise RequestError(
                f"The server was to be shared with the group {wish.group!r}",
                "its folder is below one that is yours alone",
                "say --folder with one that the group can reach",
            )
        _check_prefect()
        self.place.make()
        with self._alone():
            running = self._server(wish)
            if wish.group:
                self.place.share(wish.group)
            return self._worker(running) if wish.worker else running

    def down(self) -> Running | None:
        """End what runs; what was started, or None. The database and the secret stay.

        Raises:
            SiteError: It runs on another machine.
        """
        running = self.place.read()
        if running is None:
            return None
        self._check_here(running)
        for process in (running.worker, running.server):
            if process is not None:
                processes.stop(process)
        self.place.forget()
        return running

    def status(self) -> dict[str, Any]:
        """What runs, as plain data; no secret in it."""
        running = self.place.read()
        if running is None:
            return {"server": False, "worker": False, "folder": str(self.place.folder)}
        well = _answers(running)
        ready = well and processes.pool_is_ready(running.url, running.pool, self.place.secret())
        return {
            "server": well,
            "worker": ready,
            "folder": str(self.place.folder),
            "url": running.url,
            "address": running.address,
            "port": running.port,
            "machine": running.machine,
            "pool": running.pool,
            "database": running.database,
            "secret_file": str(self.place.secret_file),
            "shell_file": str(self.place.shell_file),
            "logs": [str(self.place.log(name)) for name in ("server", "worker")],
        }

    def _server(self, wish: Wish) -> Running:
        known = self.place.read()
        if known is not None:
            if _answers(known):
                return replace(known, pool=wish.pool) if not _works(known) else known
            self._check_here(known)
            processes.stop(known.server)
            if processes.is_well(known.url):
                self.say("somebody else listens where the server was: the secret is made anew")
                self.place.renew_secret()
        return self._start_server(wish, known)

    def _start_server(self, wish: Wish, known: Running | None) -> Running:
        """Start it where it was, if it was anywhere: bookmarks and waiting jobs know that place."""
        address = wish.address or (known.address if known else self.site.host)
        first = wish.port or (known.port if known else first_port(os.getuid()))
        port = processes.free_port(address, first)
        disk = disk_folder(self.site.paths.node_root)
        database = known.database if known else sqlite_url(disk)
        database = check_database(wish.database) if wish.database else database
        variables = without_prefect(os.environ)
        variables |= server_variables(database, disk, self.place.secret())
        self.say("starting the server, which takes about ten seconds")
        words = ["server", "start", "--host", address, "--port", str(port)]
        log, url = self.place.log("server"), api_url(address, port)
        server = processes.start(words, variables, log)
        running = Running(socket.gethostname(), address, port, url, database, server, wish.pool)
        processes.await_answer(server, lambda: _answers(running), "server", log)
        self.place.note(running)
        return running

    def _worker(self, running: Running) -> Running:
        if running.is_here and _works(running):
            return running
        if not running.is_here and processes.pool_is_ready(
            running.url, running.pool, self.place.secret()
        ):
            return running
        self._check_here(running)
        variables = without_prefect(os.environ) | self.worker_variables(running.url)
        self.say("starting the worker")
        words = ["worker", "start", "--pool", running.pool, "--type", WORKER_TYPE]
        log = self.place.log("worker")
        worker = processes.start(words, variables, log)
        processes.await_answer(
            worker,
            lambda: processes.pool_is_ready(running.url, running.pool, self.place.secret()),
            "worker",
            log,
        )
        started = replace(running, worker=worker)
        self.place.note(started)
        return started

    def worker_variables(self, url: str) -> dict[str, str]:
        """Environment of the worker, beside the usual; its jobs get it with their tickets."""
        return {
            **client_variables(url, self.place.secret()),
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(self.place.results),
            SERVER_FILE: str(self.place.shell_file),
        }

    def _check_here(self, running: Running) -> None:
        if not running.is_here:
            raise SiteError(
                f"The Prefect server of {self.place.folder} was looked for",
                f"it was started on {running.machine}, and this is {socket.gethostname()}",
                f"log in there; if that machine is gone for good, remove {self.place.folder}"
                "/running.json",
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second `up` on this machine out; on its own disk, locks work."""
        lock = disk_folder(self.site.paths.node_root) / "up.lock"
        with lock.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def house_of(site: Site, folder: Path | None, say: Callable[[str], None]) -> House:
    """The house in a folder; None is the user's own."""
    chosen = (folder or site.paths.shared_root / "prefect").absolute()
    return House(site, Place(chosen), say)


def _works(running: Running) -> bool:
    return running.worker is not None and running.worker.lives()


def _answers(running: Running) -> bool:
    """Whether a server answers there that may be told the secret: on this machine, our own.

    When ours has died anybody may listen on its port, and callers would hand him the secret.
    """
    mine = not running.is_here or processes.is_ours(running.port)
    return mine and processes.is_well(running.url)


def _check_prefect() -> None:
    from importlib.util import find_spec

    if find_spec("prefect") is None:
        raise RequestError(
            "A Prefect server was to be started",
            "Prefect is not installed beside hpcburst",
            "pip install 'hpcburst[prefect]'",
        )
