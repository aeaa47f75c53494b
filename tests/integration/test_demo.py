"""The demo is the first thing a stranger sees: it works and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.places import CACHE
from support.processes import marked, wait_until

pytestmark = pytest.mark.channel

FITS = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the demo, with the channel of an earlier run if there is one."""
    kept = CACHE / "demo-channel"
    if kept.exists():
        shutil.copytree(kept, tmp_path / "demo" / "channel", symlinks=True)
    return tmp_path / "demo"


def demo(folder: Path, *more: str) -> list[str]:
    argv = [sys.executable, "-m", "hpcburst.cli.main", "demo", "--folder", str(folder)]
    return [*argv, "--fits", str(FITS), *more]


def environ(mark: str) -> dict[str, str]:
    return {**os.environ, "HPCBURST_TEST_MARK": mark}


@pytest.mark.timeout(300)
def test_the_demo_gives_the_same_numbers_from_both_engines_and_leaves_no_process(
    folder: Path,
) -> None:
    """One command: two engines, two envs, the same numbers, a plot and a report of each."""
    mark = folder.parent.name
    done = subprocess.run(
        demo(folder, "--json"), env=environ(mark), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "same numbers from both" in done.stdout
    figures = json.loads(done.stdout[done.stdout.index("\n[\n") :])
    assert [run["engine"] for run in figures] == ["Prefect", "Snakemake"]
    for run in figures:
        assert run["figures"]["tasks"] == FITS + 1
        assert run["figures"]["failed"] == 0
        assert Path(run["plot"]).read_bytes().startswith(b"\x89PNG")
        assert "tasks" in Path(run["report"]).read_text()
    assert figures[0]["summary"] == figures[1]["summary"]
    assert not marked(f"HPCBURST_TEST_MARK={mark}")
    assert not list((folder / "shared" / "runs").glob("*/secret"))
    if not (CACHE / "demo-channel").exists():
        shutil.copytree(folder / "channel", CACHE / "demo-channel", symlinks=True)


@pytest.mark.timeout(300)
def test_ctrl_c_in_the_middle_of_the_demo_leaves_nothing_behind(folder: Path) -> None:
    """After Ctrl-C no process of the demo runs, and no credentials lie about."""
    mark = folder.parent.name
    process = subprocess.Popen(
        demo(folder, "--only", "snakemake"),
        env=environ(mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    runs = folder / "shared" / "runs"
    wait_until(lambda: list(runs.glob("*/logs/*.log")), "a first job", within_s=200)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 130, output
    wait_until(lambda: not marked(f"HPCBURST_TEST_MARK={mark}"), "the end of all processes")
    assert not list(runs.glob("*/secret"))


def test_on_a_terminal_the_demo_shows_a_progress_bar(folder: Path) -> None:
    """A person at a terminal sees a bar; a log file gets plain lines."""
    outer, inner = pty.openpty()
    code = (
        "from hpcburst_recipes.demo.screen import Screen\n"
        "with Screen().step('fitting') as step: step.at(3, 4, 'note')\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        stdout=inner,
        check=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(inner)
    seen = os.read(outer, 65536).decode()
    os.close(outer)
    assert "3/4" in seen
    assert "━" in seen

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "━" not in done.stdout
    assert "fitting: 3 of 4" in done.stdout
