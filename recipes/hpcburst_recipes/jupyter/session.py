"""What a session's job runs: JupyterLab on one checkpoint, until it is decided or the time is up.

    python -m hpcburst_recipes.jupyter.session PLAN

The plan (JSON) names the bundle, the session and its walltime. A session tells where it is in the
bundle's `session.json`, and leaves nothing on its node. Whatever ends it, the checkpoint waits on;
the page has saved the notebook every few seconds.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from hpcburst.comms.staging import write_private
from hpcburst.errors import BurstError
from hpcburst.tasks import Env
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.notebook import NOTEBOOK
from hpcburst_recipes.checkpoints.record import keep_record
from hpcburst_recipes.jupyter.kernels import Home, home_of
from hpcburst_recipes.jupyter.panel import CLOSE_FILE, SESSION_FILE
from hpcburst_recipes.jupyter.server import Server
from hpcburst_recipes.jupyter.warm import warm_up

TOKEN_FILE = "session.token"  # noqa: S105 - the name of a file

LOOK_EVERY_S = 0.5

LEAVE_S = 20.0
"""Seconds before the end of the walltime at which a session ends by itself, all saved."""

SAVED_WITHIN_S = 10.0
"""Seconds the page gets to save the notebook after the decision."""

LINGER_S = 5.0
"""Seconds the page stays after the decision, for the person to read that it went on."""


class Phase(StrEnum):
    """Where a session is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Session:
    """What a session tells of itself.

    Attributes:
        phase: Where it is in its life.
        name: Its own name, given by who opened it.
        host: The node it runs on.
        socket: Path of its socket there.
        ends: When it ends, in seconds since 1970.
        why: Why it ended, or what is wrong with its cells; "" is nothing.
    """

    phase: Phase
    name: str
    host: str
    socket: str = ""
    ends: float = 0.0
    why: str = ""


def read_session(folder: Path) -> Session | None:
    """The session of a bundle, as it told last; None before it told anything."""
    try:
        told = json.loads((folder / SESSION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Session(**{**told, "phase": Phase(told["phase"])})


def write_plan(path: Path, bundle: Path, name: str, walltime_s: float) -> None:
    """Write what a session's job reads."""
    plan = {"bundle": str(bundle), "name": name, "walltime_s": walltime_s}
    write_private(path, json.dumps(plan).encode())


def run_session(folder: Path, name: str, walltime_s: float) -> str:
    """Hold a session on a bundle; returns why it ended."""
    checkpoint = Checkpoint(folder)
    with suppress(FileNotFoundError):
        (folder / CLOSE_FILE).unlink()
    leaving = _Leaving(walltime_s)
    session = Session(Phase.STARTING, name, socket.gethostname(), ends=leaving.ends)
    _tell(folder, session)
    server = None
    why = "it could not start"
    try:
        server = Server.start(folder, _home(checkpoint))
        server.wait_up()
        stopped = warm_up(server, folder)
        write_private(folder / TOKEN_FILE, server.token.encode())
        here = {"phase": Phase.RUNNING, "socket": str(server.socket), "why": stopped}
        session = _tell(folder, Session(**{**asdict(session), **here}))
        why = _wait_for_end(checkpoint, server, leaving, name)
    except BurstError as error:
        why = str(error)
    finally:
        if server is not None:
            server.stop()
        if _is_current(folder, name):
            (folder / TOKEN_FILE).unlink(missing_ok=True)
            _tell(folder, Session(**{**asdict(session), "phase": Phase.ENDED, "why": why}))
    return why


class _Leaving:
    """When to leave: shortly before the walltime, or when the batch system says so."""

    def __init__(self, walltime_s: float) -> None:
        self.ends = time.time() + walltime_s
        self.told = False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, self._hear)

    def due(self) -> bool:
        return self.told or time.time() > self.ends - LEAVE_S

    def _hear(self, *_: object) -> None:
        self.told = True


def _wait_for_end(checkpoint: Checkpoint, server: Server, leaving: _Leaving, name: str) -> str:
    folder = Path(checkpoint.folder)
    while True:
        if checkpoint.outcome() is not None:
            _keep(checkpoint)
            time.sleep(LINGER_S)
            return "it was decided"
        if (folder / CLOSE_FILE).exists():
            return "it was closed; the checkpoint waits"
        if leaving.due():
            return "its walltime was over; the checkpoint waits"
        if server.process.poll() is not None:
            return "nobody used it; the checkpoint waits"
        if not _is_current(folder, name):
            return "a longer one took its place"
        time.sleep(LOOK_EVERY_S)


def _keep(checkpoint: Checkpoint) -> None:
    """Keep the record once more, with what the page saved after the decision."""
    notebook = Path(checkpoint.folder) / NOTEBOOK
    decided_at = float((checkpoint.outcome() or {}).get("at", 0.0))
    deadline = time.monotonic() + SAVED_WITHIN_S
    while notebook.stat().st_mtime < decided_at and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    keep_record(checkpoint)


def _home(checkpoint: Checkpoint) -> Home:
    question = checkpoint.question
    shared_root = Path(checkpoint.folder).parent.parent
    built = question["kernel_env"]
    return home_of(Env(**built) if built else None, shared_root)


def _tell(folder: Path, session: Session) -> Session:
    write_private(folder / SESSION_FILE, json.dumps(asdict(session)).encode())
    return session


def _is_current(folder: Path, name: str) -> bool:
    session = read_session(folder)
    return session is not None and session.name == name


def main(argv: list[str]) -> int:
    """Hold a session; exit status 0 however it ended in order."""
    os.umask(0o077)
    plan = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    print(run_session(Path(plan["bundle"]), plan["name"], plan["walltime_s"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
