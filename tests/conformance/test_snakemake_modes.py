"""One workflow with everything a rule can have, under Snakemake's own local executor and each mode.

Envs, which the local executor cannot make without a conda command, are compared between the modes
in `integration/test_snakemake_envs.py`. A `script:` from an address that cannot be reached ends
every Snakemake with an answer before it asks for an executor.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from support.workflows import Workflow

pytestmark = pytest.mark.timeout(480)  # the first test of a mode runs the whole workflow twice

SINK = Path(__file__).parents[1] / "support" / "kitchen_sink"
MODES = ["direct", "zygote", pytest.param("spawn", marks=pytest.mark.long)]
TOKEN = "v a$l'ue \\ `x`"  # noqa: S105 - nobody's
FAILED = {"failing", "missing"}

OF_THE_MOMENT = {"starttime", "endtime", "job_hash"}
"""What no two runs have in common in what Snakemake records of a file."""

Ran = tuple[Workflow, str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Runs the workflow in a mode, once: its folder, and what Snakemake said."""

    @cache
    def run(mode: str) -> Ran:
        place = tmp_path_factory.mktemp(mode)
        workflow = Workflow.at(place, (SINK / "Snakefile").read_text())
        shutil.copytree(SINK, workflow.folder, dirs_exist_ok=True)
        (workflow.folder / "old.txt").touch()
        workflow.environ["TOKEN"] = TOKEN
        ran = workflow.run("--keep-going", "--benchmark-extended", mode=mode)
        assert ran.returncode == 1, ran.stdout
        return workflow, ran.stdout

    return run


def files(folder: Path) -> dict[str, tuple[str, str]]:
    """What a workflow left: the mode and the content or target of each file."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not name.startswith(".snakemake") and path.suffix != ".tsv":
            mode = stat.filemode(path.lstat().st_mode)
            content = str(path.readlink()) if path.is_symlink() else ""
            found[name] = (mode, path.read_text() if mode.startswith("-") else content)
    return found


def records(folder: Path) -> dict[str, dict[str, object]]:
    """What Snakemake recorded of each file."""
    found = {}
    for path in (folder / ".snakemake" / "metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text())
            name = base64.b64decode(path.name).decode()
            found[name] = {key: record[key] for key in record if key not in OF_THE_MOMENT}
    return found


@pytest.mark.parametrize("mode", MODES)
def test_the_files_are_the_same(ran: Callable[[str], Ran], mode: str):
    """Every output and log: its content, its permissions, and what is not there any more."""
    (ours, said), (theirs, _) = ran(mode), ran("local")
    expected = files(theirs.folder)
    assert files(ours.folder) == expected, said
    assert expected["named/it's.txt"][1] == f"it's|it's \"$HOME\" \\n 100% & more|4|{TOKEN}"
    assert expected["protected.txt"][0] == "-r--r--r--"
    assert expected["retried.txt"][1] == "200\n"
    assert expected["group.txt"][1] == "2\n1\n"
    assert {f"{rule}.txt" for rule in FAILED}.isdisjoint(expected)
    assert {"passing.txt", "rubbish", "more_rubbish", "a_pipe"}.isdisjoint(expected)


@pytest.mark.parametrize("mode", MODES)
def test_what_snakemake_records_is_the_same(ran: Callable[[str], Ran], mode: str):
    """Provenance is the same, so that a later run with another executor makes nothing anew."""
    (ours, _), (theirs, _) = ran(mode), ran("local")
    assert records(ours.folder) == records(theirs.folder) != {}
    left = [
        p for name in ("incomplete", "shadow") for p in ours.folder.glob(f".snakemake/{name}/*")
    ]
    assert left == []


@pytest.mark.parametrize("mode", MODES)
def test_benchmarks_have_the_same_columns_and_rows(ran: Callable[[str], Ran], mode: str):
    """A benchmark with two repeats has two rows, and every column that it has otherwise."""
    (ours, _), (theirs, _) = ran(mode), ran("local")
    rows, expected = (w.read("measured.tsv").splitlines() for w in (ours, theirs))
    assert rows[0] == expected[0]
    assert len(rows) == len(expected) == 3
    for row in rows[1:]:
        of_row = dict(zip(rows[0].split("\t"), row.split("\t"), strict=True))
        assert 0 <= float(of_row["s"]) < 60  # a quick rule may take less than it can tell
        assert of_row["rule_name"] == "measured"


@pytest.mark.parametrize("mode", ["local", *MODES])
def test_failures_are_told_in_the_same_words(ran: Callable[[str], Ran], mode: str):
    """The rule, its status, its last words and its command are told; a missing output by name."""
    _, said = ran(mode)
    for words in (
        "Error in rule failing:",
        "status 3",
        "the last words",
        "echo half > failing.txt; exit 3",
        "Removing output files of failed job failing",
        "MissingOutputException in rule missing",
        "Trying to restart job",
    ):
        assert words in said, said
    assert "Traceback" not in said


def test_a_notebook_is_run_by_the_kernel_it_names(tmp_path: Path):
    """A rule with a notebook, which is a nested call in every mode, makes its output."""
    pytest.importorskip("ipykernel")
    workflow = Workflow.at(tmp_path, (SINK / "Snakefile").read_text())
    shutil.copytree(SINK, workflow.folder, dirs_exist_ok=True)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{workflow.environ['PATH']}"
    if not shutil.which("jupyter-nbconvert", path=programs):
        pytest.skip("jupyter-nbconvert, which Snakemake calls, is not installed")
    workflow.environ.update(TOKEN=TOKEN, PATH=programs)
    ran = workflow.run("notebook.txt")
    assert ran.returncode == 0, ran.stdout
    assert workflow.read("notebook.txt") == "from a notebook"
