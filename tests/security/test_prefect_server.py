"""A Prefect server of one's own on a machine of many: behind a secret that only its owner has."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefect_hpcburst.worker.tickets import write_ticket
from support.processes import wait_until
from support.stranger import Stranger

pytestmark = [pytest.mark.usefixtures("careless"), pytest.mark.timeout(600)]


@dataclass
class Server:
    """A server that runs.

    Attributes:
        told: What `hpcburst prefect status` says of it.
        hpcburst: Runs `hpcburst prefect ...`.
        street: The folder that its owner's home is in.
    """

    told: dict[str, Any]
    hpcburst: Callable[..., str]
    street: Path

    @property
    def folder(self) -> Path:
        """Its folder."""
        return Path(self.told["folder"])

    @property
    def secret(self) -> str:
        """What its owner has and nobody else."""
        return Path(self.told["secret_file"]).read_text().strip()


@pytest.fixture(scope="module")
def server(street: Path, careless: None) -> Iterator[Server]:
    """Started by `hpcburst prefect up` as its user does it, without a worker."""
    home = street / "home"
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
    environ = {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    (home / "cache").mkdir(mode=0o755, exist_ok=True)

    def run(*words: str, status: int = 0) -> str:
        argv = [sys.executable, "-m", "hpcburst.cli.main", "prefect", *words]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode in (0, status), done.stdout + done.stderr
        return done.stdout

    try:
        run("up", "--no-worker")
        yield Server(json.loads(run("status", "--json", status=1)), run, street)
    finally:
        run("down")


GUESSES = ("", "hpcburst:", "hpcburst:hpcburst", "admin:admin", ":")

QUESTIONS = (
    "GET /api/admin/version",
    "GET /api/admin/settings",
    "POST /api/flow_runs/filter",
    "POST /api/flow_runs/00000000-0000-4000-8000-000000000000/resume",
    "POST /api/work_pools/",
    "POST /api/logs/filter",
    "POST /api/deployments/filter",
    "POST /api/block_documents/filter",
    "POST /api/variables/filter",
)


def test_who_has_no_secret_is_told_nothing(server: Server, stranger: Stranger, tally):
    """Flow runs, logs, blocks and work pools are neither shown nor changed without the secret, nor
    with a guess of it: nobody can resume another's flow with values of his own."""
    logins = [f"Basic {base64.b64encode(guess.encode()).decode()}" for guess in GUESSES]
    asked = [f"{question} {login}".rstrip() for question in QUESTIONS for login in ("", *logins)]
    statuses = stranger.tries("ask", server.told["address"], server.told["port"], *asked)
    for question, status in zip(asked, statuses, strict=True):
        tally.note("Prefect server", question, status not in (401, 403) and f"status {status}")


def test_it_listens_on_no_public_address(server: Server, tally):
    """The server listens on the loopback unless its owner says otherwise."""
    tally.note("Prefect server", "its address", server.told["address"] != "127.0.0.1")


def test_its_files_are_closed(server: Server, stranger: Stranger, tally):
    """Secret, file for shells, database, results and logs can be read by their owner alone."""
    brought = stranger.tries("search", server.folder, server.street / "home" / "data")
    inside = [*server.folder.rglob("*"), *(server.street / "home" / "data").rglob("*")]
    assert any(path.name == "prefect.db" for path in inside), "the search has found no database"
    by_name = stranger.tries("read", *(path for path in inside if path.is_file()))
    allowed = {str(server.street / "home" / "data"), str(server.street / "home" / "data/hpcburst")}
    for found in (brought, by_name):
        for verb, paths in found.items():
            tally.note("Prefect server", f"{verb} its files", sorted(set(paths) - allowed))


def test_the_secret_is_in_its_files_alone(server: Server, stranger: Stranger, tally):
    """No argument of a process and no log holds the secret; the process's environment is closed."""
    running = json.loads((server.folder / "running.json").read_text())
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    brought = stranger.tries("processes", *pids)
    word = server.secret.partition(":")[2]
    tally.note("Prefect server", "arguments", [argv for argv in brought["argv"] if word in argv])
    own = [row for row in brought["open"] if row.startswith(f"{running['server']['pid']}/")]
    tally.note("Prefect server", "its process", own)
    logs = [path.name for path in server.folder.glob("*.log") if word in path.read_text()]
    tally.note("Prefect server", "its logs", logs)


def test_a_flows_job_takes_its_secrets_from_a_closed_file(street: Path, stranger: Stranger, tally):
    """What a worker hands to a flow's job goes by a file that its owner alone can read."""
    folder = street / "home" / "ticket"
    folder.mkdir(mode=0o755)
    ticket = write_ticket(folder, "", {"PREFECT_API_AUTH_STRING": "a:b"}, "")
    brought = stranger.tries("read", ticket, *folder.iterdir())
    tally.note("Prefect worker", "a flow's variables", brought["read"] + brought["changed"])


def test_who_takes_a_dead_servers_port_is_not_told_the_secret(
    server: Server, stranger: Stranger, tally, pytestconfig
):
    """When a server has died and a stranger listens on its port and says that all is well, he is
    not asked for the work pool with the secret; the next server is another one."""
    told, secret = server.told, server.secret
    notes = server.street / "overheard"
    stranger.tries("set_trap", "file", notes)
    pid = json.loads((server.folder / "running.json").read_text())["server"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _free(told["address"], told["port"]), "the end of the server")
    squatter = stranger.stays("squat", told["address"], told["port"], notes)
    try:
        server.hpcburst("status", status=1)
        if os.environ.get("LONG"):
            server.hpcburst("up", "--no-worker")
            now = json.loads(server.hpcburst("status", "--json", status=1))
            tally.note("Prefect server", "the same port again", now["port"] == told["port"])
            tally.note("Prefect server", "the same secret again", server.secret == secret)
    finally:
        squatter.kill()
        squatter.communicate()
    overheard = notes.read_text()
    code = base64.b64encode(secret.encode()).decode()
    tally.note("Prefect server", "what a squatter hears", code in overheard or "Basic" in overheard)


def _free(address: str, port: int) -> bool:
    import socket

    with suppress(OSError), socket.create_server((address, port)):
        return True
    return False
