"""What a wheel states about itself, in conda's words. Pure: text in, data out."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.specifiers import Specifier

CONDA_NAMES = {
    "matplotlib": "matplotlib-base",  # conda-forge's `matplotlib` adds Qt
    "tzdata": "python-tzdata",  # conda-forge's `tzdata` is the database of the system
}
"""Projects that conda-forge has under another name; so one environment file serves both."""

_GLIBC = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True, slots=True)
class WheelFacts:
    """A wheel's METADATA.

    Attributes:
        name: Its conda name.
        version: Its version.
        requires: Its `Requires-Dist` lines.
        license: Its licence expression, or the first line of its licence field.
    """

    name: str
    version: str
    requires: tuple[str, ...]
    license: str = ""


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A console script: `command` calls `function` of `module`."""

    command: str
    module: str
    function: str


def conda_name(project: str) -> str:
    """The conda name of a PyPI project.

    >>> conda_name("Python_Dateutil"), conda_name("matplotlib")
    ('python-dateutil', 'matplotlib-base')
    """
    name = canonicalize_name(project)
    return CONDA_NAMES.get(name, name)


def requirement_name(requirement: str) -> str:
    """The conda name of what a requirement asks for.

    >>> requirement_name("matplotlib>=3.8")
    'matplotlib-base'
    """
    return conda_name(Requirement(requirement).name)


def read_metadata(text: str) -> WheelFacts:
    """The facts in a METADATA file."""
    fields = HeaderParser().parsestr(text)
    stated = (fields["License-Expression"] or fields["License"] or "").strip().splitlines()
    return WheelFacts(
        name=conda_name(fields["Name"]),
        version=fields["Version"].strip(),
        requires=tuple(fields.get_all("Requires-Dist", [])),
        license=stated[0][:80] if stated else "",
    )


def depends_of(requires: Iterable[str], version: str) -> tuple[str, ...]:
    """Match specs for the requirements that hold for one Python version.

    Extras are not followed: what a wheel wants only with an extra is left out.

    Args:
        requires: `Requires-Dist` lines.
        version: The Python's full version, "3.12.1".

    Returns:
        Specs such as "numpy >=1.23,<3", in the order of the lines.
    """
    minor = ".".join(version.split(".")[:2])
    environment = {str(key): str(value) for key, value in default_environment().items()}
    environment |= {"python_version": minor, "python_full_version": version, "extra": ""}
    wanted = [Requirement(line) for line in requires]
    return tuple(
        _spec(want) for want in wanted if want.marker is None or want.marker.evaluate(environment)
    )


def _spec(requirement: Requirement) -> str:
    limits = ",".join(sorted(_limit(limit) for limit in requirement.specifier))
    return f"{conda_name(requirement.name)} {limits}".strip()


def _limit(limit: Specifier) -> str:
    """A version limit in conda's spelling, which writes "any 2.x" as `2.*`."""
    exact = limit.operator in {"==", "==="}
    return (
        limit.version if exact and limit.version.endswith(".*") else f"{limit}".replace("===", "==")
    )


def python_pin(minor: str) -> str:
    """The match spec of one Python minor.

    >>> python_pin("3.9")
    'python >=3.9,<3.10.0a0'
    """
    major, number = minor.split(".")
    return f"python >={minor},<{major}.{int(number) + 1}.0a0"


def glibc_of(filename: str) -> str | None:
    """The oldest C library a wheel runs with, from its file name; None for pure Python.

    >>> glibc_of("numpy-2.2.6-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")
    '2.17'
    """
    tags = filename.removesuffix(".whl").split("-")[-1].split(".")
    known = [_GLIBC[tag.split("_")[0]] for tag in tags if tag.split("_")[0] in _GLIBC]
    exact = [re.match(r"manylinux_(\d+)_(\d+)_", tag) for tag in tags]
    known += [(int(match[1]), int(match[2])) for match in exact if match]
    return ".".join(map(str, min(known))) if known else None


def destination(member: str, minor: str) -> str | None:
    """Where a member of a wheel goes, relative to the prefix; None if it is left out.

    Tests are left out: an env on a cluster counts its files.

    >>> destination("toy/tests/test_a.py", "3.12") is None
    True
    >>> destination("toy-1.0.data/scripts/toy", "3.12")
    'bin/toy'
    """
    parts = PurePosixPath(member).parts
    site = f"lib/python{minor}/site-packages"
    if not parts or member.startswith("/") or ".." in parts or "tests" in parts[:-1]:
        return None
    if not parts[0].endswith(".data") or len(parts) < 3:
        return f"{site}/{member}"
    roots = {"purelib": f"{site}/", "platlib": f"{site}/", "scripts": "bin/", "data": ""}
    root = roots.get(parts[1])  # "headers" are for compilers, which these envs do not have
    return None if root is None else root + "/".join(parts[2:])


def entry_points_of(text: str) -> tuple[EntryPoint, ...]:
    """The console scripts in an `entry_points.txt`."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # commands keep their case
    parser.read_string(text)
    if not parser.has_section("console_scripts"):
        return ()
    scripts = []
    for command, target in parser.items("console_scripts"):
        module, _, function = target.split("[")[0].strip().partition(":")
        scripts.append(EntryPoint(command, module.strip(), function.strip()))
    return tuple(scripts)
