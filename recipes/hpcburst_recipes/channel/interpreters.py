"""Which Python interpreters this machine has that can be packed: CPython 3.9 and up, on Linux."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OLDEST = (3, 9)
"""The oldest minor taken: its `compileall` is the first that can strip the staging folder."""

START_TIMEOUT_S = 20.0
"""Seconds an interpreter may take to introduce itself; a cold network disk needs several."""

SMOKE_MODULES = ("ssl", "sqlite3", "ctypes", "zlib", "json", "decimal")
"""Modules with shared libraries behind them: a copy must have what its original has."""

_INTRODUCE = """
import importlib, json, os, site, sys, sysconfig
def has(name):
    try: importlib.import_module(name)
    except Exception: return False
    return True
print(json.dumps({
    "kind": sys.implementation.name, "platform": sys.platform, "abi": sys.abiflags,
    "version": "%d.%d.%d" % sys.version_info[:3], "release": sys.version_info[3] == "final",
    "base_prefix": sys.base_prefix, "stdlib": sysconfig.get_path("stdlib"),
    "site_folders": [os.path.relpath(path, sys.prefix) for path in site.getsitepackages()],
    "conda": os.path.isdir(os.path.join(sys.base_prefix, "conda-meta")),
    "modules": [name for name in sys.argv[1:] if has(name)]}))
"""


@dataclass(frozen=True, slots=True)
class FoundPython:
    """An interpreter that starts.

    Attributes:
        version: Its full version, "3.12.1".
        executable: The program, outside of any virtual environment.
        base_prefix: The folder it was installed into.
        stdlib: Its standard library.
        site_folders: Where it looks for packages, relative to the base prefix (Debian's own Python
            does not look into `site-packages`).
        modules: Which of `SMOKE_MODULES` it can import.
    """

    version: str
    executable: str
    base_prefix: str
    stdlib: str
    site_folders: tuple[str, ...]
    modules: tuple[str, ...]

    @property
    def minor(self) -> str:
        """The version as an environment file pins it, "3.12"."""
        return ".".join(self.version.split(".")[:2])


def find_pythons() -> list[FoundPython]:
    """The newest patch release of each CPython minor on this machine, oldest minor first.

    Looks at the running interpreter and its neighbours, at PATH, at what pyenv and uv installed,
    and at /usr. Left out
    are Pythons that do not start, pre-releases, free-threaded builds, and those of conda (their
    shared libraries lie beside them as packages of their own).
    """
    programs = list(dict.fromkeys(program.resolve() for program in _candidates()))
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = [python for python in pool.map(_introduce, programs) if python is not None]
    newest: dict[str, FoundPython] = {}
    for python in found:  # of equal versions the first place looked at wins
        best = newest.get(python.minor)
        if best is None or _order(python.version) > _order(best.version):
            newest[python.minor] = python
    return sorted(newest.values(), key=lambda python: _order(python.version))


def _candidates() -> Iterator[Path]:
    running = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield from _programs([Path(sys.base_prefix) / "bin"], only=running)
    yield from _programs(Path(folder) for folder in os.get_exec_path() if folder)
    yield from _programs(_neighbours(Path(sys.base_prefix)))
    yield from _programs(sorted(_pyenv_root().glob("versions/*/bin")))
    yield from _programs(sorted(_uv_root().glob("*/bin")))
    yield from _programs([Path("/usr/local/bin"), Path("/usr/bin")])


def _neighbours(prefix: Path) -> list[Path]:
    """Pythons installed side by side with ours, as pyenv and uv do, wherever their root is."""
    if not re.search(r"\d+\.\d+", prefix.name):  # "/usr" has neighbours, but they are no Pythons
        return []
    return sorted(prefix.parent.glob("*/bin"))


def _pyenv_root() -> Path:
    return Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


def _uv_root() -> Path:
    stated = os.environ.get("UV_PYTHON_INSTALL_DIR")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(stated or Path(data) / "uv/python")


def _programs(folders: Iterable[Path], only: str = "") -> Iterator[Path]:
    for folder in folders:
        if folder.name == "shims":  # pyenv's shell scripts; the versions behind them are listed
            continue
        for program in sorted(folder.glob("python3.*")):
            match = re.fullmatch(r"python3\.(\d+)", program.name)
            if match and (3, int(match[1])) >= OLDEST and only in ("", program.name):
                yield program


def _introduce(program: Path) -> FoundPython | None:
    try:
        done = subprocess.run(
            [program, "-I", "-c", _INTRODUCE, *SMOKE_MODULES],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_TIMEOUT_S,
            check=True,
        )
        facts = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return _accept(program, facts)


def _accept(program: Path, facts: dict[str, Any]) -> FoundPython | None:
    plain = (facts["kind"], facts["platform"], facts["abi"]) == ("cpython", "linux", "")
    if not plain or facts["conda"] or not facts["release"]:
        return None
    return FoundPython(
        version=facts["version"],
        executable=str(program),
        base_prefix=facts["base_prefix"],
        stdlib=facts["stdlib"],
        site_folders=tuple(facts["site_folders"]),
        modules=tuple(facts["modules"]),
    )


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
