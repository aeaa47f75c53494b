"""Specs to locks: the exact packages, chosen once, in rattler's lock format (version 7)."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcburst.envs.entries import redact
from hpcburst.envs.rattler_process import RattlerFailed, RattlerProcess
from hpcburst.envs.room import raise_if_no_room
from hpcburst.envs.spec import CHANNEL_HOST, EnvSpec
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
    """One package of a solution; `size` is that of its archive in bytes, 0 if unknown."""

    name: str
    version: str
    build: str
    size: int = 0


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


def write_lock(
    spec: EnvSpec, lock: Path, *, repodata: Path, rattler: RattlerProcess, source: str
) -> tuple[Package, ...]:
    """Solve a spec and write its lock, unless another solver wrote one first: that one stays.

    Args:
        spec: What to solve.
        lock: Where the lock belongs.
        repodata: Folder that keeps what channels list.
        rattler: The process to solve in.
        source: What the spec is called in messages.

    Returns:
        The packages of this solution; empty if another one came first.

    Raises:
        EnvError: No solution, a channel that does not answer, or no room.
    """
    aside = lock.with_name(f".{secrets.token_hex(8)}.yml")
    try:
        packages = solve(spec, aside, repodata=repodata, rattler=rattler, source=source)
        aside.chmod(0o600 if spec.holds_secrets else 0o644)
        os.link(aside, lock)
    except FileExistsError:
        return ()
    finally:
        with suppress(OSError):
            aside.unlink()
    return packages


def solve(
    spec: EnvSpec, lock: Path, *, repodata: Path, rattler: RattlerProcess, source: str
) -> tuple[Package, ...]:
    """Solve a spec into the file `lock`; see `write_lock`."""
    fields = {
        "channels": spec.channels,
        "conda": spec.conda,
        "explicit": [a.identity for a in spec.explicit],
    }
    try:
        answer = rattler.call("solve", lock=str(lock), repodata=str(repodata), **fields)
    except RattlerFailed as failed:
        raise_if_no_room(failed.text)
        raise explain(failed.kind, failed.text, spec, source) from None
    return read_packages(answer)


def read_packages(answer: dict[str, Any]) -> tuple[Package, ...]:
    """The packages in an answer of the child."""
    return tuple(Package(**fields) for fields in answer["packages"])


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
