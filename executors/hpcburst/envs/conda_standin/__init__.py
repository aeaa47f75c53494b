"""A stand-in for the `conda` command, for `snakemake --sdm conda` where there is no conda.

Snakemake 9 runs the program `conda` for its envs. Installed are two small files: `bin/conda`, a
POSIX shell script that answers what Snakemake asks often by itself and starts Python only to make
an env, and `bin/activate`, which is sourced and reads what the env's activation changes from a file
written when the env was made. Beside them, `envs/` links to the named envs that are there.
"""

from __future__ import annotations

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

PROGRESS = "HPCBURST_ENV_PROGRESS"
"""Environment variable that names a folder: what is being done for an env is written there."""

_MARK = b"# Stands in for the conda command"


def install_standin(folder: Path | str) -> Path:
    """Write the stand-in into `folder`/bin, and links to the named envs into `folder`/envs.

    Doing it again changes nothing but the links, which follow the envs.

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
    _link_named_envs(folder / "envs")
    return programs


def with_conda_on_path(
    environ: Mapping[str, str], folder: Path | str, *, first: bool = False
) -> dict[str, str]:
    """An environment in which `conda` is found.

    Args:
        environ: The environment to change; it is left as it is.
        folder: Folder of the stand-in; it is installed there if need be.
        first: Put it first on PATH, so that it is used whatever else is there. Else it comes last,
            and a real conda, where there is one, wins.
    """
    programs = str(install_standin(folder))
    kept = [entry for entry in _entries(environ) if entry != programs]
    path = [programs, *kept] if first else [*kept, programs]
    return {**environ, "PATH": os.pathsep.join(path)}


def without_standin(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which no stand-in is found, whoever put it on PATH."""
    kept = [entry for entry in _entries(environ) if not is_standin(Path(entry, "conda"))]
    return {**environ, "PATH": os.pathsep.join(kept)}


def is_standin(program: Path) -> bool:
    """Whether a `conda` program is the stand-in."""
    try:
        with program.open("rb") as file:
            return _MARK in file.read(256)
    except OSError:
        return False


def _entries(environ: Mapping[str, str]) -> list[str]:
    return [entry for entry in environ.get("PATH", os.defpath).split(os.pathsep) if entry]


def _link_named_envs(folder: Path) -> None:
    """Link to each named env, where Snakemake and `bin/activate` look for them."""
    folder.mkdir(exist_ok=True)
    wanted = _named_envs()
    for link in folder.glob("[!.]*"):  # those with a dot are being made by somebody else
        if link.name not in wanted:
            link.unlink(missing_ok=True)
    for name, prefix in wanted.items():
        link = folder / name
        if not link.is_symlink() or link.readlink() != prefix:
            aside = folder / f".{name}-{os.getpid()}"
            aside.symlink_to(prefix)
            aside.replace(link)


def _named_envs() -> dict[str, Path]:
    """Prefix of each env that has a name of its own, one that a shell reads as it is."""
    from hpcburst.envs.specs.named import known_prefixes
    from hpcburst.envs.specs.places import is_prefix

    found: dict[str, dict[Path, Path]] = {}
    for prefix in filter(is_prefix, known_prefixes()):
        if shlex.quote(prefix.name) == prefix.name:
            found.setdefault(prefix.name, {})[prefix.resolve()] = prefix
    return {name: next(iter(same.values())) for name, same in found.items() if len(same) == 1}


def _filled(name: str, folder: Path) -> str:
    text = resources.files(__name__).joinpath(f"{name}.sh").read_text(encoding="utf-8")
    values = {
        "@PYTHON@": shlex.quote(sys.executable),
        "@FOLDER@": str(folder),
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
