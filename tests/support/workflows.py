"""Workflows run as a user runs them: the `snakemake` command, in a folder and a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.processes import marked, wait_until

DEADLINE_S = 60.0

MARK = "HPCBURST_TEST_RUN"
"""An environment variable by which a test knows all processes of its run, wherever they went."""

PILOT_OF_RULE = (
    "p=$$; until grep -q 'workers[.]pilot' /proc/$p/cmdline;"
    " do p=$(sed 's/.*) . //; s/ .*//' /proc/$p/stat); done; "
)
"""Shell text of a rule that finds the pilot it runs on: `$p` is its pid."""


@dataclass
class Workflow:
    """A folder with a Snakefile, and the environment of who runs it."""

    folder: Path
    environ: dict[str, str]

    @classmethod
    def at(cls, place: Path, snakefile: str) -> Workflow:
        """A new workflow below a folder of the test's own."""
        folder, home = place / "workflow", place / "home"
        folder.mkdir(parents=True)
        home.mkdir()
        (folder / "Snakefile").write_text(snakefile)
        kept = {n: value for n, value in os.environ.items() if not n.startswith("SNAKEMAKE")}
        own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), MARK: str(place)}
        return cls(folder, {**kept, **own})

    def argv(self, *options: str, mode: str = "auto") -> list[str]:
        """The command; the mode "local" is Snakemake's own executor."""
        chosen = ["--cores", "2"]
        if mode != "local":
            chosen = ["--executor", "hpcburst", "--jobs", "10", "--hpcburst-max-jobs", "2"]
            chosen += ["--hpcburst-mode", mode]
        return [sys.executable, "-m", "snakemake", *chosen, "--latency-wait", "2", *options]

    def run(self, *options: str, mode: str = "auto") -> subprocess.CompletedProcess[str]:
        """Run it to its end; what it says is in `stdout`."""
        return subprocess.run(
            self.argv(*options, mode=mode),
            check=False,
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=DEADLINE_S * 4,
        )

    @contextmanager
    def running(self, *options: str, mode: str = "auto") -> Iterator[subprocess.Popen[str]]:
        """Start it, and see that it has ended."""
        with subprocess.Popen(
            self.argv(*options, mode=mode),
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        ) as main:
            try:
                yield main
            finally:
                main.kill()

    def read(self, name: str) -> str:
        """What is in a file of it."""
        return (self.folder / name).read_text()

    def wait_for(self, name: str) -> None:
        """Wait until a rule has made a file."""
        wait_until((self.folder / name).exists, f"the file {name}", within_s=DEADLINE_S)

    def logs(self) -> dict[str, str]:
        """The logs of the jobs that are left, by rule and name."""
        root = self.folder / ".snakemake" / "hpcburst_logs"
        return {f"{path.parent.name}/{path.stem}": path.read_text() for path in root.rglob("*.log")}

    def processes(self) -> dict[int, str]:
        """Live processes of its runs, pid to command line."""
        return marked(f"{MARK}={self.environ[MARK]}")

    def expect_nothing_left(self) -> None:
        """No process of its runs lives on."""
        wait_until(lambda: not self.processes(), "the end of its processes", within_s=DEADLINE_S)
