"""The demo's two runs: the same tasks as a Prefect flow, then as a Snakemake workflow."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcburst.errors import RunError
from hpcburst_recipes.demo.screen import Step

DONE = re.compile(r"(\d+) of (\d+) steps")

LOOK_EVERY_S = 0.2

TASKS_BESIDE_FITS = 1


@dataclass(frozen=True, slots=True)
class Run:
    """What one run left behind.

    Attributes:
        engine: "Prefect" or "Snakemake".
        summary: The result: medians and intervals.
        plot: Path of the picture.
        report: Path of the run's report.
        figures: What the run took (see `hpcburst.pools.record.RunRecord.summary`).
        wall_s: Seconds from start to end.
    """

    engine: str
    summary: Mapping[str, Any]
    plot: Path
    report: Path
    figures: Mapping[str, Any]
    wall_s: float


def run_prefect(folder: Path, blocks: int, step: Step) -> Run:
    """Run the folder's flow in this process, on pilots of its own."""
    begun = time.monotonic()
    out = _fresh(folder / "results-prefect")
    _prefect_settings(folder)
    from hpcburst import BurstCluster
    from prefect_hpcburst import BurstTaskRunner

    flow = _load(folder / "flow.py").co2_burst
    with BurstCluster() as cluster:
        total = blocks + TASKS_BESIDE_FITS
        with _Watch(lambda: step.at(len(cluster.record.tasks), total, _pilots(cluster))):
            runner = BurstTaskRunner(cluster=cluster)
            flow.with_options(task_runner=runner)(
                record=str(folder / "data" / "mauna_loa_co2.csv"), out=str(out), n_blocks=blocks
            )
    wall_s = time.monotonic() - begun
    return _run("Prefect", out, cluster.run_folder, wall_s)


def run_snakemake(folder: Path, blocks: int, step: Step, shared_root: Path) -> Run:
    """Run the folder's workflow with an unmodified `snakemake`.

    Raises:
        RunError: It failed; its output is in the error and in `snakemake.log`.
    """
    begun = time.monotonic()
    out = _fresh(folder / "results-snakemake")
    before = set((shared_root / "runs").glob("*"))
    log = folder / "snakemake.log"
    argv = [sys.executable, "-m", "snakemake", "--executor", "hpcburst", "--jobs", "100"]
    argv += ["--sdm", "conda", "--directory", str(folder), "--snakefile", str(folder / "Snakefile")]
    argv += ["--nocolor", "--config", f"blocks={blocks}", f"out={out.name}"]
    with log.open("w") as written:
        status = _follow(argv, written, step.at)
    if status:
        raise RunError(
            "The Snakemake half of the demo was run",
            f"snakemake ended with status {status}",
            log=str(log),
            tail=log.read_text(),
        )
    runs = sorted(set((shared_root / "runs").glob("*")) - before)
    return _run("Snakemake", out, runs[-1], time.monotonic() - begun)


def _follow(argv: list[str], written: Any, tell: Callable[[int, int], None]) -> int:
    """Run a program to its end, its output written down and its progress told."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        if process.stdout is not None:
            for line in process.stdout:
                written.write(line)
                if found := DONE.search(line):
                    tell(int(found[1]), int(found[2]))
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)  # it cancels its tasks and ends its pilots
        process.wait(timeout=30)
        raise


def _run(engine: str, out: Path, run_folder: Path, wall_s: float) -> Run:
    return Run(
        engine=engine,
        summary=json.loads((out / "summary.json").read_text()),
        plot=out / "co2.png",
        report=run_folder / "report.txt",
        figures=json.loads((run_folder / "report.json").read_text())["summary"],
        wall_s=wall_s,
    )


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _load(path: Path) -> Any:
    """The flow of the folder, where its user may have changed it."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("co2_flow", path)
    if spec is None or spec.loader is None:
        raise RunError(f"The flow {path} was to be run", "Python cannot load it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _prefect_settings(folder: Path) -> None:
    """A temporary server of the demo's own, closed to other users of this machine."""
    password = f"demo:{secrets.token_urlsafe(16)}"
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(
        {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_API_AUTH_STRING": password,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # slow disks, busy machines
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
    )


def _pilots(cluster: Any) -> str:
    return f"{len(cluster.observed)} pilots"


class _Watch:
    """Calls a function now and then, beside what runs in the block."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hpcburst-demo", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(LOOK_EVERY_S):
            self._look()
