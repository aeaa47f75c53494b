"""Envs at the places that Snakemake wants them at, and the scripts that activate them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.conda_standin import CHANNEL_MIRROR, ENV_ROOT, PROGRESS
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from hpcburst.envs.store import EnvStore

ACTIVATION = "conda-meta/hpcburst-activate.sh"
"""The file in a prefix that `bin/activate` sources."""

_NOTE_EVERY_S = 0.5
_ACTIVATED_BY = ("conda-meta/history", "conda-meta/state")
_SCRIPTS = ("etc/conda/activate.d", "etc/conda/env_vars.d")


def from_file(file: Path, prefix: Path) -> None:
    """Make the env of a file at a prefix, with the script that activates it.

    Raises:
        EnvError: It cannot be made.
    """
    from hpcburst.envs.activation.capture import as_shell

    with _noted(prefix) as progress:
        env = open_store(progress).place(file, prefix)
    _write(Path(env.prefix) / ACTIVATION, as_shell(env.activation))


def from_archives(archives: Iterable[Path], prefix: Path) -> None:
    """Make an env of package files that lie here, as `snakemake --archive` keeps them.

    Raises:
        EnvError: One is missing, or the env cannot be made.
    """
    lines = ["@EXPLICIT", *map(_as_line, archives)]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "archives.txt"
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        from_file(listed, prefix)


def kept_activation(prefix: Path, keep: Path) -> str:
    """The shell text that activates an env made by somebody else; nothing is written into it.

    Args:
        prefix: The env.
        keep: Folder that keeps the text until the env's scripts or packages change.

    Raises:
        EnvError: There is no env, or its activation fails.
    """
    from hpcburst.envs.activation.capture import as_shell
    from hpcburst.envs.specs.places import env_path, is_prefix

    found = env_path(prefix)
    if not is_prefix(found):
        raise EnvError(
            f"The env {prefix} was to be activated", f"{found} is none", "check its name"
        )
    kept = keep / f"{_state_of(found)}.sh"
    if not kept.exists():
        env = open_store().ensure(found)
        keep.mkdir(mode=0o700, exist_ok=True)
        _write(kept, as_shell(env.activation))
    return kept.read_text(encoding="utf-8", errors="surrogateescape")


def open_store(progress: Callable[[str, int, int | None], None] | None = None) -> EnvStore:
    """The store of envs that the environment, or else the config, names.

    Raises:
        EnvError: The mirror variable is not a JSON object.
    """
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.load import load_site

    site = load_site({"scheduler": "local"})  # no batch system is asked for where envs lie
    settings = replace(site.envs, mirror={**site.envs.mirror, **_mirror()})
    root = os.environ.get(ENV_ROOT) or site.paths.shared_root / "envs"
    return EnvStore(root, settings, progress=progress)


@dataclass(slots=True)
class Note:
    """A file that says what is being done for one env; its name is that of the prefix.

    Attributes:
        path: The file.
        last: When it was written last, on the monotonic clock.
    """

    path: Path
    last: float = 0.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Write it, at most twice a second."""
        if time.monotonic() - self.last >= _NOTE_EVERY_S:
            self.last = time.monotonic()
            self.path.write_text(f"{what}, {done * 100 // total} %" if total else what)


@contextmanager
def _noted(prefix: Path) -> Iterator[Note | None]:
    """A note on the env while it is made, if somebody wants to read it."""
    folder = os.environ.get(PROGRESS)
    note = Note(Path(folder) / prefix.name) if folder and Path(folder).is_dir() else None
    try:
        yield note
    finally:
        if note:
            note.path.unlink(missing_ok=True)


def _as_line(archive: Path) -> str:
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise EnvError(
            f"The package {archive} was to be installed",
            error.strerror or str(error),
            "write `snakemake --archive` anew, or remove the folder so that packages are fetched",
        ) from error
    return f"{archive.absolute().as_uri()}#{digest}"


def _state_of(prefix: Path) -> str:
    """Changes when something does that activating an env depends on."""
    files = [prefix / name for name in _ACTIVATED_BY]
    files += [path for name in _SCRIPTS for path in sorted((prefix / name).glob("*"))]
    rows = [(str(path), path.stat().st_mtime_ns) for path in files if path.exists()]
    return hashlib.sha256(repr((str(prefix), rows)).encode()).hexdigest()[:20]


def _mirror() -> dict[str, str]:
    text = os.environ.get(CHANNEL_MIRROR, "")
    try:
        found = json.loads(text or "{}")
        return {str(name): str(url) for name, url in found.items()}
    except (ValueError, AttributeError) as error:
        raise EnvError(
            f"{CHANNEL_MIRROR} is {text[:80]!r}",
            "it is not a JSON object",
            'write {"conda-forge": "https://..."}',
        ) from error


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.write_text(text, encoding="utf-8", errors="surrogateescape")
    aside.replace(path)
