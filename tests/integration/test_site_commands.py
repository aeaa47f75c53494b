"""The verbs of `hpcburst site`: what they say to people and to programs, and that it is true."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import dask.config
import pytest
import yaml

from hpcburst.cli.main import main
from hpcburst.policy.discovery.systems import SYSTEMS
from hpcburst.policy.load import load_site
from hpcburst.policy.present import COMMANDS

GOLDEN = Path(__file__).parents[1] / "golden" / "site"


@pytest.fixture
def batch_system(tmp_path, monkeypatch):
    """Puts commands on PATH that print what those of a batch system printed, and note each call."""

    def install(scheduler: str, case: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        answers = {path.stem: path for path in (GOLDEN / scheduler / case).glob("*.txt")}
        system = SYSTEMS[scheduler]
        argvs = {**system.first, **system.then({k: p.read_text() for k, p in answers.items()})}
        branches = dict.fromkeys(COMMANDS[scheduler], "")
        for name, (command, *words) in argvs.items():
            line = f"{shlex.quote(' '.join(words))}) cat {answers.get(name, os.devnull)};;\n"
            branches[command] = branches.get(command, "") + line
        for command, lines in branches.items():
            path = folder / command
            calls = tmp_path / "calls"
            note = f'echo {command} "$*" >> {calls}'
            path.write_text(f'#!/bin/sh\n{note}\ncase "$*" in\n{lines}*) exit 1;;\nesac\n')
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return tmp_path / "calls"

    return install


@pytest.mark.parametrize(
    ("scheduler", "case"),
    [
        (path.parent.parent.name, path.parent.name)
        for path in sorted(GOLDEN.glob("*/*/page.yaml"))
        if path.parent.parent.name != "torque"  # told apart by a word of its own
    ],
)
def test_discover_prints_a_config_of_what_is_there(scheduler, case, batch_system, capsys):
    """`site discover` asks the batch system by a few commands and prints its queues."""
    calls = batch_system(scheduler, case)

    assert main(["site", "discover", "--scheduler", scheduler]) == 0
    assert capsys.readouterr().out == (GOLDEN / scheduler / case / "page.yaml").read_text()
    assert len(calls.read_text().splitlines()) <= 9


def test_what_was_written_is_what_a_run_takes(batch_system, tmp_path, capsys):
    """The file from `--write`, put where Dask reads it, is the site of the next run."""
    batch_system("slurm", "private")
    path = tmp_path / "hpcburst.yaml"

    assert main(["site", "discover", "--write", str(path)]) == 0
    assert "6 queues of slurm" in capsys.readouterr().out
    assert main(["site", "check", str(path)]) == 0
    with dask.config.set(yaml.safe_load(path.read_text())):
        site = load_site({"host": "driver"})
    assert site.queues[0].name == "batch"
    assert site.limits.max_pending == 8


def test_a_file_is_never_overwritten(batch_system, tmp_path, capsys):
    """`--write` makes a new file, and leaves one that is there as it is."""
    batch_system("slurm", "private")
    path = tmp_path / "hpcburst.yaml"
    path.write_text("mine")

    assert main(["site", "discover", "--write", str(path)]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_queues_that_nobody_stated_are_asked_for_once(batch_system):
    """A run without stated queues takes the scheduler's own, and asks once in its process."""
    calls = batch_system("slurm", "private")
    first = load_site({"scheduler": "auto", "host": "driver"})
    asked = len(calls.read_text().splitlines())
    again = load_site({"scheduler": "slurm", "host": "driver"})

    assert first.scheduler == "slurm"
    assert first.queues == again.queues
    assert asked == len(calls.read_text().splitlines()) == 3
    assert first.limits.status_interval_s == 60


def test_discover_without_a_batch_system_says_so(monkeypatch, tmp_path, capsys):
    """On a laptop there is nothing to discover, and that is an answer."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main(["site", "discover"]) == 1
    assert "None has its commands on PATH" in capsys.readouterr().err


def test_discover_for_programs(batch_system, capsys):
    """`--json` carries the same queues, with their guesses and what was left out."""
    batch_system("slurm", "private")
    assert main(["site", "discover", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)

    assert told["scheduler"] == "slurm"
    assert told["queues"][0]["queue"]["name"] == "batch"
    assert "staff" in told["closed"]


def test_show_says_what_holds_and_where_it_is_stated(capsys):
    """`site show` begins with the centre's message and names the source of each value."""
    with dask.config.set({"hpcburst.message": "Maintenance on Tuesday.", "hpcburst.jobs": 7}):
        assert main(["site", "show"]) == 0
        out = capsys.readouterr().out
        assert main(["site", "show", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)

    assert out.startswith("Maintenance on Tuesday.")
    assert [line.split() for line in out.splitlines() if line.startswith("jobs ")] == [
        ["jobs", "7", "program"]
    ]
    assert told["queues"][0]["name"] == "local"
    assert {"key": "jobs", "value": 7, "source": "program"} in told["settings"]


def test_check_tells_all_problems_with_their_lines(tmp_path, capsys):
    """`site check FILE` ends with 1 and one line for each problem, as compilers write them."""
    path = tmp_path / "site.yaml"
    path.write_text("hpcburst:\n  jobz: 3\n  max-jobs: many\n")

    assert main(["site", "check", str(path)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}:2: ")
    assert second.startswith(f"{path}:3: ")
    assert main(["site", "check", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["line"] for row in told] == [2, 3]


def test_check_of_a_file_that_is_not_there(tmp_path, capsys):
    """A file that cannot be read is an answer."""
    assert main(["site", "check", str(tmp_path / "none.yaml")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_check_looks_at_all_files_that_are_read(tmp_path, monkeypatch, capsys):
    """Without a name, `site check` looks at every file that Dask reads."""
    (tmp_path / "mine.yaml").write_text("hpcburst: {jobs: 3}\n")
    (tmp_path / "other.yaml").write_text("distributed: {}\n")
    monkeypatch.setattr(dask.config, "paths", [str(tmp_path)])

    assert main(["site", "check"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'mine.yaml'}: nothing is wrong\n"
