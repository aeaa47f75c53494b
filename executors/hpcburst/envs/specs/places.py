"""Where an env that a flow, a rule or a command names is: a file, a project, or a prefix."""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.specs.formats.pixi_project import is_pixi_manifest
from hpcburst.envs.specs.formats.rattler_lock import FILE_NAME as LOCK
from hpcburst.envs.specs.named import known_names, prefixes_named
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MANIFEST, PYPROJECT = "pixi.toml", "pyproject.toml"

LONGEST_NAME_BYTES = 255

_TODO = "check the path, or create the file (an environment.yml)"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an env is, or what it is made from.

    Attributes:
        path: A file, the folder of a pixi project, or a prefix; absolute.
        environment: Which of its environments; "" is the one it has by default.
    """

    path: Path
    environment: str = ""

    @property
    def is_prefix(self) -> bool:
        """Whether it is an env that is there already."""
        return is_prefix(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that decide what the env holds; none for a prefix."""
        if self.is_prefix:
            return ()
        manifest = manifest_of(self.path)
        if manifest is None:
            return (self.path,)
        lock = manifest.with_name(LOCK)
        return (manifest, lock) if lock.exists() else (manifest,)

    def __str__(self) -> str:
        return f"{self.path}#{self.environment}" if self.environment else str(self.path)


def resolve_env(text: str | Path, folders: Sequence[Path | str] = ()) -> Place:
    """The file, project or prefix that a text names.

    Looked for in this order: a path that is there; `PATH#ENVIRONMENT`, one environment of a pixi
    project or a lock; the name of an env that conda, mamba or micromamba knows.

    Args:
        text: A path or name; `~` is the home folder.
        folders: Folders that a relative path is looked up in, in this order; the working directory
            comes last.

    Raises:
        EnvError: There is nothing of that name, or there are two; what was tried is listed.
    """
    asked = str(text)
    if not asked.strip() or not asked.isprintable() or _is_too_long(asked):
        raise EnvError(f"The env {asked[:80]!r} was asked for", "that is no path or name", _TODO)
    place = _literal(asked, folders) or _one_of_many(asked, folders)
    if place is not None:
        return place
    found = _named(asked) if "/" not in asked else ()
    if not found:
        raise _nothing(asked, folders)
    if len(found) > 1:
        raise EnvError(
            f"The env {asked!r} was asked for",
            f"there are {len(found)} of that name: {', '.join(map(str, found))}",
            "give the path of the one that is meant",
        )
    return Place(found[0])


def _is_too_long(text: str) -> bool:
    """Whether no file system has room for such a name: even asking for it is an error."""
    return max(len(os.fsencode(part)) for part in text.split("/")) > LONGEST_NAME_BYTES


def env_path(text: str | Path, folders: Sequence[Path | str] = ()) -> Path:
    """The path alone of what a text names; see `resolve_env`."""
    return resolve_env(text, folders).path


def is_prefix(path: Path) -> bool:
    """Whether a folder is an env that is there already: it has packages, or at least a Python."""
    return (path / "conda-meta").is_dir() or (path / "bin/python").exists()


def manifest_of(path: Path) -> Path | None:
    """The manifest of the pixi project that a folder or a file is; None if it is none."""
    if path.is_dir():
        found = (manifest_of(path / name) for name in (MANIFEST, PYPROJECT))
        return next(filter(None, found), None)
    if path.name == MANIFEST:
        return path if path.is_file() else None
    return path if path.name == PYPROJECT and is_pixi_manifest(PYPROJECT, _text(path)) else None


def prefix_key(prefix: Path) -> str:
    """A key for an env that we did not build: it changes when packages come or go."""
    meta = prefix / "conda-meta"
    rows = (
        sorted((f.name, f.stat().st_mtime_ns) for f in meta.glob("*.json")) if meta.is_dir() else []
    )
    text = f"{prefix.resolve()}\n{rows}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _literal(text: str, folders: Sequence[Path | str]) -> Place | None:
    for path in _candidates(text, folders):
        # A plain folder may just share a name with an env: `stats/` beside the env `stats`.
        if path.exists() and not _is_plain_folder(path):
            return Place(path)
    return None


def _one_of_many(text: str, folders: Sequence[Path | str]) -> Place | None:
    """The place for `PATH#ENVIRONMENT`."""
    path, _, environment = text.rpartition("#")
    place = _literal(path, folders) if path else None
    if place is None or not environment:
        return place
    if place.is_prefix:
        raise EnvError(
            f"The env {text!r} was asked for",
            f"{place.path} is a built env, which has no environments with names",
            f"leave out `#{environment}`",
        )
    return Place(place.path, environment)


def _named(name: str) -> tuple[Path, ...]:
    """The prefixes of that name, each once however many links lead there."""
    found: dict[Path, Path] = {}
    for prefix in filter(is_prefix, prefixes_named(name)):
        found.setdefault(prefix.resolve(), prefix)
    return tuple(found.values())


def _nothing(asked: str, folders: Sequence[Path | str]) -> EnvError:
    found, todo = _not_there(list(_candidates(asked, folders))), _TODO
    if "/" not in asked:
        names = sorted(known_names())
        found += f"; and conda, mamba and micromamba know no env named {asked!r}"
        near = difflib.get_close_matches(asked, names, n=3)
        listed = ", ".join(names[:10]) or "none"
        todo = f"did you mean {' or '.join(near)}?" if near else f"{_TODO}; known names: {listed}"
    return EnvError(f"The env {asked!r} was asked for", found, todo)


def _not_there(tried: Sequence[Path]) -> str:
    plain = next(filter(_is_plain_folder, tried), None)
    if plain is None:
        return "there is no such file or folder; tried " + ", ".join(map(str, tried))
    return (
        f"the folder {plain} has neither packages (conda-meta) nor a Python (bin/python), and no "
        f"pixi project ({MANIFEST})"
    )


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not is_prefix(path) and manifest_of(path) is None


def _candidates(text: str, folders: Sequence[Path | str]) -> Iterable[Path]:
    path = Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises when there is no such user
    if path.is_absolute():
        return [path]
    places = [*(Path(folder) for folder in folders), Path.cwd()]
    return dict.fromkeys(place.absolute() / path for place in places)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""
