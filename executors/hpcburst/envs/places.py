"""Where an env that a flow, a rule or a command names is: a file, or a prefix already there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def resolve_env(text: str | Path, folders: Sequence[Path | str] = ()) -> Path:
    """The file or prefix that a text names.

    Args:
        text: A path; `~` is the home folder.
        folders: Folders that a relative path is looked up in, in this order; the working directory
            comes last.

    Returns:
        An absolute path that exists.

    Raises:
        EnvError: There is nothing of that name; the places tried are listed.
    """
    tried = list(_candidates(Path(text).expanduser(), folders))
    for path in tried:
        if path.exists():
            return path
    raise EnvError(
        f"The env {str(text)!r} was asked for",
        "there is no such file or folder; tried " + ", ".join(str(path) for path in tried),
        "check the path, or create the file (an environment.yml)",
    )


def is_prefix(path: Path) -> bool:
    """Whether a folder is an env that is there already: it has packages, or at least a Python."""
    return (path / "conda-meta").is_dir() or (path / "bin/python").exists()


def prefix_key(prefix: Path) -> str:
    """A key for an env that we did not build: it changes when packages come or go."""
    meta = prefix / "conda-meta"
    rows = (
        sorted((f.name, f.stat().st_mtime_ns) for f in meta.glob("*.json")) if meta.is_dir() else []
    )
    text = f"{prefix.resolve()}\n{rows}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _candidates(path: Path, folders: Sequence[Path | str]) -> Iterable[Path]:
    if path.is_absolute():
        return [path]
    places = [*(Path(folder) for folder in folders), Path.cwd()]
    return dict.fromkeys(place.absolute() / path for place in places)
