"""Specs to locks: the exact packages, chosen once, in rattler's lock format (version 7)."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from hpcburst.envs.building.room import raise_if_no_room
from hpcburst.envs.child.process import RattlerFailed, RattlerProcess
from hpcburst.envs.specs.entries import redact
from hpcburst.envs.specs.spec import CHANNEL_HOST, Archive, EnvSpec
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hpcburst.envs.building.builders import Builder, Workshop

CONFLICT_LINES = 30
"""Lines of the solver's explanation an error carries: the top of the tree names the culprits."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides, beside the spec, which packages fit.

    Attributes:
        platform: The conda platform, such as "linux-64".
        virtual_packages: What the machine offers, such as "__glibc=2.36=0".
    """

    platform: str
    virtual_packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """One package of a solution.

    Attributes:
        name: Its name.
        version: Its version.
        build: Its build string.
        size: Bytes of its archive; 0 if unknown.
        url: Where its archive is; "" if unknown.
        sha256: The digest of that in hex; "" if unknown.
    """

    name: str
    version: str
    build: str
    size: int = 0
    url: str = ""
    sha256: str = ""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Package:
        """The package that a row of the child's answer describes."""
        known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        return cls(**known)

    @classmethod
    def from_archive(cls, archive: Archive) -> Package:
        """The package in an archive, as the name of its file tells."""
        file_name = unquote(urlsplit(archive.url).path.rpartition("/")[2])
        stem = re.sub(r"\.(conda|tar\.bz2)$", "", file_name)
        name, version, build = [*stem.rsplit("-", 2), "", ""][:3]
        return cls(name, version, build, archive.size, archive.url, archive.sha256)


def detect_machine(rattler: RattlerProcess) -> Machine:
    """What this machine is; `CONDA_OVERRIDE_CUDA` and its like make it seem another one.

    Raises:
        EnvError: An override cannot be read.
    """
    try:
        found = rattler.call("machine")
    except RattlerFailed as failed:
        raise EnvError(
            "The virtual packages of this machine were asked for",
            failed.text,
            "look at the CONDA_OVERRIDE_* variables",
        ) from failed
    return Machine(found["platform"], tuple(found["virtual_packages"]))


def write_lock(spec: EnvSpec, lock: Path, *, builder: Builder, source: str) -> tuple[Package, ...]:
    """Solve a spec and write its lock, unless another solver wrote one first: that one stays.

    Args:
        spec: What to solve; exact archives in it are written down as they are.
        lock: Where the lock belongs.
        builder: Who chooses the packages.
        source: What the spec is called in messages.

    Returns:
        The packages of this solution; empty if another one came first.

    Raises:
        EnvError: No solution, or a channel that does not answer.
        OSError: No room.
    """
    aside = lock.with_name(f".{secrets.token_hex(8)}.yml")
    try:
        packages = solve(spec, aside, builder=builder, source=source)
        publish_first(aside, lock, private=spec.holds_secrets)
    except FileExistsError:
        return ()
    finally:
        with suppress(OSError):
            aside.unlink()
    return packages


def publish_first(aside: Path, path: Path, *, private: bool) -> None:
    """Give a finished file its name, unless there is one of that name; the first one stays.

    Raises:
        FileExistsError: Another one was first.
        OSError: It cannot be written.
    """
    aside.chmod(0o600 if private else 0o644)
    os.link(aside, path)


def preview(spec: EnvSpec, *, builder: Builder, source: str) -> tuple[Package, ...]:
    """The packages a solution has now; nothing is kept, and exact archives are not even fetched.

    Raises:
        EnvError: No solution, or a channel that does not answer.
    """
    if spec.explicit:
        return tuple(Package.from_archive(archive) for archive in spec.explicit)
    with tempfile.TemporaryDirectory() as scratch:
        return builder.lock(spec, Path(scratch) / "preview.yml", source)


def solve(spec: EnvSpec, lock: Path, *, builder: Builder, source: str) -> tuple[Package, ...]:
    """Solve a spec into the file `lock`; see `write_lock`."""
    if spec.explicit:
        return lock_archives(spec.explicit, lock, builder.workshop, source)
    return builder.lock(spec, lock, source)


def lock_archives(
    archives: Sequence[Archive], lock: Path, workshop: Workshop, source: str
) -> tuple[Package, ...]:
    """Write a lock of exact archives; what is not known of them is read from them.

    Raises:
        EnvError: One of them cannot be had.
        OSError: No room.
    """
    try:
        answer = workshop.rattler.call(
            "lock_archives",
            lock=str(lock),
            archives=[asdict(archive) for archive in archives],
            folder=str(workshop.incoming),
            offline=workshop.offline,
        )
    except RattlerFailed as failed:
        raise_if_no_room(failed.text)
        raise EnvError(
            f"The archives of {source} were to be locked",
            _top(redact(failed.text), lines=5),
            "check that they are still where it says; solve again from the environment file if "
            "one is gone",
        ) from None
    return read_packages(answer)


def packages_in(lock: Path, rattler: RattlerProcess) -> list[dict[str, Any]]:
    """The packages of a lock: name, version, build, size, url, sha256, md5 and file_name of each.

    Raises:
        EnvError: The lock cannot be read.
    """
    try:
        return list(rattler.call("packages", lock=str(lock))["packages"])
    except RattlerFailed as failed:
        raise EnvError(
            f"The lock {lock} was to be read",
            redact(failed.text),
            "remove it (`hpcburst env remove KEY --lock`), and solve again",
        ) from None


def read_packages(answer: Mapping[str, Any]) -> tuple[Package, ...]:
    """The packages in an answer of the child."""
    return tuple(Package.from_row(row) for row in answer["packages"])


def explain(kind: str, text: str, spec: EnvSpec, source: str) -> EnvError:
    """Put a failure of the solver into words: what was asked, what is in the way, what to do."""
    asked = f"The packages of {source} were to be chosen"
    text = redact(text)
    if kind == "SolverError":
        return EnvError(asked, *_conflict(text, spec.channels))
    if kind == "ValueError":
        return EnvError(asked, f"a dependency cannot be read: {text}", "mend that entry")
    if kind == "FileNotFoundError":
        return EnvError(asked, f"archives are {text}", "solve again, from the environment file")
    channel = _channel_in(text, spec.channels)
    return EnvError(
        asked,
        f"{channel} does not answer: {_top(text, lines=3)}",
        "check its name and the network of this machine; nodes without a network need a mirror "
        "(config `hpcburst.envs.mirror`)",
    )


def _top(text: str, lines: int = CONFLICT_LINES) -> str:
    kept = [line[:200] for line in text.strip().splitlines() if line.strip()]
    more = [f"... and {len(kept) - lines} more lines"] if len(kept) > lines else []
    return "\n".join(kept[:lines] + more)


def _conflict(text: str, channels: Sequence[str]) -> tuple[str, str]:
    missing = re.search(r"No candidates were found for (\S+)([^\n]*)", text)
    if missing:
        name, versions = missing[1], missing[2].strip(" .*")
        where = ", ".join(map(redact, channels))
        return (
            f"the channels ({where}) have no {name} {versions}".rstrip(),
            f"check the name and versions of {name}, or add the channel that has it",
        )
    return (
        f"they cannot be together in one env.\n{_top(text)}",
        "loosen one of the versions named above, or put these packages in two envs",
    )


def _channel_in(text: str, channels: Sequence[str]) -> str:
    for channel in channels:
        base = channel if "://" in channel else CHANNEL_HOST + channel
        if redact(base).rstrip("/") + "/" in text:
            return f"the channel {redact(channel)}"
    return f"one of the channels ({', '.join(map(redact, channels))})"
