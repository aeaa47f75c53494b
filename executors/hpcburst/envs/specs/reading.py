"""Reading specs: which kind of file it is, and the reader for that kind."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.specs.formats import (
    conda_lock,
    environment_yml,
    explicit,
    pixi_project,
    rattler_lock,
)
from hpcburst.envs.specs.formats.source import Source
from hpcburst.envs.specs.places import manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hpcburst.envs.specs.spec import EnvSpec

MAX_MB = 32
"""MB (10^6 bytes) of one file; locks of many environments have five."""

_ARCHITECTURES = {
    ("Linux", "x86_64"): "linux-64",
    ("Linux", "i686"): "linux-32",
    ("Darwin", "x86_64"): "osx-64",
    ("Darwin", "arm64"): "osx-arm64",
}


def read_spec(
    path: Path | str,
    *,
    channels: Sequence[str] = ("conda-forge",),
    mirror: Mapping[str, str] | None = None,
    environment: str = "",
    platform: str | None = None,
) -> EnvSpec:
    """The spec in a file or pixi project.

    Known are `environment.yml`, lists of archives headed by `@EXPLICIT`, `conda-lock.yml`, the lock
    of rattler and pixi, and pixi projects (a folder or its manifest, with its lock).

    Args:
        path: The file or folder.
        channels: Channels of a file that names none.
        mirror: Channel name or URL to the URL it is fetched from instead.
        environment: One of the file's environments (of a conda-lock file: a category beside
            `main`); "" is its default one.
        platform: The conda platform to read it for; None is this machine's.

    Raises:
        EnvError: The file cannot be read, or an entry in it is not what it should be.
    """
    path = Path(path)
    source = Source(
        manifest_of(path) or path,
        tuple(channels),
        dict(mirror or {}),
        environment,
        platform or this_platform(),
    )
    text = _text(source)
    if pixi_project.is_pixi_manifest(source.path.name, text):
        return pixi_project.read(source, text, _lock_beside(source))
    return _reader(source, text)(source, text)


def this_platform() -> str:
    """The conda platform of this machine, such as "linux-64" or "linux-aarch64"."""
    found = os.uname()
    known = _ARCHITECTURES.get((found.sysname, found.machine))
    system = "osx" if found.sysname == "Darwin" else found.sysname.lower()
    return known or f"{system}-{found.machine}"


def _reader(source: Source, text: str) -> Callable[[Source, str], EnvSpec]:
    if explicit.is_explicit(text):
        return explicit.read
    if source.path.name == rattler_lock.FILE_NAME or rattler_lock.is_rattler_lock(text):
        return rattler_lock.read
    if conda_lock.is_conda_lock(text):
        return conda_lock.read
    if source.path.suffix == ".toml":
        raise source.refusal(
            "it is not the manifest of a pixi project",
            "name a pixi.toml, or a pyproject.toml with a table [tool.pixi.workspace]",
        )
    return environment_yml.read


def _lock_beside(source: Source) -> tuple[Source, str] | None:
    lock = replace(source, path=source.path.with_name(rattler_lock.FILE_NAME))
    return (lock, _text(lock)) if lock.path.exists() else None


def _text(source: Source) -> str:
    """The text of a file; pipes and devices are not waited for."""
    todo = "give a readable environment file"
    try:
        # Without O_NONBLOCK, opening a named pipe waits for somebody who writes into it.
        with os.fdopen(os.open(source.path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise source.refusal("it is not a file", todo)
            if found.st_size > MAX_MB * 1_000_000:
                raise source.refusal(f"it is larger than {MAX_MB} MB", todo)
            return stream.read().decode("utf-8-sig")
    except OSError as error:
        raise source.refusal(f"it cannot be read: {error.strerror}", todo) from error
    except ValueError as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise source.refusal(f"it cannot be read: {reason}", todo) from error
