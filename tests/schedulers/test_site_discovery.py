"""`hpcburst site discover` on real batch systems: what it prints is there, and can be used."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

THERE = {
    "slurm": {"batch": ("1d", 4), "short": ("10m", 4), "scavenge": ("1h", 4)},
    "sge": {"short.q": ("10m", 4), "batch.q": (None, 4)},
}
"""Queues that the private clusters have, their longest walltime, and the cores of a node."""


def told(system, *words: str) -> str:
    """What a verb of `hpcburst site` prints to a user of the cluster."""
    argv = [*system.enter, sys.executable, "-m", "hpcburst.cli.main", "site", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["slurm", "sge"])
def test_discover_finds_the_queues_that_are_there(kind, request, tmp_path):
    """The config it prints names each queue with its limits, and `site check` accepts it."""
    system = request.getfixturevalue(kind)
    text = told(system, "discover", "--scheduler", kind)  # this machine may have several
    section = yaml.safe_load(text)["hpcburst"]
    assert section["scheduler"] == kind
    for name, (walltime, cores) in THERE[kind].items():
        queue = section["queues"][name]
        assert queue["cores"] == cores
        assert walltime is None or queue["walltime"] == walltime
    config = tmp_path / "hpcburst.yaml"
    config.write_text(text)
    told(system, "check", str(config))
