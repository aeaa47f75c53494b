"""`hpcburst plan`: what would be submitted for some tasks, and why. Nothing is started."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_words import count_text, print_columns, print_json, strong

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from hpcburst.jobs.dialect import Gap
    from hpcburst.policy.model import Site
    from hpcburst.pools.dry_run import DryRun, Tasks

FIELDS = ("cores", "memory", "gpus", "walltime", "queue")
"""What can be said of a task here: what decides about its job."""


def register(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "plan",
        help="say what would be submitted for some tasks and why, job scripts included",
        description="Nothing is submitted. The batch system may be asked for its gaps.",
        epilog="examples: hpcburst plan 66 --needs cores=2,memory=4GB,walltime=5m; "
        "hpcburst plan 60:cores=2 1:gpus=1,walltime=1h",
    )
    parser.add_argument(
        "tasks",
        nargs="+",
        metavar="N[:NEEDS]",
        help="so many equal tasks, with needs of their own or those of --needs",
    )
    parser.add_argument(
        "--needs",
        default="",
        metavar="NEEDS",
        help=f"of each, by commas: {', '.join(FIELDS)}",
    )
    parser.add_argument("--takes", metavar="TIME", help="what each takes, if you know it: 20s")
    parser.add_argument("--max-jobs", type=int, help="jobs at once")
    parser.add_argument("--prefer", help="soonest or cheapest")
    parser.add_argument("--budget", type=float, metavar="CORE-HOURS", help="what the run may spend")
    parser.add_argument("--dry-run", action="store_true", help="what it does in any case")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the plan; 1 if nothing would be submitted.

    Raises:
        RequestError: A number or a need cannot be read, or no queue holds such a task.
        SiteError: The config is wrong.
    """
    from hpcburst.policy.load import load_site
    from hpcburst.policy.wishes import Wishes, granted
    from hpcburst.pools.dry_run import dry_run
    from hpcburst.pools.history import History
    from hpcburst.pools.situation import Learned

    tasks = [_tasks(text, args.needs, args.takes) for text in args.tasks]
    site = granted(Wishes(args.max_jobs, args.prefer, args.budget), load_site())
    gaps, trouble = _gaps(site)
    history = History.of(site.paths.shared_root)
    found = dry_run(tasks, site, gaps, Learned(start_delay_s=history.start_delay_s()))
    if args.json:
        print_json(
            {"scheduler": site.scheduler, "gaps": len(gaps), "trouble": trouble, **_document(found)}
        )
    else:
        _say(found, site, _gap_words(gaps, trouble))
    return int(not found.submissions)


def _tasks(text: str, usual: str, takes: str | None) -> Tasks:
    from hpcburst.amounts import read_walltime_s
    from hpcburst.errors import RequestError
    from hpcburst.pools.dry_run import Tasks
    from hpcburst.tasks import read_needs

    count, _, own = text.partition(":")
    if not (count.isascii() and count.isdigit() and int(count)):
        raise RequestError(
            f"{text!r} was to be planned",
            "it does not begin with a number of tasks",
            "write for instance 66, or 66:cores=2,memory=4GB",
        )
    needs = read_needs(_fields(own or usual))
    return Tasks(int(count), needs, read_walltime_s(takes) if takes else None)


def _fields(text: str) -> dict[str, Any]:
    from hpcburst.errors import RequestError

    fields: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if name not in FIELDS or not equals:
            raise RequestError(
                f"The needs {text!r} were stated",
                f"{part!r} is none of {', '.join(f'{field}=...' for field in FIELDS)}",
                "write for instance cores=2,memory=4GB,walltime=5m",
            )
        whole = name in ("cores", "gpus") and value.isascii() and value.isdigit()
        fields[name] = int(value) if whole else value
    return fields


def _gaps(site: Site) -> tuple[Sequence[Gap], str]:
    """What the batch system tells of its gaps; without an answer a run plans without them."""
    import asyncio

    from hpcburst.errors import SiteError
    from hpcburst.jobs import probe
    from hpcburst.jobs.known import dialect_for

    dialect = dialect_for(site.scheduler, site.dialect, site.paths.shared_root)
    try:
        return asyncio.run(probe.gaps(dialect, [queue.name for queue in site.queues])), ""
    except SiteError as error:
        return (), str(error)


def _gap_words(gaps: Sequence[Gap], trouble: str) -> str:
    if trouble:
        return f"the batch system does not tell its gaps: {trouble}"
    return f"the batch system tells of {count_text(len(gaps), 'gap')}" if gaps else ""


def _document(found: DryRun) -> dict[str, Any]:
    return {
        "tasks": [asdict(row) for row in found.tasks],
        "submit": [asdict(row) for row in found.submissions],
        "why": [{"shape": asdict(shape), "why": words} for shape, words in found.why.items()],
    }


def _say(found: DryRun, site: Site, gap_words: str) -> None:
    for row in found.tasks:
        print(f"{count_text(row.waiting, 'task')} of {row.what}: {row.why}")
    if gap_words:
        print(gap_words)
    print()
    if not found.submissions:
        print("nothing would be submitted:")
        print_columns([("", shape, words) for shape, words in found.why.items()])
        return
    rows = [(row.jobs, row.shape, row.queue, f"{row.core_hours:.3g}") for row in found.submissions]
    head = ("JOBS", "EACH", "QUEUE", "CORE-HOURS AT MOST")
    print_columns(rows, head=head, right=(0,))
    for jobs in found.submissions:
        title = f"job script for {jobs.shape} ({site.scheduler}; RUN and PORT are a run's own)"
        print(f"\n{strong(title)}\n{jobs.script.rstrip()}")
