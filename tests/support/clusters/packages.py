"""What a private cluster is made of: say what is missing, or install it on Debian and Ubuntu."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.clusters.errors import CannotHave

SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Daemons are in folders that an ordinary user has not on PATH."""

POLICY = Path("/usr/sbin/policy-rc.d")
NO_DAEMONS = "#!/bin/sh\nexit 101\n"
APT = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]


def program(name: str) -> str:
    """Where a program is; a name that is nowhere comes back as it is."""
    return shutil.which(name, path=SYSTEM_PATH) or name


def missing(packages_of: Mapping[str, str]) -> list[str]:
    """The packages of those programs and files that are not here, each once."""
    return sorted({packages_of[name] for name in packages_of if not _is_here(name)})


def _is_here(name: str) -> bool:
    """Whether there is such a program, or a file where a path or a pattern of one is given."""
    if name.startswith("/"):
        return any(Path("/").glob(name[1:]))
    return shutil.which(name, path=SYSTEM_PATH) is not None


def obstacle(packages_of: Mapping[str, str]) -> str:
    """Why the programs can neither be used nor installed by us; empty when they can."""
    packages = missing(packages_of)
    if not packages or (os.geteuid() == 0 and shutil.which("apt-get")):
        return ""
    command = " ".join(_install_argv(packages))
    return f"not installed: {', '.join(packages)} (on Debian or Ubuntu, as root: {command})"


def require(packages_of: Mapping[str, str], *, install: bool, answers: Sequence[str] = ()) -> None:
    """Have these programs.

    Args:
        packages_of: The package of each program, or of each file by its path.
        install: Install what is missing; needs root and apt-get.
        answers: What to tell debconf before, in the words of `debconf-set-selections`.

    Raises:
        CannotHave: Something is missing and `install` was not asked or failed.
    """
    packages = missing(packages_of)
    if packages and install and not obstacle(packages_of):
        _install(packages, answers)
        packages = missing(packages_of)
    if packages:
        command = " ".join(_install_argv(packages))
        raise CannotHave(
            f"not installed: {', '.join(packages)}. On Debian or Ubuntu, as root: "
            f"{command}, or the same command again with --install."
        )


def _install(packages: Sequence[str], answers: Sequence[str]) -> None:
    with _no_daemon_started():
        if answers:
            _apt(["debconf-set-selections"], stdin="\n".join(answers) + "\n")
        told = _apt(_install_argv(packages))
        if told:  # no list of packages yet, or one so old that its files are gone
            _apt([*APT, "update"])
            told = _apt(_install_argv(packages))
    if told:
        raise CannotHave(f"apt-get could not install {', '.join(packages)}:\n{told}")


def _install_argv(packages: Sequence[str]) -> list[str]:
    return [*APT, "install", "--yes", "--no-install-recommends", *packages]


def _apt(argv: Sequence[str], stdin: str = "") -> str:
    """Run it; the last lines it said when it failed, empty when it did not."""
    done = subprocess.run(
        argv,
        input=stdin,
        env={**os.environ, "PATH": SYSTEM_PATH, "DEBIAN_FRONTEND": "noninteractive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "\n".join(done.stdout.splitlines()[-20:]) if done.returncode else ""


@contextmanager
def _no_daemon_started() -> Iterator[None]:
    """While this lasts, packages start no service: the system's are not wanted."""
    theirs = POLICY.read_text() if POLICY.exists() else None
    mode = POLICY.stat().st_mode if theirs is not None else 0o755
    POLICY.write_text(NO_DAEMONS)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        if theirs is None:
            POLICY.unlink()
        else:
            POLICY.write_text(theirs)
            POLICY.chmod(mode)
