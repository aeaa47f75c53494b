"""The pip section of an env, installed by uv into the stage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.entries import redact
from hpcburst.envs.room import raise_if_no_room
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hpcburst.envs.rattler_process import Progress

_OF_ANOTHER_PYTHON = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON")


def install_pip(requirements: Sequence[str], stage: Path, progress: Progress) -> bool:
    """Install requirements with uv; returns True, since files were added.

    Raises:
        EnvError: uv is missing, the env has no Python, or uv failed.
    """
    asked = f"The pip section ({_shortened(requirements)}) was to be installed"
    python = stage / "bin/python"
    if not python.exists():
        raise EnvError(asked, "the env has no Python", "add `- python 3.12.*` to `dependencies`")
    progress("installing pip packages", 0, None)
    done = subprocess.run(
        # The requirements go through stdin: an index URL among them may hold a password.
        [find_uv(asked), "pip", "install", "--quiet", "--python", str(python),
         "--break-system-packages", "--requirement", "-"],
        input="\n".join(requirements) + "\n",
        env=_environ(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise_if_no_room(done.stderr)
        output = redact(done.stderr)
        raise EnvError(asked, "uv could not install it", "see what uv says below", tail=output)
    return True


def find_uv(asked: str) -> str:
    """The path of `uv`, beside this Python or on PATH.

    Raises:
        EnvError: There is none.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    if not found:
        raise EnvError(asked, "the command `uv` is not there", "run `python -m pip install uv`")
    return found


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what points to another Python; sites name their index in pip's variable."""
    kept = {name: text for name, text in environ.items() if name not in _OF_ANOTHER_PYTHON}
    index = kept.get("PIP_INDEX_URL")
    if index and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(kept):
        kept["UV_DEFAULT_INDEX"] = index
    return kept


def _shortened(requirements: Sequence[str]) -> str:
    return redact(", ".join(requirements))[:120]
