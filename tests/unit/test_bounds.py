"""The versions stated are the versions tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_the_oldest_versions_tested_are_the_oldest_ones_let_in():
    """`make test-oldest` runs with the lower bounds of pyproject.toml, and with no other ones."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    stated = [*project["dependencies"], *extras["prefect"], *extras["snakemake"]]
    lowest = {}
    for requirement in map(Requirement, stated):
        for spec in requirement.specifier:
            if spec.operator == ">=":
                lowest[requirement.name] = spec.version
    constraints = (ROOT / "tests" / "support" / "oldest.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", constraints, re.MULTILINE))

    for name, version in pinned.items():
        assert _numbers(version) == _numbers(lowest[name]), name
    assert set(lowest) - set(pinned) == {"snakemake-interface-common"}  # others bind it higher


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
