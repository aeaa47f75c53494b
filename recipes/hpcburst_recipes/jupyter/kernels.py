"""Kernels in the env of a task: activated, and without the secrets of its user."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hpcburst.comms.staging import check_place, private_folder, write_private
from hpcburst.errors import EnvError, SiteError
from hpcburst.tasks import Env
from hpcburst.workers.activation import replay

KERNEL = "hpcburst-checkpoint"
"""Name of the kernel that notebooks of checkpoints ask for."""

PROGRAM = Path(__file__).with_name("kernel_start.py")

ADDED = ("ipykernel", "ipywidgets")
"""What an env without a kernel gets, from outside and last on its path."""

ANSWER_S = 60.0
INSTALL_S = 600.0

LONGEST_SOCKET = 107
"""Bytes of a socket's path that Linux takes."""

LONGEST_NAME = "runtime/kernel-00000000-0000-0000-0000-000000000000-ipc-5"

_SECRET = ("PREFECT_", "JUPYTER_", "JPY_API_TOKEN")
"""Variables that no notebook needs, and that might hold a key."""

_LOOK = """
import importlib.util, json, sys
found = importlib.util.find_spec("ipykernel") is not None
print(json.dumps(["%d.%d" % sys.version_info[:2], found]))
"""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a kernel runs.

    Attributes:
        interpreter: Its Python.
        env: The env, for what activating it changes; None is our own Python.
        overlay: Folder with ipykernel, when the env has none.
    """

    interpreter: str
    env: Env | None = field(default=None)
    overlay: str = ""


def home_of(env: Env | None, shared_root: Path) -> Home:
    """Where the kernel of an env runs; gets ipykernel from PyPI if neither env nor we have it.

    Raises:
        EnvError: The env's Python does not start, or ipykernel cannot be had.
    """
    interpreter = env.interpreter if env else sys.executable
    minor, has_kernel = _look(interpreter)
    if has_kernel:
        return Home(interpreter, env)
    return Home(interpreter, env, str(overlay_for(minor, shared_root)))


def write_kernelspec(folder: Path, home: Home) -> Path:
    """Write the kernel's specification under a private `folder`; returns the folder of kernels."""
    kernels = private_folder(folder / "kernels")
    place = private_folder(kernels / KERNEL)
    plan = place / "plan.json"
    write_private(plan, json.dumps(_plan(home)).encode())
    argv = [sys.executable, "-I", "-S", str(PROGRAM), str(plan), "{connection_file}"]
    spec = {"argv": argv, "display_name": "checkpoint", "language": "python"}
    write_private(place / "kernel.json", json.dumps(spec).encode())
    return kernels


def node_folder() -> Path:
    """A fresh private folder on this node with a path short enough for the sockets in it.

    Raises:
        SiteError: There is no such place.
    """
    for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/dev/shm")):  # noqa: S108 - mkdtemp makes it ours
        if len(os.fsencode(place)) + len("/hpcburst-12345678/" + LONGEST_NAME) <= LONGEST_SOCKET:
            with suppress(OSError, SiteError):
                check_place(Path(place))
                return Path(tempfile.mkdtemp(prefix="hpcburst-", dir=place))
    raise SiteError(
        "A session was to listen on a unix socket",
        f"no temporary folder of this node is writable and shorter than {LONGEST_SOCKET} bytes",
        "set TMPDIR to a short path on the node's own disk",
    )


def overlay_for(minor: str, shared_root: Path) -> Path:
    """A folder with ipykernel for this Python minor, installed once for all envs of it.

    Raises:
        EnvError: pip cannot install it.
    """
    folder = private_folder(shared_root / "overlays") / f"py{minor}"
    if folder.is_dir():
        return folder
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    argv += ["--target", str(aside), "--python-version", minor, "--only-binary=:all:", *ADDED]
    try:
        _run(argv, INSTALL_S, f"ipykernel for Python {minor} was to be installed beside the env")
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody was faster
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _plan(home: Home) -> dict[str, object]:
    ours = {name: text for name, text in os.environ.items() if not name.startswith(_SECRET)}
    activated = replay(home.env.activation, ours) if home.env else ours
    return {
        "interpreter": home.interpreter,
        "overlay": home.overlay,
        "set": {name: text for name, text in activated.items() if ours.get(name) != text},
        "unset": sorted(set(os.environ) - set(activated)),
    }


def _look(interpreter: str) -> tuple[str, bool]:
    out = _run([interpreter, "-I", "-c", _LOOK], ANSWER_S, f"A kernel was to run on {interpreter}")
    minor, has_kernel = json.loads(out)
    return str(minor), bool(has_kernel)


def _run(argv: list[str], timeout_s: float, asked: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvError(asked, str(error)) from error
    if done.returncode:
        todo = f"add {' and '.join(ADDED)} to the env"
        raise EnvError(asked, "it did not work", todo, tail=done.stderr or done.stdout)
    return done.stdout
