"""The Pythons that are on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def found() -> dict[str, str]:
    """One interpreter per minor version, 3.8 and newer, oldest first; this one always."""
    this = "{}.{}".format(*sys.version_info[:2])
    pythons = {}
    for minor in range(8, 16):
        name = f"3.{minor}"
        versions = [Path(sys.base_prefix).parent, Path.home() / ".pyenv" / "versions"]
        places = [str(p) for v in versions for p in sorted(v.glob(f"{name}.*/bin/python{name}"))]
        candidates = [*places, shutil.which(f"python{name}")]
        starting = (python for python in candidates if python and _starts(python))
        python = sys.executable if name == this else next(starting, None)
        if python:
            pythons[name] = python
    return pythons


def _starts(python: str) -> bool:
    """Version managers leave programs on PATH that stand for a Python and are none."""
    done = subprocess.run([python, "-c", ""], capture_output=True, check=False)
    return done.returncode == 0


PYTHONS = found()
