"""Where the server's files lie, and what is noted of the processes that run."""

from __future__ import annotations

import grp
import json
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcburst.comms.staging import (
    check_place,
    check_private,
    private_folder,
    process_started_at,
    write_private,
)
from hpcburst.envs.depot.placing import filesystem_of, is_network
from hpcburst.errors import RequestError
from hpcburst_recipes.prefect_server.settings import shell_text


@dataclass(frozen=True, slots=True)
class Process:
    """A process of ours, told from any later one of that number by its start.

    Attributes:
        pid: Its number.
        started: Its start in clock ticks since boot.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this number now."""
        return cls(pid, process_started_at(pid))

    def lives(self) -> bool:
        """Whether it runs; asked on its own machine."""
        return bool(self.started) and process_started_at(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Running:
    """What `up` has started.

    Attributes:
        machine: Name of the machine it runs on.
        address: Address the server listens on.
        port: Its port.
        url: URL of its API.
        database: URL of its database.
        server: Its process.
        pool: Work pool of the worker.
        worker: The worker's process; None without one.
    """

    machine: str
    address: str
    port: int
    url: str
    database: str
    server: Process
    pool: str
    worker: Process | None = None

    @property
    def is_here(self) -> bool:
        """Whether it was started on this machine."""
        return self.machine == socket.gethostname()


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one server, which every node sees.

    Attributes:
        folder: That folder.
    """

    folder: Path

    @property
    def secret_file(self) -> Path:
        """The one line that the login form asks for."""
        return self.folder / "secret"

    @property
    def shell_file(self) -> Path:
        """What a shell sources to speak to the server."""
        return self.folder / "server.sh"

    @property
    def results(self) -> Path:
        """Where results are kept: a job must find what an earlier one has left."""
        return self.folder / "results"

    def make(self) -> None:
        """Make the folder, or check the one that is there.

        Raises:
            hpcburst.errors.SiteError: Others could change what is in it.
        """
        if self.folder.exists():
            check_private(self.folder)
        else:
            private_folder(self.folder)
        private_folder(self.results)

    def log(self, name: str) -> Path:
        """Where a process of ours writes."""
        return self.folder / f"{name}.log"

    def secret(self) -> str:
        """The secret, made when there is none."""
        with suppress(FileNotFoundError):
            return self.secret_file.read_text().strip()
        return self.renew_secret()

    def renew_secret(self) -> str:
        """Make another secret: somebody may know the old one."""
        write_private(self.secret_file, f"hpcburst:{secrets.token_urlsafe(32)}\n".encode())
        return self.secret_file.read_text().strip()

    def read(self) -> Running | None:
        """What was started; None if nothing was."""
        try:
            fields = json.loads(self._note.read_text())
            worker = fields["worker"] and Process(**fields["worker"])
            server = Process(**fields["server"])
            return Running(**{**fields, "server": server, "worker": worker})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, running: Running) -> None:
        """Note what runs, and where jobs and shells find it."""
        write_private(self._note, json.dumps(asdict(running)).encode())
        write_private(self.shell_file, shell_text(running.url, self.secret()).encode())

    def forget(self) -> None:
        """Nothing runs any more; the secret stays, so that tunnels and scripts go on to work."""
        for path in (self._note, self.shell_file):
            path.unlink(missing_ok=True)

    def share(self, group: str) -> None:
        """Let a group read the secret and the server's address, and nothing else.

        Raises:
            RequestError: There is no such group, or we are not in it.
        """
        try:
            number = grp.getgrnam(group).gr_gid
            for path, mode in (
                (self.folder, 0o710),
                (self.shell_file, 0o640),
                (self.secret_file, 0o640),
            ):
                os.chown(path, -1, number)
                path.chmod(mode)
        except (KeyError, PermissionError) as error:
            raise RequestError(
                f"The server was to be shared with the group {group!r}",
                "there is no such group" if isinstance(error, KeyError) else "you are not in it",
                "name one of `id -Gn`",
            ) from error

    @property
    def _note(self) -> Path:
        return self.folder / "running.json"


def disk_folder(node_root: Path) -> Path:
    """A private folder on this machine's own disk for the database, made if need be.

    SQLite on a network file system loses data. A home that is on one gives way to the node's disk,
    which a reboot may clear.
    """
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    if not is_network(filesystem_of(home)):
        return private_folder(home / "hpcburst" / "prefect")
    node_root.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_place(node_root)
    return private_folder(node_root / f"hpcburst-prefect-{os.getuid()}")
