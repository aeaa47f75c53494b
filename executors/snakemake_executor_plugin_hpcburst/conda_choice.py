"""Which `conda` the rules' envs are made with: the one that is there, or the stand-in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpcburst.errors import RequestError

AUTO, RATTLER, CONDA = CHOICES = ("auto", "rattler", "conda")
"""What `--hpcburst-conda` may be."""

OLDEST = "24.7.1"
"""The oldest conda that Snakemake 9 works with."""

TIMEOUT_S = 30.0
"""Seconds `conda --version` may take; one on a busy shared file system needs several."""

_VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True, slots=True)
class FoundConda:
    """A `conda` program and its version; "" when it does not say."""

    program: str
    version: str = ""

    @property
    def is_new_enough(self) -> bool:
        """Whether Snakemake works with it."""
        return _as_numbers(self.version) >= _as_numbers(OLDEST)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        standin: The stand-in is used, and not the conda on PATH.
        notice: What the user should know about it; "" if it is what they expect.
    """

    standin: bool
    notice: str = ""


def choose_conda(asked: str, found: FoundConda | None) -> Choice:
    """Choose between the stand-in and the conda that was found on PATH. Pure.

    >>> choose_conda("auto", FoundConda("/opt/conda/bin/conda", "25.1.0")).standin
    False
    >>> choose_conda("auto", FoundConda("/opt/conda/bin/conda", "4.12.0")).notice
    'conda 4.12.0 (/opt/conda/bin/conda) is older than 24.7.1: hpcburst makes the environments'

    Raises:
        RequestError: A conda was asked for, and there is none.
    """
    if asked == CONDA:
        if found is None:
            raise RequestError(
                f"--hpcburst-conda {CONDA} was asked for",
                "there is no conda on PATH",
                f"load or activate your conda first, or leave it at {AUTO}",
            )
        return Choice(standin=False)
    if asked == RATTLER or found is None:
        return Choice(standin=True)
    if found.is_new_enough:
        return Choice(standin=False)
    problem = (
        f"conda {found.version} ({found.program}) is older than {OLDEST}"
        if found.version
        else f"{found.program} does not say which version of conda it is"
    )
    return Choice(standin=True, notice=f"{problem}: hpcburst makes the environments")


def find_conda(path: str) -> FoundConda | None:
    """The first `conda` on a PATH and its version; None if there is none."""
    program = shutil.which("conda", path=path)
    if program is None:
        return None
    return FoundConda(program, _version_on_disk(program) or _version_it_says(program, path))


def offer_conda(asked: str) -> Choice:
    """Put the chosen conda on this process's PATH; jobs find it through the PATH they are given.

    Args:
        asked: One of `CHOICES`.

    Raises:
        RequestError: A conda was asked for, and there is none.
        BurstError: The stand-in has no folder to be in.
        ValueError: Snakemake could not use the stand-in there.
    """
    from hpcburst.envs.conda_standin import with_conda_on_path, without_standin

    without = without_standin(os.environ)
    choice = choose_conda(asked, None if asked == RATTLER else find_conda(without["PATH"]))
    chosen = with_conda_on_path(without, _folder(), first=True) if choice.standin else without
    os.environ["PATH"] = chosen["PATH"]
    return choice


def _folder() -> Path:
    from hpcburst.comms.staging import private_folder
    from hpcburst.policy.load import load_site

    return private_folder(load_site().paths.shared_root) / "conda-standin"


def _version_on_disk(program: str) -> str:
    """What conda's own installation says of itself; costs no start of a Python."""
    base = Path(program).resolve().parent.parent
    names = [path.name for path in (base / "conda-meta").glob("conda-[0-9]*.json")]
    return names[0].split("-")[1] if len(names) == 1 else ""


def _version_it_says(program: str, path: str) -> str:
    try:
        said = subprocess.run(
            [program, "--version"],
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = _VERSION.search(said.stdout)
    return match[0] if match else ""


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
