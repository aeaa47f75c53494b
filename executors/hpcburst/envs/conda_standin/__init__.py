"""A stand-in for the `conda` command, for `snakemake --sdm conda` where there is no conda.

Snakemake 9 runs the program `conda` for its envs. Installed are two small files: `bin/conda`, a
POSIX shell script that answers what Snakemake asks often by itself and starts Python only to make
an env, and `bin/activate`, which is sourced and reads what the env's activation changes from a file
written when the env was made.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "26.7.0"
"""The conda whose answers these are; Snakemake asks for at least 24.7.1."""

ENV_ROOT = "HPCBURST_ENV_ROOT"
"""Environment variable that names the root of the store of envs."""

CHANNEL_MIRROR = "HPCBURST_CHANNEL_MIRROR"
"""Environment variable with a JSON object: channel name to the URL to fetch it from."""


def install_standin(folder: Path | str) -> Path:
    """Write the stand-in into `folder`/bin; doing it again changes nothing.

    Args:
        folder: Where it belongs; made for its owner alone (0700) when it is not there. Its path
            must hold no space or quote: Snakemake sources `bin/activate` unquoted.

    Returns:
        The folder to put on PATH.

    Raises:
        ValueError: The path cannot be used in Snakemake's shell commands.
    """
    folder = Path(folder).absolute()
    if shlex.quote(str(folder)) != str(folder):
        raise ValueError(f"{str(folder)!r} holds characters that Snakemake does not quote")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, mode in (("conda", 0o755), ("activate", 0o644)):
        _write(programs / name, _filled(name, folder), mode)
    return programs


def with_conda_on_path(environ: Mapping[str, str], folder: Path | str) -> dict[str, str]:
    """An environment in which `conda` is found.

    The stand-in goes last on PATH, so that a real conda, where there is one, wins.

    Args:
        environ: The environment to change; it is left as it is.
        folder: Folder of the stand-in; it is installed there if need be.
    """
    programs = str(install_standin(folder))
    path = environ.get("PATH", os.defpath).split(os.pathsep)
    kept = [entry for entry in path if entry and entry != programs]
    return {**environ, "PATH": os.pathsep.join([*kept, programs])}


def _filled(name: str, folder: Path) -> str:
    text = resources.files(__name__).joinpath(f"{name}.sh").read_text(encoding="utf-8")
    values = {
        "@PYTHON@": shlex.quote(sys.executable),
        "@FOLDER@": json.dumps(str(folder)),
        "@VERSION@": VERSION,
    }
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _write(path: Path, text: str, mode: int) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(mode)
    aside.replace(path)
