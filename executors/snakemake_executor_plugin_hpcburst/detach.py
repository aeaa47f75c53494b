"""`hpcburst snakemake -- ...`: the main process itself as a batch job, and the login node free."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcburst.pools.detached import Departure, Detached
    from hpcburst.tasks import Needs

CHOOSES_EXECUTOR = ("--executor", "-e", "--profile", "--workflow-profile")
"""Options after which Snakemake knows where jobs run; without any of them they run by hpcburst."""

MEMORY_MB = 2000
"""A main process with a large workflow; pilots have their own."""


def register(verbs: Any) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "snakemake",
        help="run snakemake itself as a batch job, so that the login node is free",
        usage="hpcburst snakemake [options] -- SNAKEMAKE ARGUMENTS\n"
        "       hpcburst snakemake --list | --cancel JOB",
        description="Submit snakemake as a batch job of its own, in this folder and with this "
        "environment. Its jobs run by the hpcburst executor unless the arguments name another one "
        "or a profile.",
    )
    verb.add_argument("--walltime", help="how long it may last (default: a day, or the queue's)")
    verb.add_argument("--memory", help=f"its memory (default: {MEMORY_MB}MB)")
    verb.add_argument("--cores", type=int, default=1, help="for its localrules (default: 1)")
    verb.add_argument("--queue", help="queue (partition); default: one that gives the walltime")
    verb.add_argument("--account", help="account to charge (default: yours)")
    verb.add_argument("--qos", help="quality of service (default: the site's)")
    verb.add_argument("--dry-run", action="store_true", help="print the job script, submit nothing")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.add_argument("--list", action="store_true", help="list what was submitted from here")
    verb.add_argument("--cancel", metavar="JOB", help="end one of them, with all its batch jobs")
    verb.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Submit, list or cancel; returns the exit status.

    Raises:
        BurstError: It cannot be had here.
    """
    if args.list:
        return _list(as_json=args.json)
    if args.cancel:
        return _cancel(args.cancel)
    departure = _departure(args)
    if args.dry_run:
        print(departure.script, end="")  # noqa: T201 - a command prints
        _say(f"# would run: {shlex.join(departure.argv)}")
        return 0
    _tell(departure.submit(), as_json=args.json)
    return 0


def snakemake_argv(arguments: Sequence[str]) -> list[str]:
    """The command line of the main process.

    >>> snakemake_argv(["--", "--jobs", "9"])[-4:]
    ['--executor', 'hpcburst', '--jobs', '9']
    """
    words = list(arguments[1:] if list(arguments[:1]) == ["--"] else arguments)
    names = {word.partition("=")[0] for word in words}
    chosen = names & set(CHOOSES_EXECUTOR) or "SNAKEMAKE_PROFILE" in os.environ
    executor = [] if chosen else ["--executor", "hpcburst"]
    return [sys.executable, "-m", "snakemake", *executor, *words]


def _departure(args: argparse.Namespace) -> Departure:
    from hpcburst.policy.load import load_site
    from hpcburst.pools.detached import depart
    from snakemake_executor_plugin_hpcburst.commands import job_environment

    kept = {name: os.environ[name] for name in ("SNAKEMAKE_PROFILE",) if name in os.environ}
    return depart(
        snakemake_argv(args.arguments),
        cwd=str(Path.cwd()),
        environ=job_environment(os.environ, kept),
        needs=_needs(args),
        site=load_site(),
    )


def _needs(args: argparse.Namespace) -> Needs:
    from hpcburst.amounts import read_memory_mb, read_walltime_s
    from hpcburst.placement import Placement
    from hpcburst.tasks import Needs

    return Needs(
        cores=args.cores,
        memory_mb=read_memory_mb(args.memory) if args.memory else MEMORY_MB,
        walltime_s=read_walltime_s(args.walltime) if args.walltime else None,
        queue=args.queue,
        placement=Placement(account=args.account, qos=args.qos),
    )


def _tell(driver: Detached, *, as_json: bool) -> None:
    if as_json:
        _print_json(_row(driver))
        return
    _say(f"snakemake is job {driver.job_id} of {driver.scheduler}, in {driver.cwd}")
    _say(f"  look:   tail -f {shlex.quote(driver.log)}")
    _say("          hpcburst snakemake --list")
    _say(f"  cancel: hpcburst snakemake --cancel {driver.job_id}")


def _list(*, as_json: bool) -> int:
    from hpcburst.policy.load import load_site
    from hpcburst.pools.detached import known, look

    site = load_site()
    drivers = known(site)
    news = look(site, drivers)
    rows = [_row(driver) | {"state": news[driver.job_id].state.value} for driver in drivers]
    if as_json:
        _print_json(rows)
        return 0
    for row in rows:
        _say(f"{row['job_id']:>10}  {row['state']:<8}  {row['cwd']}  {shlex.join(row['argv'][3:])}")
        _say(f"{'':>10}  {row['log']}")
    if not rows:
        _say("nothing was submitted from here, or its record is gone")
    return 0


def _cancel(job_id: str) -> int:
    from hpcburst.policy.load import load_site
    from hpcburst.pools.detached import cancel

    driver = cancel(load_site(), job_id)
    _say(f"job {driver.job_id} ends; its log stays: {driver.log}")
    return 0


def _row(driver: Detached) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(driver)


def _print_json(document: object) -> None:
    import json

    _say(json.dumps(document, indent=1))


def _say(text: str) -> None:
    print(text)  # noqa: T201 - a command prints
