"""`hpcburst jobs`: what my runs are doing, why nothing runs, and what dead drivers left."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_words import print_columns, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from hpcburst.cli.jobs_found import FoundRun

HEAD = ("RUN", "DRIVER", "SINCE", "WAITING", "RUNNING", "DONE", "JOBS", "STANDING")


def register(verbs: Any) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser(
        "jobs",
        help="say what my runs are doing and why nothing runs; remove what dead drivers left",
        description="Runs tell what they are doing in their folders under the shared root.",
    )
    own = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (_list, _why, _clean):
        add(own)


def _list(own: Any) -> None:
    verb = own.add_parser("list", help="list my runs and their jobs")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.set_defaults(run=show_list)


def _why(own: Any) -> None:
    from hpcburst.cli.jobs_why import why

    verb = own.add_parser("why", help="say why nothing runs: of every shape, job and waiting task")
    verb.add_argument("name", nargs="?", metavar="RUN", help="a part of its name; default: all")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.set_defaults(run=why)


def _clean(own: Any) -> None:
    from hpcburst.cli.jobs_clean import clean

    verb = own.add_parser(
        "clean",
        help="end the jobs and remove the credentials of runs whose driver died",
        description="Runs whose driver lives are never touched.",
    )
    verb.add_argument(
        "names",
        nargs="*",
        metavar="RUN",
        help="parts of names; default: all whose driver is known to be dead. A run whose driver "
        "is on another machine and silent is cleaned only when it is named",
    )
    verb.add_argument("--folders", action="store_true", help="remove records and logs too")
    verb.add_argument("--dry-run", action="store_true", help="say what would be done")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.set_defaults(run=clean)


def show_list(args: argparse.Namespace) -> int:
    """Print my runs, a line each."""
    from hpcburst.cli.jobs_found import find_runs
    from hpcburst.policy.load import load_site

    runs = find_runs(load_site().paths.shared_root)
    if args.json:
        print_json([document(run) for run in runs])
    elif runs:
        print_columns([_cells(run) for run in runs], head=HEAD, right=(3, 4, 5))
    else:
        print("no run of yours goes on, and none left anything")
    return 0


def document(run: FoundRun) -> dict[str, Any]:
    """A run for programs."""
    return {
        "run": run.name,
        "folder": str(run.folder),
        "standing": run.standing.value,
        "driver": asdict(run.driver),
        "state": run.state and asdict(run.state),
    }


def _cells(run: FoundRun) -> Sequence[object]:
    from hpcburst.pools.saying import duration, stages_words

    driver = f"{run.driver.host}:{run.driver.pid}" if run.driver.host else "-"
    state = run.state
    if state is None:
        return (run.name, driver, "-", "-", "-", "-", "-", run.standing.value)
    since = duration(time.time() - state.started_at)
    jobs = stages_words(job.stage for job in state.jobs)
    counts = (state.waiting, state.running, state.done)
    return (run.name, driver, since, *counts, jobs, run.standing.value)
