"""JupyterLab for one checkpoint: on a unix socket that nobody else can reach, with a token too.

Everything of it lies in one private folder on the node, which goes with it: socket, token, runtime
files, log. A user's own Jupyter settings are not read; they may open what must be closed.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import private_folder, write_private
from hpcburst.errors import RunError
from hpcburst_recipes.checkpoints.notebook import NOTEBOOK
from hpcburst_recipes.jupyter.kernels import Home, node_folder, write_kernelspec

UP_S = 180.0
"""Seconds a server may take to answer: a cold file system is slow."""

STOP_S = 10.0

IDLE_S = 1800
"""Seconds without a sign of life after which a kernel, and then the server, ends."""

AUTOSAVE_S = 5

_UNWANTED = ("PREFECT_", "JUPYTER", "JPY_")
"""Variables that would open, or hand on, what must stay closed."""

# An optional checker of addresses builds its grammar when it is imported: half of the start.
_BOOT = """
import runpy, sys
sys.modules["rfc3987_syntax"] = None
sys.argv = ["jupyter-lab"]
runpy.run_module("jupyterlab", run_name="__main__")
"""


@dataclass(slots=True)
class Server:
    """A running JupyterLab.

    Attributes:
        folder: Its private folder on this node.
        process: Its process.
        token: The token, which is in a file of the folder and nowhere else.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    token: str

    @classmethod
    def start(cls, root: Path, home: Home) -> Server:
        """Start it on a folder; `wait_up` tells when it answers.

        Args:
            root: What it shows.
            home: Where its kernels run.

        Raises:
            SiteError: No place on this node is short enough for a socket.
        """
        folder = node_folder()
        token = secrets.token_hex(32)
        write_private(folder / "token", token.encode())
        for name in ("config", "runtime"):
            private_folder(folder / name)
        write_kernelspec(folder, home)
        _write_settings(folder)
        config = json.dumps(_config(folder, root)).encode()
        write_private(folder / "config" / "jupyter_server_config.json", config)
        write_private(folder / "log", b"")
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT],
                env=_environment(folder),
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=0o077,
            )
        return cls(folder, process, token)

    @property
    def socket(self) -> Path:
        """Its unix socket."""
        return self.folder / "s"

    def wait_up(self) -> None:
        """Wait until it answers.

        Raises:
            RunError: It ended, or does not answer.
        """
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/api/status")[0] == http.HTTPStatus.OK:
                    return
            time.sleep(0.05)
        tail = (self.folder / "log").read_text(errors="replace")
        raise RunError("JupyterLab was started", "it does not answer", tail=tail)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask its API; returns status and content."""
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(str(self.socket))
            headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw

    def stop(self) -> None:
        """End it with its kernels, and remove its folder. Idempotent."""
        if self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                self.call("POST", "/api/shutdown", {})
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_S)
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _write_settings(folder: Path) -> None:
    overrides = {
        "@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": AUTOSAVE_S},
        "@jupyterlab/apputils-extension:notification": {
            "fetchNews": "false",
            "checkForUpdates": False,
        },
    }
    write_private(private_folder(folder / "lab") / "overrides.json", json.dumps(overrides).encode())


def _config(folder: Path, root: Path) -> dict[str, Any]:
    return {
        "ServerApp": {
            "sock": str(folder / "s"),
            "sock_mode": "0600",
            "root_dir": str(root),
            "default_url": f"/doc/tree/{NOTEBOOK}",
            "open_browser": False,
            "use_redirect_file": False,
            "allow_unauthenticated_access": False,
            "allow_remote_access": False,
            "allow_root": os.getuid() == 0,
            "terminals_enabled": False,
            "shutdown_no_activity_timeout": IDLE_S,
            "cookie_secret_file": str(folder / "cookie_secret"),
            "jpserver_extensions": dict.fromkeys(
                ("jupyter_lsp", "jupyter_server_terminals", "notebook_shim"), False
            ),
        },
        "PasswordIdentityProvider": {"allow_password_change": False},
        # A tab that somebody forgot counts as no sign of life.
        "MappingKernelManager": {
            "cull_idle_timeout": IDLE_S,
            "cull_interval": 60,
            "cull_connected": True,
        },
        # Over TCP every user of the node could read what the kernel prints.
        "KernelManager": {"transport": "ipc"},
        "KernelSpecManager": {"ensure_native_kernel": False},
        "LabApp": {
            "expose_app_in_browser": True,  # the panel saves the notebook through it
            "app_settings_dir": str(folder / "lab"),
            "user_settings_dir": str(folder / "user"),
            "workspaces_dir": str(folder / "workspaces"),
            "news_url": None,
        },
    }


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_UNWANTED)}
    return {
        **kept,
        "JUPYTER_TOKEN_FILE": str(folder / "token"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_PATH": str(folder),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "PYTHONUNBUFFERED": "1",
    }
