"""Pilots that run inside an env of the user's: checked before anything is submitted.

Dask's messages are pickles between equals, so the env must have the driver's distributed and its
minor version of Python. It need not have hpcburst: the pilot's program is a file that goes along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hpcburst.comms.staging import private_folder, write_private
from hpcburst.errors import EnvError
from hpcburst.pools.fleet import Program
from hpcburst.tasks import Env
from hpcburst.workers import plain_pilot
from hpcburst.workers.activation import replay

ASK_TIMEOUT_S = 120.0
"""Importing distributed from a cold shared file system takes its time."""

_QUESTION = (
    "import sys, distributed; "
    "print(sys.version_info[0], sys.version_info[1], distributed.__version__)"
)


def program_inside(env: Env, folder: Path) -> Program:
    """What pilots inside an env run.

    Args:
        env: Its prefix is seen by every node.
        folder: Private folder of the run, seen by every node; what pilots need is written there.

    Raises:
        EnvError: The env has no distributed, another one than the driver, or another Python.
    """
    check(env)
    place = private_folder(folder / "inside")
    file = place / "pilot.py"
    write_private(file, Path(plain_pilot.__file__).read_bytes())
    write_private(place / plain_pilot.ACTIVATION, json.dumps(dict(env.activation)).encode())
    return Program(env.interpreter, "pilot", str(file))


def check(env: Env) -> None:
    """See that the env can hold pilots of this driver.

    Raises:
        EnvError: It cannot.
    """
    import distributed

    ours = (*sys.version_info[:2], distributed.__version__)
    theirs = _versions(env)
    if theirs != ours:
        raise EnvError(
            f"Pilots were to run inside {env.prefix}",
            f"it has {_words(theirs)}, and the driver has {_words(ours)}",
            f"let the env have {_words(ours)}, or start the driver with what the env has",
        )


def _versions(env: Env) -> tuple[int, int, str]:
    try:
        told = subprocess.run(
            [env.interpreter, "-c", _QUESTION],
            env=replay(env.activation, os.environ),
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=True,
        )
        major, minor, version = told.stdout.split()[-3:]
        return int(major), int(minor), version
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr).splitlines()
        raise _unasked(env, lines[-1] if lines else f"status {error.returncode}") from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _unasked(env, str(error)) from error


def _unasked(env: Env, found: str) -> EnvError:
    return EnvError(
        f"Pilots were to run inside {env.prefix}",
        f"it cannot import distributed: {found}",
        "add distributed to the env, in the driver's version",
    )


def _words(versions: tuple[int, int, str]) -> str:
    major, minor, distributed = versions
    return f"distributed {distributed} on Python {major}.{minor}"
