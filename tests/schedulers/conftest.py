"""Real batch systems of the session's own; skipped where they cannot be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clusters.cluster import Size
from support.clusters.held import held
from support.clusters.sge import Sge
from support.clusters.slurm import Slurm

SGE_SIZE = Size(nodes=4)
"""Its nodes take a process of their own and a second each to start."""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm of eight nodes with four cores each; one for all tests: leave it as `reset` does."""
    if reason := Slurm.obstacle():
        pytest.skip(reason)
    with held(Slurm, tmp_path_factory.mktemp("slurm"), Size()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sge]:
    """A Grid Engine of four nodes with four cores each; one for all tests.

    What uses it must run on its head: put `sge.enter` before the command. Where the whole test
    session runs there already (`sge.py run -- pytest`), that cluster is taken, and `enter` is
    as good.
    """
    if around := Sge.around():
        yield around
        return
    if reason := Sge.obstacle():
        pytest.skip(reason)
    with held(Sge, tmp_path_factory.mktemp("sge"), SGE_SIZE) as cluster:
        yield cluster
