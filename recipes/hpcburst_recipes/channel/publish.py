"""The finished channel: made aside, stamped with what it was made from, published by one rename."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.errors import EnvError
from hpcburst_recipes.channel.archive import native_subdir
from hpcburst_recipes.channel.interpreters import FoundPython

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

STAMP = "channel.json"
"""The file in a channel that says what it was made from; without it a channel is not finished."""

MOST_RACES = 5
"""How often a place may be taken by builders of other channels before we give up."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A local channel that is ready.

    Attributes:
        url: What to write under `channels:` of an environment file.
        pythons: The interpreters in it.
        packages: Its packages, as name-version-build.
    """

    url: str
    pythons: tuple[FoundPython, ...]
    packages: tuple[str, ...]


@contextmanager
def scratch(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to stage in, on local disk, and one beside the target that can be renamed to it."""
    with (
        tempfile.TemporaryDirectory(prefix="channel-") as work,
        tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as outer,
    ):
        aside = Path(outer, "channel")
        aside.mkdir(mode=0o700)
        for subdir in (native_subdir(), "noarch"):
            (aside / subdir).mkdir()
        yield Path(work), aside


def write_stamp(channel: Path, digest: str, pythons: Sequence[FoundPython]) -> None:
    """Note in a channel what it was made from; the last thing to do before publishing it."""
    archives = sorted(path.relative_to(channel).as_posix() for path in channel.glob("*/*.conda"))
    stamp = {
        "digest": digest,
        "pythons": [asdict(python) for python in pythons],
        "archives": archives,
    }
    (channel / STAMP).write_text(json.dumps(stamp, indent=1))


def read_stamp(folder: Path, digest: str) -> Channel | None:
    """The channel in a folder; None if it is not whole, or was made from something else."""
    try:
        stamp: dict[str, Any] = json.loads((folder / STAMP).read_text())
        whole = all((folder / archive).is_file() for archive in stamp["archives"])
        if stamp["digest"] != digest or not whole:
            return None
        return Channel(
            url=folder.as_uri(),
            pythons=tuple(_python(row) for row in stamp["pythons"]),
            packages=tuple(Path(archive).stem for archive in stamp["archives"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _python(row: Mapping[str, Any]) -> FoundPython:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    return FoundPython(**fields)


def publish(aside: Path, folder: Path, digest: str) -> Channel:
    """Move a stamped channel to its place; of two builders of the same channel the first wins.

    Raises:
        EnvError: In that place is something that was not made here.
    """
    for attempt in range(MOST_RACES):
        try:
            aside.rename(folder)
        except OSError:
            ready = read_stamp(folder, digest)
            if ready is not None:
                return ready
            _clear_place(folder, aside.with_name(f"old-{attempt}"))
        else:
            break
    published = read_stamp(folder, digest)
    if published is None:
        asked = f"the new local channel was to be put at {folder}"
        raise EnvError(asked, "others keep writing there", "give it a folder of its own")
    return published


def _clear_place(folder: Path, old: Path) -> None:
    """Take away an outdated channel, and nothing else."""
    if folder.exists() and not (folder / STAMP).is_file():
        raise EnvError(
            f"the new local channel was to be put at {folder}",
            "something else is there",
            "give it a folder of its own",
        )
    with suppress(FileNotFoundError):  # another builder was faster
        folder.rename(old)
        shutil.rmtree(old)
