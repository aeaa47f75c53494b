"""Builds the channel: many small steps at once, aside, and published by one rename."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from hpcburst.errors import EnvError
from hpcburst_recipes.channel.archive import Package, new_stage, pack
from hpcburst_recipes.channel.metadata import requirement_name
from hpcburst_recipes.channel.publish import Channel, publish, read_stamp, scratch, write_stamp
from hpcburst_recipes.channel.relocate import stage_python
from hpcburst_recipes.channel.smoke import index_channel, prove
from hpcburst_recipes.channel.wheels import fetch_wheels, pip_command, stage_wheel

if TYPE_CHECKING:
    from hpcburst_recipes.channel.interpreters import FoundPython

RECIPE = 1
"""Raise it when packages come out differently: channels of older recipes are built again."""

MOST_CORES = 8
"""Cores used at most: this runs on login nodes, among others."""

Progress = Callable[[str, int, int], None]
"""Called with what was just done, how many steps are done, and how many are known of."""

AddPackages = Callable[[Path, Path], None]
"""Puts further archives into a channel: called with the channel and a folder to work in."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One thing to do; what it returns is to be done after it."""

    label: str
    act: Callable[[], list[_Step]]


class _Tally:
    """Counts steps, from several threads, and tells the caller in order."""

    def __init__(self, progress: Progress | None, known: int) -> None:
        self._progress = progress
        self._known = known
        self._done = 0
        self._lock = Lock()

    def count(self, label: str, further: int) -> None:
        with self._lock:
            self._done += 1
            self._known += further
            if self._progress:
                self._progress(label, self._done, self._known)


def build_channel(
    folder: Path,
    *,
    pythons: Sequence[FoundPython],
    requirements: Mapping[str, Sequence[str]],
    progress: Progress | None = None,
    also: tuple[str, AddPackages] | None = None,
) -> Channel:
    """Build a small local conda channel, or return the one that is there if nothing changed.

    Args:
        folder: Where the channel goes; it appears there complete, or not at all.
        pythons: The interpreters to pack (of `find_pythons`).
        requirements: For a Python minor ("3.12") the PyPI requirements to pack, with all that they
            depend on.
        progress: Called after each step.
        also: A version label, and a function that adds archives before the channel is indexed.

    Returns:
        The channel.

    Raises:
        EnvError: There is no Python to pack, PyPI cannot be reached, `patchelf` is missing, or the
            packages do not work when they are installed.
    """
    _check(pythons, requirements)
    folder = folder.absolute()
    digest = _digest(pythons, requirements, also[0] if also else "")
    ready = read_stamp(folder, digest)
    if ready is not None:
        return ready
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with scratch(folder) as (work, aside):
        steps = _first_steps(pythons, requirements, work, aside)
        proofs = [_proof_step(python, requirements, work, aside) for python in pythons]
        tally = _Tally(progress, known=len(steps) + len(proofs))
        _run_steps(steps, tally)
        if also:
            also[1](aside, work)
        index_channel(aside)
        _run_steps(proofs, tally)
        write_stamp(aside, digest, pythons)
        return publish(aside, folder, digest)


def _check(pythons: Sequence[FoundPython], requirements: Mapping[str, Sequence[str]]) -> None:
    if not pythons:
        raise EnvError(
            "a local conda channel was asked for",
            "no CPython 3.9 or newer that starts was found on this machine",
            "load a Python module, or install one with pyenv or uv",
        )
    missing = sorted(set(requirements) - {python.minor for python in pythons})
    if missing:
        raise EnvError(
            f"packages for Python {', '.join(missing)} were asked for",
            f"the channel gets Python {', '.join(python.minor for python in pythons)}",
            "ask for one of these",
        )


def _first_steps(
    pythons: Sequence[FoundPython],
    requirements: Mapping[str, Sequence[str]],
    work: Path,
    channel: Path,
) -> list[_Step]:
    glibc = platform.libc_ver()[1]
    fetched = [python for python in pythons if requirements.get(python.minor)]
    pip = pip_command(pythons) if fetched else []
    fetches = [
        _Step(
            f"wheels for Python {python.minor} downloaded",
            partial(_fetch, pip, python, requirements[python.minor], work, channel),
        )
        for python in fetched
    ]
    packs = [
        _pack_step(
            f"python-{python.version}", partial(stage_python, python, glibc=glibc), work, channel
        )
        for python in pythons
    ]
    return fetches + packs


def _fetch(
    pip: Sequence[str],
    python: FoundPython,
    requirements: Sequence[str],
    work: Path,
    channel: Path,
) -> list[_Step]:
    folder = work / f"wheels-{python.minor}"
    folder.mkdir()
    wheels = fetch_wheels(pip, python, requirements, folder)
    wheels.sort(key=lambda wheel: -wheel.stat().st_size)  # the longest first: all end together
    return [
        _pack_step(
            f"{'-'.join(wheel.name.split('-')[:2])} for Python {python.minor}",
            partial(stage_wheel, wheel, python),
            work,
            channel,
        )
        for wheel in wheels
    ]


def _pack_step(label: str, fill: Callable[[Path], Package], work: Path, channel: Path) -> _Step:
    def act() -> list[_Step]:
        with tempfile.TemporaryDirectory(prefix="stage-", dir=work) as folder:
            stage = new_stage(Path(folder), "p")
            pack(fill(stage), stage, channel)
        return []

    return _Step(f"{label} packed", act)


def _proof_step(
    python: FoundPython, requirements: Mapping[str, Sequence[str]], work: Path, channel: Path
) -> _Step:
    names = [requirement_name(line) for line in requirements.get(python.minor, ())]

    def act() -> list[_Step]:
        prove(channel, python, names, work)
        return []

    return _Step(f"Python {python.version} installed and run", act)


def _run_steps(steps: Sequence[_Step], tally: _Tally) -> None:
    """Run steps and those that follow from them, one more at once than there are cores for us.

    The one more waits for the network while the others compress. The first error ends it all.
    """
    cores = min(len(os.sched_getaffinity(0)), MOST_CORES)
    with ThreadPoolExecutor(max_workers=cores + 1) as pool:
        pending = {pool.submit(_finish_step, step, tally) for step in steps}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    pending |= {pool.submit(_finish_step, step, tally) for step in future.result()}
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _finish_step(step: _Step, tally: _Tally) -> list[_Step]:
    further = step.act()
    tally.count(step.label, further=len(further))
    return further


def _digest(
    pythons: Sequence[FoundPython], requirements: Mapping[str, Sequence[str]], also: str
) -> str:
    programs = [Path(python.executable).stat() for python in pythons]
    inputs = {
        "recipe": RECIPE,
        "machine": [platform.machine(), *platform.libc_ver()],
        "pythons": [asdict(python) for python in pythons],
        "programs": [[program.st_size, program.st_mtime_ns] for program in programs],
        "requirements": {minor: sorted(lines) for minor, lines in sorted(requirements.items())},
        "also": also,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
