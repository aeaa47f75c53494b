"""The way from a person's browser to a session's socket: no port is opened on any other machine.

On the machine of the command a port of the loopback leads to the socket: directly if it is here,
else through a relay that `srun` or `ssh` runs on its node. Whoever finds the port needs the token.
"""

from __future__ import annotations

import asyncio
import html
import shlex
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hpcburst.comms.staging import write_private
from hpcburst.errors import SiteError
from hpcburst_recipes.checkpoints.notebook import NOTEBOOK
from hpcburst_recipes.jupyter.session import TOKEN_FILE, Session

PROGRAM = Path(__file__).with_name("relay.py")

BLOCK = 65536

SAME_PORT = 8888
"""Port on the laptop in the command that is printed for it."""

OPENER = "open.html"


def relay_argv(session: Session, scheduler: str, job_id: str) -> list[str]:
    """The command that joins its standard input and output to the session's socket.

    [] when the socket is on this machine.
    """
    if session.host == socket.gethostname():
        return []
    program = [sys.executable, "-I", "-S", str(PROGRAM), session.socket]
    if scheduler == "slurm":
        return ["srun", f"--jobid={job_id}", "--overlap", "--quiet", "--ntasks=1", *program]
    # ssh hands a text to the shell of the other side. A shared connection asks for a second
    # factor once; it is the user's own ssh configuration that says how to get there.
    share = ["-o", "ControlMaster=auto", "-o", "ControlPath=~/.ssh/hpcburst-%C"]
    return ["ssh", *share, "-o", "ControlPersist=60", session.host, shlex.join(program)]


def laptop_command(session: Session, login: str, port: int = SAME_PORT) -> str:
    """The command that makes the tunnel from a laptop, by way of the login node."""
    tunnel = ["ssh", "-N", "-L", f"127.0.0.1:{port}:{session.socket}"]
    if session.host == socket.gethostname():
        return shlex.join([*tunnel, login])
    return shlex.join([*tunnel, "-J", login, session.host])


def this_login() -> str:
    """The name of this very machine: of several login nodes behind one name, it must be this."""
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name


def read_token(folder: Path) -> str:
    """The token of the session on a bundle.

    Raises:
        SiteError: There is none: the session has ended.
    """
    try:
        return (folder / TOKEN_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise SiteError("The session's token was to be read", str(error)) from error


def address(port: int, token: str) -> str:
    """What to open in a browser; it has the token in it."""
    return f"http://127.0.0.1:{port}/doc/tree/{NOTEBOOK}?token={token}"


def write_opener(folder: Path, url: str) -> Path:
    """A private page that leads to the session.

    A browser that was given the address itself would show the token to everybody who lists
    processes.
    """
    page = folder / OPENER
    to = html.escape(url, quote=True)
    text = f'<!doctype html><meta http-equiv="refresh" content="0;url={to}"><a href="{to}">Open</a>'
    write_private(page, text.encode())
    return page


@dataclass(slots=True)
class Tunnel:
    """A port of this machine's loopback that leads to a session.

    Args:
        socket: Path of the session's socket.
        argv: Command to reach it by; empty when it is here.
    """

    socket: str
    argv: Sequence[str] = ()
    port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop = self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(loop, ready), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _serve(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        server = loop.run_until_complete(asyncio.start_server(self._join, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        try:
            loop.run_forever()
        finally:
            server.close()
            loop.run_until_complete(_end_tasks())
            loop.close()

    async def _join(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        process = None
        try:
            if self.argv:
                process = await asyncio.create_subprocess_exec(
                    *self.argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
                there, far = process.stdin, process.stdout
            else:
                far, there = await asyncio.open_unix_connection(self.socket)
            if there is None or far is None:
                return
            await asyncio.gather(_pump(near, there), _pump(far, back))
        except OSError:
            pass  # the session has ended: the browser sees a closed connection
        finally:
            back.close()
            if process is not None and process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await source.read(BLOCK):
            sink.write(block)
            await sink.drain()
    sink.close()


async def _end_tasks() -> None:
    """End what still goes on in this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
