"""`hpcburst demo`: the whole way on one machine, with nothing installed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcburst.errors import EnvError, SiteError
from hpcburst_recipes.demo.screen import Screen

CONDA_FORGE = "conda-forge"
PREFERRED_MINORS = ("3.12", "3.13", "3.11", "3.10", "3.14")
"""The fitting env gets the first of these that can be had, the drawing env the next."""

FITS = 64

NEEDED = ("prefect", "snakemake")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the demo's envs come from.

    Attributes:
        channel: Name or URL of the channel.
        stats_python: Python minor of the env that fits.
        plots_python: Python minor of the env that draws.
    """

    channel: str
    stats_python: str
    plots_python: str


def register(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "demo",
        help="run the demo: Mauna Loa CO2, as a Prefect flow and as a Snakemake workflow",
        description="Fit the Mauna Loa CO2 record with a burst of tasks in one env and draw it in "
        "another, as a Prefect flow and as a Snakemake workflow. Everything it makes lies in one "
        "folder.",
    )
    parser.add_argument(
        "--channel",
        default=None,
        help="conda channel for the envs (name or URL); default: conda-forge if it answers, else a "
        "small local channel made of this machine's Pythons and wheels from PyPI",
    )
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="default: .demo")
    parser.add_argument(
        "--fits", type=int, default=FITS, help=f"tasks to fit with (default {FITS})"
    )
    parser.add_argument("--only", choices=("prefect", "snakemake"), help="run one half")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; exit status 0 if both halves gave the same numbers."""
    _check_installed()
    screen = Screen()
    begun = time.monotonic()
    folder = args.folder.absolute()
    if args.dry_run:
        screen.say(f"would build envs, a channel if need be, and results in {folder}")
        return 0
    shared_root = folder / "shared"
    # One folder holds all: envs and records go there too, for this process and its children.
    os.environ["DASK_HPCBURST__SHARED_ROOT"] = str(shared_root)
    _tell_dask(shared_root)
    source = choose_source(args.channel, folder, screen)
    work = _lay_out(folder / "work", source)
    _build_envs(work, screen)
    runs = _run_pipelines(args, work, shared_root, screen)
    same = len({json.dumps(done.summary, sort_keys=True) for done in runs}) == 1
    _tell(runs, same, time.monotonic() - begun, screen)
    if args.json:
        print(json.dumps([_plain(done) for done in runs], indent=1))
    return 0 if same else 1


def _check_installed() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SiteError(
            "The demo was to be run",
            f"these packages are not installed: {', '.join(missing)}",
            "pip install 'hpcburst[demo]'",
        )


def choose_source(channel: str | None, folder: Path, screen: Screen) -> Source:
    """The channel to use and the two Python minors it has; builds a local one when none answers.

    Raises:
        EnvError: No channel answers and none can be built.
    """
    from hpcburst.envs.building.channels import channel_answers

    first, second = PREFERRED_MINORS[:2]
    if channel:
        if not channel_answers(channel):
            raise EnvError(
                f"The channel {channel} was asked for",
                "it does not answer",
                "check its name and the network, or leave --channel out for a local channel",
            )
        return Source(channel, first, second)
    if channel_answers(CONDA_FORGE):
        screen.say("conda-forge answers: the envs come from there")
        return Source(CONDA_FORGE, first, second)
    return _local_source(folder / "channel", screen)


def _local_source(folder: Path, screen: Screen) -> Source:
    from hpcburst_recipes.channel import build_channel, find_pythons

    found = {python.minor: python for python in find_pythons()}
    ranked = [minor for minor in PREFERRED_MINORS if minor in found]
    if not ranked:
        raise EnvError(
            "A local channel was to be made",
            "no Python of a minor that the demo knows was found on this machine",
            f"install one of {', '.join(PREFERRED_MINORS)}",
        )
    stats, plots = ranked[0], ranked[1] if len(ranked) > 1 else ranked[0]
    if stats == plots:
        screen.say(f"only Python {stats} is found on this machine: both envs have that one")
    wanted = {stats: ["numpy"], plots: ["numpy", "matplotlib"]}
    with screen.step("local conda channel") as step:
        built = build_channel(
            folder,
            pythons=[found[minor] for minor in dict.fromkeys((stats, plots))],
            requirements=wanted,
            progress=lambda what, done, total: step.at(done, total, what),
        )
    return Source(built.url, stats, plots)


def _lay_out(work: Path, source: Source) -> Path:
    from hpcburst_recipes.demo.workspace import lay_out

    return lay_out(
        work,
        channel=source.channel,
        stats_python=source.stats_python,
        plots_python=source.plots_python,
    )


def _build_envs(work: Path, screen: Screen) -> None:
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.load import load_site

    site = load_site()
    with screen.step("envs") as step:
        store = EnvStore.of_site(site, lambda what, done, total: step.at(done, total or 0, what))
        for name in ("stats.yaml", "plots.yaml"):
            store.ensure(work / name)


def _run_pipelines(
    args: argparse.Namespace, work: Path, shared_root: Path, screen: Screen
) -> list[Any]:
    from hpcburst_recipes.demo.pipelines import run_prefect, run_snakemake

    runs = []
    if args.only != "snakemake":
        with screen.step("Prefect flow") as step:
            runs.append(run_prefect(work, args.fits, step))
    if args.only != "prefect":
        with screen.step("Snakemake workflow") as step:
            runs.append(run_snakemake(work, args.fits, step, shared_root))
    return runs


def _tell(runs: list[Any], same: bool, wall_s: float, screen: Screen) -> None:
    screen.say()
    for done in runs:
        figures = done.figures
        screen.say(
            f"{done.engine}: {figures['tasks']} tasks on {figures['pilots']} pilots in "
            f"{done.wall_s:.1f} s; first result {figures['first_result_s']:.1f} s after the first "
            f"job was asked for; {figures['used_core_s']:.1f} task-seconds used, "
            f"{figures['held_core_s']:.1f} pilot-seconds held"
        )
        screen.say(f"  plot    {done.plot}")
        screen.say(f"  report  {done.report}")
    if len(runs) > 1:
        screen.say("same numbers from both" if same else "THE TWO RUNS DISAGREE")
    screen.say(f"all of it in {wall_s:.1f} s")


def _tell_dask(shared_root: Path) -> None:
    import dask.config

    dask.config.set({"hpcburst.shared-root": str(shared_root)})


def _plain(done: Any) -> dict[str, Any]:
    return {**asdict(done), "plot": str(done.plot), "report": str(done.report)}
