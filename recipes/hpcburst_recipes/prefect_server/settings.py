"""How the server, its worker and its users' shells are set up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpcburst.comms.exports import exports
from hpcburst.errors import RequestError

FIRST_PORT, PORTS = 20000, 20000
"""Ports that belong to no service; each user begins at one of their own."""

BATCH = 100
"""Task runs the server writes at once. By default it writes them one by one, and the end of a flow
of a thousand tasks is seen most of a minute late."""

SLOT_S = 3600
"""The longest that Prefect lets a deployment's concurrency slot wait for a job to start."""


def server_variables(database: str, home: Path, secret: str) -> dict[str, str]:
    """Environment of the server, beside the usual.

    Args:
        database: URL of its database.
        home: Folder for what else it keeps.
        secret: "user:password"; who does not know it may not ask anything.
    """
    recorder = "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER"
    persister = "PREFECT_SERVER_SERVICES_EVENT_PERSISTER"
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        # Relative: the page finds its API through whatever tunnel it came.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": str(SLOT_S),
        f"{recorder}_BATCH_SIZE": str(BATCH),
        f"{recorder}_READ_BATCH_SIZE": str(BATCH),
        f"{recorder}_FLUSH_INTERVAL": "1",
        f"{persister}_BATCH_SIZE": str(2 * BATCH),
        f"{persister}_READ_BATCH_SIZE": str(BATCH),
    }


def client_variables(url: str, secret: str) -> dict[str, str]:
    """What a shell, a worker or a job needs to speak to the server."""
    return {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": secret}


def shell_text(url: str, secret: str) -> str:
    """The file that a shell sources, and every job when it starts."""
    lines = exports(client_variables(url, secret))
    return f"# Where the Prefect server is. Written by `hpcburst prefect up`: private.\n{lines}\n"


def without_prefect(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without Prefect's settings: those of another server do not belong to ours."""
    return {name: text for name, text in environ.items() if not name.startswith("PREFECT_")}


def api_url(address: str, port: int) -> str:
    """URL of the API."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/api"


def first_port(uid: int) -> int:
    """The port that a user's server tries first."""
    return FIRST_PORT + uid % PORTS


def sqlite_url(folder: Path) -> str:
    """URL of a database in one file."""
    return f"sqlite+aiosqlite:///{folder / 'prefect.db'}"


def check_database(url: str) -> str:
    """The URL of a database that others run.

    Raises:
        RequestError: It is of another kind, or holds a password: arguments are no secret.
    """
    kind, _, rest = url.partition("://")
    if kind != "postgresql+asyncpg":
        raise RequestError(
            f"The database {kind}://... was asked for",
            "that is none of Prefect's",
            "write postgresql+asyncpg://USER@HOST/DATABASE, or leave it out for a file of its own",
        )
    user, at, _ = rest.rpartition("@")
    if at and ":" in user:
        raise RequestError(
            "A database was named with its password",
            "everybody on this machine can read the arguments of a command",
            "leave the password out and put it into ~/.pgpass (mode 0600)",
        )
    return url


def tunnel(address: str, port: int, user: str, machine: str) -> str:
    """The command that brings the page to the user's own machine."""
    return f"ssh -N -L 4200:{address}:{port} {user}@{machine}"
