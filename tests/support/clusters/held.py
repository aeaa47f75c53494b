"""A private cluster that lives as long as this process, however that ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from support.clusters.cluster import PrivateCluster, Size
from support.clusters.errors import ClusterError

Cluster = TypeVar("Cluster", bound=PrivateCluster)


@contextmanager
def held(kind: type[Cluster], folder: Path, size: Size, *lines: str) -> Iterator[Cluster]:
    """A running cluster in this folder, installed when we may.

    Another process starts it and ends it when a pipe of ours closes, so that a test session that
    is killed leaves none behind.

    Raises:
        ClusterError: It did not start.
    """
    cluster = kind(folder)
    words = ["--nodes", size.nodes, "--cores", size.cores, "--memory", size.memory_mb]
    extra = [word for line in lines for word in ("--line", line)]
    argv = [sys.executable, kind.script, "hold", "--folder", folder, "--install", *words, *extra]
    with subprocess.Popen(
        [str(word) for word in argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt at the terminal must not reach it before us
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        if keeper.stdout.readline() != "ready\n":
            raise ClusterError(keeper.stderr.read().strip())
        yield cluster
