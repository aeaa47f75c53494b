"""`hpcburst jobs clean`: what dead drivers of mine left is ended and removed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hpcburst.cli.env_words import print_json
from hpcburst.cli.jobs_found import FoundRun, Standing, find_runs, pick

if TYPE_CHECKING:
    import argparse

    from hpcburst.jobs.dialect import Dialect
    from hpcburst.policy.model import Site


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was done about one run.

    Attributes:
        run: Its name.
        jobs: Ids of its jobs that were ended.
        secrets: Whether credentials of it were there.
        folder: Whether its folder went, with its record and logs.
        failed: Why its jobs could not be ended; then everything of it stays. "" when they could.
    """

    run: str
    jobs: tuple[str, ...] = ()
    secrets: bool = False
    folder: bool = False
    failed: str = ""


def clean(args: argparse.Namespace) -> int:
    """End the jobs of runs whose driver died, remove their credentials; 1 if one could not be.

    Raises:
        RequestError: A name is that of no run or of several, or its driver is alive.
        SiteError: The config is wrong.
    """
    from hpcburst.policy.load import load_site

    site = load_site()
    runs = _chosen(find_runs(site.paths.shared_root), args.names)
    rows = [_clean(run, site, folders=args.folders, dry_run=args.dry_run) for run in runs]
    if args.json:
        print_json({"dry_run": args.dry_run, "runs": [asdict(row) for row in rows]})
    else:
        for row in rows:
            print(_words(row, dry_run=args.dry_run))
        if not rows:
            print("nothing was left: no run of yours has lost its driver")
    return int(any(row.failed for row in rows))


def _chosen(runs: Sequence[FoundRun], names: Sequence[str]) -> list[FoundRun]:
    from hpcburst.errors import RequestError

    if not names:
        return [run for run in runs if run.standing is Standing.LOST]
    chosen = {run.name: run for run in (pick(runs, name) for name in names)}
    for run in chosen.values():
        if run.standing is Standing.LIVE:
            raise RequestError(
                f"The run {run.name} was to be cleaned",
                f"its driver is alive (process {run.driver.pid} on {run.driver.host})",
                "end that process; it ends its jobs itself",
            )
    return list(chosen.values())


def _clean(run: FoundRun, site: Site, *, folders: bool, dry_run: bool) -> Cleaned:
    from hpcburst.comms.staging import RunFolder
    from hpcburst.errors import BurstError
    from hpcburst.pools.telling import forget_state

    place = RunFolder(run.folder)
    secrets = place.secret.exists()
    try:
        jobs = asyncio.run(_end_jobs(run, site, dry_run=dry_run))
    except BurstError as error:
        return Cleaned(run.name, failed=str(error))
    if not dry_run:
        place.close()
        forget_state(run.folder)
        if folders:
            shutil.rmtree(run.folder, ignore_errors=True)
    return Cleaned(run.name, jobs, secrets, folders)


async def _end_jobs(run: FoundRun, site: Site, *, dry_run: bool) -> tuple[str, ...]:
    """End the jobs that the batch system still knows as ours, by two commands for all."""
    from hpcburst.jobs import probe
    from hpcburst.jobs.dialect import JobState

    dialect = _dialect(run, site)
    told = [job.job_id for job in run.state.jobs if job.job_id] if run.state else []
    if dialect is None or not told:
        return ()
    news = await probe.news(dialect, told)
    left = [job for job in told if news[job].state in (JobState.PENDING, JobState.RUNNING)]
    if left and not dry_run:
        await probe.cancel(dialect, left)
    return tuple(left)


def _dialect(run: FoundRun, site: Site) -> Dialect | None:
    """How the batch system of that run is spoken to; None if nothing of it can be left."""
    from hpcburst.comms.staging import RunFolder
    from hpcburst.jobs.known import dialect_for
    from hpcburst.policy.present import LOCAL

    if run.state is None:
        return None
    spool = RunFolder(run.folder).secret / "spool"
    if run.state.scheduler == LOCAL and not spool.is_dir():
        return None
    stated = site.dialect if site.scheduler == run.state.scheduler else {}
    return dialect_for(run.state.scheduler, stated, spool)


def _words(row: Cleaned, *, dry_run: bool) -> str:
    from hpcburst.pools.saying import counted

    if row.failed:
        return f"{row.run} stays as it is: {row.failed}"
    named = f" ({', '.join(row.jobs)})" if row.jobs else ""
    parts = [f"{counted(len(row.jobs), 'job')} ended{named}"]
    parts += ["credentials removed"] if row.secrets else []
    parts += ["folder removed"] if row.folder else []
    return f"{row.run}: {'would be: ' if dry_run else ''}{', '.join(parts)}"
