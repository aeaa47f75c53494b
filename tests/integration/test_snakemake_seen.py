"""What the user of a run sees: the table, where logs are, the live line, jobs of their own."""

from __future__ import annotations

import csv
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hpcburst_recipes import snakemake_profile

WITHIN_S = 90.0


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The user's environment with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the workflow."""
    folder = tmp_path / "workflow"
    folder.mkdir()
    return folder


def snakemake(folder, environ, *options):
    """Run snakemake; its output in one text."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        check=False,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN_S,
    )


OURS = ("--executor", "hpcburst", "--jobs", "10", "--hpcburst-max-jobs", "2")

ALL_KINDS = """
rule all:
    input: "shared.txt", "alone.txt", "ranks.txt"
rule shared:
    output: "shared.txt"
    threads: 2
    retries: 1
    resources: mem_mb=lambda wildcards, attempt: attempt * 900, runtime=3
    shell: "test {resources.mem_mb} -gt 900 && touch {output}"
rule alone:
    output: "alone.txt"
    resources: hpcburst_own_job=True
    shell: "echo the disk is on fire >&2; exit 3"
rule ranks:
    output: "ranks.txt"
    resources: mpi="echo of", tasks=2
    shell: "{resources.mpi} {resources.tasks} > {output}"
"""


def test_a_run_ends_with_what_each_rule_used(folder, environ):
    """In the log and as CSV, for pilots and for jobs of their own; each attempt counts.

    A job of its own that fails says why and where, as one on a pilot does.
    """
    (folder / "Snakefile").write_text(ALL_KINDS)
    ran = snakemake(folder, environ, *OURS, "--keep-going")
    assert ran.returncode == 1
    assert (folder / "shared.txt").exists(), ran.stdout
    assert (folder / "ranks.txt").read_text() == "of 2\n"
    failure = ran.stdout.partition("Error in rule alone")[2]
    assert "the disk is on fire" in failure
    assert "external_jobid: " in failure
    table = ran.stdout.partition("What rules used of what they asked for")[2].splitlines()
    assert table[1].split()[:3] == ["rule", "jobs", "failed"]
    (kept,) = (folder / ".snakemake" / "hpcburst_logs").rglob("efficiency.csv")
    rows = {row["rule"]: row for row in csv.DictReader(kept.open())}
    assert set(rows) == {"shared", "alone", "ranks"}
    shared = rows["shared"]
    asked = [shared[name] for name in ("jobs", "failed", "cores", "memory_mb", "runtime_s")]
    assert asked == ["2", "1", "2", "1800", "180.0"]
    assert all(float(row["wall_s"]) > 0 for row in rows.values())
    # Only what failed left a log, and the run said where.
    logs = (folder / ".snakemake" / "hpcburst_logs").rglob("*.log")
    assert sorted(log.parent.name for log in logs) == ["alone", "shared"]
    assert f"Logs of jobs (kept if they fail): {kept.parent}" in ran.stdout


def test_the_ready_profile_and_its_live_line(folder, environ):
    """`--profile` alone is enough; a second try gets twice the memory and time.

    On a terminal, jobs and pilots are told on one line, which is gone when the run is over.
    """
    profile = str(Path(snakemake_profile.__file__).parent)
    (folder / "Snakefile").write_text(
        'rule a:\n    output: "a.txt"\n    shell: "sleep 1.5; '
        'test {resources.mem_mb}-{resources.runtime} = 4000-60 && touch {output}"\n'
    )
    ours, theirs = pty.openpty()
    options = ("--profile", profile, "--hpcburst-no-efficiency")
    argv = [sys.executable, "-m", "snakemake", *options]
    with subprocess.Popen(
        argv, cwd=folder, env=environ, stderr=theirs, stdout=subprocess.DEVNULL
    ) as run:
        os.close(theirs)
        text = read_all(ours)
    assert run.returncode == 0, text
    assert (folder / "a.txt").exists()
    assert "hpcburst: 1 job under way, 1 pilot up" in text
    assert text.rfind("job under way") < text.rfind("\r\x1b[2K")
    assert "What rules used" not in text


def read_all(terminal):
    """All that was written to a terminal nobody has open any more."""
    seen = bytearray()
    try:
        while part := os.read(terminal, 1 << 16):
            seen += part
    except OSError:  # that is how a terminal says that there is no more
        pass
    finally:
        os.close(terminal)
    return seen.decode()
