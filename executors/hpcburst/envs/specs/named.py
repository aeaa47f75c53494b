"""Envs that conda, mamba and micromamba know by name: what these programs leave behind is read.

None of them is run: a `conda env list` takes a second, and login nodes may not have it on PATH.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.specs.formats.yaml_text import BadYamlError, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "base"
"""The name that conda gives the env it is installed in."""

MAX_BYTES = 1_000_000
"""Of a list or config that is read; real ones have a few thousand."""

MAX_NAMES = 500
"""Envs of one folder that are looked through for names like the one asked for."""

_HOME_ROOTS = (
    "miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", ".local/share/mamba",
)  # fmt: skip
_CONFIGS = (".condarc", ".conda/.condarc", ".config/conda/.condarc", ".mambarc")


def prefixes_named(name: str) -> Iterator[Path]:
    """Where an env of that name would be; not all of these places need to exist."""
    if name == BASE:
        yield from _roots()
    yield from (prefix for prefix in _registered() if _name(prefix) == name)
    yield from (folder / name for folder in _folders())


def known_prefixes() -> Iterator[Path]:
    """The prefixes of all envs that have a name."""
    yield from _registered()
    for folder in _folders():
        try:
            yield from islice(folder.iterdir(), MAX_NAMES)
        except OSError:
            continue


def known_names() -> set[str]:
    """The names to choose from."""
    return {_name(prefix) for prefix in known_prefixes() if (prefix / "conda-meta").is_dir()}


def _name(prefix: Path) -> str:
    return BASE if (prefix / "condabin").is_dir() else prefix.name


def _registered() -> Iterator[Path]:
    """The prefixes that conda keeps a list of: each env it ever made, wherever."""
    for line in _text(Path.home() / ".conda/environments.txt").splitlines():
        if line.startswith("/") and line.isprintable():
            yield Path(line.strip())


def _folders() -> Iterator[Path]:
    """The folders that envs with names are in."""
    for variable in ("CONDA_ENVS_DIRS", "CONDA_ENVS_PATH"):
        yield from map(_path, filter(None, os.environ.get(variable, "").split(os.pathsep)))
    roots = list(_roots())
    for config in _configs(roots):
        yield from _folders_in(config)
    yield Path.home() / ".conda/envs"
    yield from (root / "envs" for root in roots)


def _roots() -> Iterator[Path]:
    """Where conda, mamba or micromamba may be installed, or keep their envs."""
    environ = os.environ
    if executable := environ.get("CONDA_EXE"):
        yield Path(executable).parent.parent
    if root := environ.get("MAMBA_ROOT_PREFIX"):
        yield Path(root)
    if active := environ.get("CONDA_PREFIX"):
        parent = Path(active).parent
        yield parent.parent if parent.name == "envs" else Path(active)
    yield from (Path.home() / name for name in _HOME_ROOTS)
    yield Path("/opt/conda")


def _configs(roots: list[Path]) -> Iterator[Path]:
    yield from (Path(path) for name in ("CONDARC", "MAMBARC") if (path := os.environ.get(name)))
    yield from (Path.home() / name for name in _CONFIGS)
    yield from (root / ".condarc" for root in roots)


def _folders_in(config: Path) -> Iterator[Path]:
    """The `envs_dirs` of a conda config; one that cannot be read is conda's to complain about."""
    try:
        found = parse(_text(config))
    except BadYamlError:
        return
    rows = found.get("envs_dirs", found.get("envs_path")) if isinstance(found, dict) else None
    for row in rows if isinstance(rows, list) else [rows]:
        if isinstance(row, str) and row.isprintable():
            yield _path(row)


def _path(text: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(text)))  # noqa: PTH111 - may name no user


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""
