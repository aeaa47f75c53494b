"""What this machine is, as packages see it: found out once by rattler, then read from a file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst._version import __version__
from hpcburst.envs.building.solve import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

OVERRIDES = "CONDA_OVERRIDE_"
"""Variables that make this machine seem another one: a GPU env is solved on a login node with
`CONDA_OVERRIDE_CUDA=12.4`."""

_DRIVER = Path("/proc/driver/nvidia/version")


def overrides() -> tuple[tuple[str, str], ...]:
    """The variables that make this machine seem another one, and their values."""
    # Names first: each value that is looked at is decoded anew.
    names = sorted(name for name in os.environ if name.startswith(OVERRIDES))
    return tuple((name, os.environ[name]) for name in names)


def this_machine(folder: Path, detect: Callable[[], Machine]) -> Machine:
    """What this machine is.

    Args:
        folder: Keeps the answers; nodes that are alike share one. Need not be writable.
        detect: Finds it out; a process is started for that, so it is asked once.
    """
    path = folder / f"{_fingerprint()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        return Machine(str(known["platform"]), tuple(map(str, known["virtual_packages"])))
    machine = detect()
    with suppress(OSError):
        _keep(path, machine)
    return machine


def _keep(path: Path, machine: Machine) -> None:
    aside = path.with_name(f".{secrets.token_hex(8)}.json")
    try:
        aside.write_text(json.dumps(asdict(machine)), encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _fingerprint() -> str:
    """Changes with what a key is made from: system, libc, GPU driver, kind of CPU."""
    kernel = os.uname()
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else ""
    seen = (kernel.sysname, kernel.release, kernel.machine, libc, _text(_DRIVER))
    text = json.dumps([*seen, overrides(), __version__])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
