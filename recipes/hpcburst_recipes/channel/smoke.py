"""Proves a channel: installs its Pythons with all they were asked for, and runs them once."""

from __future__ import annotations

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from hpcburst_recipes.channel.interpreters import FoundPython

RUN_TIMEOUT_S = 60.0
"""Seconds the installed Python may take; a busy login node is slow, a hang must end."""


def index_channel(channel: Path) -> None:
    """Write the index files that make a folder of archives a channel."""
    from rattler.index.index import index_fs

    _finish(index_fs(channel, write_zst=True, write_shards=True))


def prove(channel: Path, python: FoundPython, names: Sequence[str], work: Path) -> None:
    """Install a Python and the named packages into a scratch prefix, and run that Python.

    Raises:
        EnvError: The packages do not fit together, or the installed Python does not run.
    """
    prefix = work / f"smoke-{python.minor}"
    specs = [f"python =={python.version}", *names]
    _finish(_install(channel.as_uri(), specs, prefix, work / f"cache-{python.minor}"))
    program = f"import sys, {', '.join(python.modules)}; print(sys.prefix)"
    done = subprocess.run(
        [prefix / "bin/python", "-I", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    if done.returncode or done.stdout.strip() != str(prefix):
        raise EnvError(
            f"a movable copy of Python {python.version} was made from {python.base_prefix}",
            "the copy does not run",
            "use another interpreter, or a conda channel",
            tail=done.stdout + done.stderr,
        )


async def _install(channel: str, specs: Sequence[str], prefix: Path, cache: Path) -> None:
    from rattler import Gateway, VirtualPackage, install, solve
    from rattler.exceptions import SolverError

    try:
        records = await solve(
            [channel],
            list(specs),
            gateway=Gateway(cache_dir=cache / "repodata"),
            virtual_packages=VirtualPackage.detect(),
        )
    except SolverError as error:
        asked = f"an env of {', '.join(specs)} was tried with the new local channel"
        raise EnvError(asked, "its packages do not fit together", tail=str(error)) from None
    await install(records, prefix, cache_dir=cache / "packages", show_progress=False)


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in a thread: the caller may have a running loop of its own."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()
