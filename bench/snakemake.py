"""Snakemake's rules on a private Slurm, side by side: ours, the Slurm plug-in, the local executor.

    python bench/snakemake.py [--quick] [--only WORD]

The Slurm is real, with four nodes of four cores, all of them on this machine. It is started for the
bench and ended with it; it needs Slurm's packages (installed by itself as root on Debian).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import peers
from figures import CACHE, Figure, compare, say, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SLURM_PLUGIN = "snakemake-executor-plugin-slurm==2.8.0"

SNAKEFILE = """
rule all:
    input: expand("out/{{i}}.txt", i=range({count}))
rule one:
    output: "out/{{i}}.txt"
    resources: mem_mb=200, runtime=5
    shell: "touch {{output}}"
"""

LOG = "log.txt"

SLOTS = 16
"""Four nodes of four cores: as many jobs run at once for everybody."""

LEAN = ("--scheduler", "greedy", "--max-jobs-per-timespan", "100000/1s", "--nocolor")
"""For all alike: without a limit of 100 submissions a second, and with the quick scheduler."""


@dataclass(frozen=True)
class Took:
    """One run of a workflow: its time, and the CPU time of its main process and what that ran."""

    wall_s: float
    cpu_s: float


@dataclass
class Bench:
    """What all figures need; runs that several of them use are made once.

    Attributes:
        work: A folder for workflows.
        environ: The environment of a user of the cluster.
        quick: Fewer rules, and no Slurm plug-in, which takes a minute for anything.
        runs: Runs of ours behind each median.
    """

    work: Path
    environ: dict[str, str]
    quick: bool
    runs: int
    kept: dict[tuple[object, ...], list[Took]] = field(default_factory=dict)

    def ours(self, count: int, mode: str = "auto", runs: int | None = None) -> list[Took]:
        """So many rules by our executor."""
        options = ["--executor", "hpcburst", "--jobs", "1000", "--hpcburst-max-jobs", "4"]
        options += ["--hpcburst-mode", mode]
        return self._runs(sys.executable, count, options, runs or self.runs)

    def local(self, count: int) -> list[Took]:
        """So many rules by Snakemake's local executor, as many at once as the cluster has cores."""
        return self._runs(sys.executable, count, ["--cores", str(SLOTS)], self.runs)

    def plugin(self, count: int) -> list[Took]:
        """So many rules by the Slurm plug-in with its defaults; none in a quick bench."""
        if self.quick:
            return []
        packages = [f"snakemake=={version('snakemake')}", SLURM_PLUGIN]
        python = peers.venv_with("snakemake-slurm", packages, build=True)
        options = ["--executor", "slurm", "--jobs", "1000"]
        options += ["--slurm-status-command", "squeue"]  # there is no accounting database
        return self._runs(str(python), count, options, 1)

    def programs(self) -> str:
        """A folder with a `srun` that knows the cluster.

        The plug-in's job steps drop every SLURM_ variable, SLURM_CONF too, and a private cluster
        has no other way to be found.
        """
        folder = self.work / "programs"
        if not folder.exists():
            folder.mkdir()
            conf, srun = self.environ["SLURM_CONF"], shutil.which("srun")
            (folder / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {srun} "$@"\n')
            (folder / "srun").chmod(0o755)
        return str(folder)

    def _runs(self, python: str, count: int, options: Sequence[str], runs: int) -> list[Took]:
        key = (python, count, *options)
        while len(self.kept.setdefault(key, [])) < runs:
            self.kept[key].append(self._run(python, count, options))
        return self.kept[key][:runs]

    def _run(self, python: str, count: int, options: Sequence[str]) -> Took:
        say(f"  {count} rules: {' '.join(options)}")
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            (Path(folder) / "Snakefile").write_text(SNAKEFILE.format(count=count))
            begun = time.monotonic()
            status, cpu_s = self._main([python, "-m", "snakemake", *options, *LEAN], folder)
            wall_s = time.monotonic() - begun
            made = len(list(Path(folder).glob("out/*.txt")))
            if status or made != count:
                tail = (Path(folder) / LOG).read_text(errors="replace")[-3000:]
                raise SystemExit(f"status {status}, {made} of {count} files:\n{tail}")
        return Took(wall_s, cpu_s)

    def _main(self, argv: Sequence[str], folder: str) -> tuple[int, float]:
        """Run a main process; its status, and the CPU seconds of it and of what it ran."""
        # The venv's programs first: the plug-in's jobs find their Snakemake there.
        places = [str(Path(argv[0]).parent), self.programs(), self.environ["PATH"]]
        environ = {**self.environ, "PATH": os.pathsep.join(places)}
        with (Path(folder) / LOG).open("w") as output:
            out: dict[str, Any] = {"stdout": output, "stderr": output}
            process = subprocess.Popen(
                argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, **out
            )
            try:
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, used.ru_utime + used.ru_stime


def walls(runs: Sequence[Took], scale: float = 1.0) -> list[float]:
    """The times of some runs, as if there had been so many times as many rules."""
    return [run.wall_s * scale for run in runs]


def median_s(runs: Sequence[Took]) -> float:
    """Median of their times."""
    return statistics.median(walls(runs))


# --- the figures ---------------------------------------------------------------------------------


def few_rules(bench: Bench) -> Iterator[Figure]:
    """20 trivial rules against the Slurm plug-in."""
    runs = walls(bench.ours(20)), walls(bench.plugin(20))
    yield compare(
        "20 rules on Slurm", runs, peer_name=SLURM_PLUGIN, unit="s", ratio=goal(bench, 15)
    )


def many_rules(bench: Bench) -> Iterator[Figure]:
    """200 trivial rules against the Slurm plug-in, which is measured on 40."""
    count = 40 if bench.quick else 200
    runs = walls(bench.ours(count)), walls(bench.plugin(40), count / 40)
    name = f"{SLURM_PLUGIN}, 40 rules, time scaled"
    yield compare(f"{count} rules on Slurm", runs, peer_name=name, unit="s", ratio=goal(bench, 40))


def direct_rules(bench: Bench) -> Iterator[Figure]:
    """1,000 rules in mode direct against the local executor, the start of a pilot taken off."""
    count = 200 if bench.quick else 1000
    start_s = median_s(bench.ours(1, "direct")) - median_s(bench.local(1))
    ours = [took.wall_s - start_s for took in bench.ours(count, "direct")]
    runs = ours, walls(bench.local(count))
    name = f"{count} direct rules, beyond pilot start ({start_s:.1f} s)"
    peer = f"Snakemake's local executor, {SLOTS} cores"
    yield compare(name, runs, peer_name=peer, unit="s", ratio=goal(bench, 1 / 1.5))


def zygote_rules(bench: Bench) -> Iterator[Figure]:
    """1,000 rules in mode zygote against mode spawn, which is measured on fewer."""
    count, sample = (60, 10) if bench.quick else (1000, 100)
    start_s = median_s(bench.ours(1, "spawn", 1))
    spawn = [
        start_s + (took.wall_s - start_s) * count / sample
        for took in bench.ours(sample, "spawn", 1)
    ]
    peer = f"mode spawn, {sample} rules, time beyond the first scaled"
    runs = walls(bench.ours(count, "zygote", 1 if bench.quick else 2)), spawn
    name = f"{count} zygote rules"
    yield compare(name, runs, peer_name=peer, unit="s", ratio=goal(bench, 8))


def cpu_of_main(bench: Bench) -> Iterator[Figure]:
    """CPU of the main process and of what it runs, for each rule after the first."""
    count = 200 if bench.quick else 1000
    first = statistics.median(took.cpu_s for took in bench.ours(1, "direct"))
    ours = [(took.cpu_s - first) / (count - 1) * 1e3 for took in bench.ours(count, "direct")]
    few, more = bench.plugin(20), bench.plugin(40)
    theirs = [(b.cpu_s - a.cpu_s) / 20 * 1e3 for a, b in zip(few, more, strict=True)]
    name = "main process, CPU of one rule"
    yield compare(name, (ours, theirs), peer_name=SLURM_PLUGIN, unit="ms", most=5.0)


FIGURES = (direct_rules, cpu_of_main, few_rules, many_rules, zygote_rules)


def goal(bench: Bench, ratio: float) -> float | None:
    """A goal is for whole runs; a quick one is for looking."""
    return None if bench.quick else ratio


@contextmanager
def prepared(*, quick: bool) -> Iterator[Bench]:
    """A Slurm, and a folder to work in."""
    from support.clusters.cluster import Size
    from support.clusters.held import held
    from support.clusters.slurm import Slurm

    say("Starting a private Slurm")
    with (
        tempfile.TemporaryDirectory(prefix="work-", dir=CACHE) as folder,
        held(Slurm, Path(folder) / "slurm", Size(nodes=4, cores=4)) as cluster,
    ):
        work = Path(folder)
        ours = {
            "DASK_HPCBURST__SCHEDULER": "slurm",
            "DASK_HPCBURST__HOST": "127.0.0.1",
            "DASK_HPCBURST__SHARED_ROOT": str(work / "shared"),
            "XDG_CACHE_HOME": str(work / "cache"),
            "HOME": str(work),
        }
        yield Bench(work, {**cluster.environ, **ours}, quick=quick, runs=1 if quick else 3)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rules, no Slurm plug-in")
    parser.add_argument("--only", default="", help="figures whose function has this in its name")
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
    with prepared(quick=args.quick) as bench:
        for figures in FIGURES:
            if args.only in figures.__name__:
                say(f"Measuring: {(figures.__doc__ or '').splitlines()[0]}")
                for figure in figures(bench):
                    show(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
