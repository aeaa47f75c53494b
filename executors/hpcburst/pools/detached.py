"""Drivers that run as batch jobs themselves, so that the login node is free: submit, look, cancel.

Each has a private folder under the shared root, with its log and a record of it. It stays as long
as records of runs do.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hpcburst.comms.staging import private_folder, write_private
from hpcburst.errors import RequestError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import NO_NEWS, Dialect, JobNews
from hpcburst.jobs.known import dialect_for
from hpcburst.policy.decide import grant
from hpcburst.policy.model import Site
from hpcburst.policy.present import LOCAL
from hpcburst.pools.scripts import OF_ANOTHER_JOB, program_script
from hpcburst.tasks import START_S, Needs, Shape
from hpcburst.workers.detached import TASK

RECORD = "job.json"

USUAL_S = 86400.0
"""Walltime of a driver that asks for none, where a queue gives as much."""

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Detached:
    """A driver in a batch job.

    Attributes:
        job_id: Id of the job.
        scheduler: The batch system it was given to.
        log: File with its output.
        argv: What it runs.
        cwd: Where.
        submitted_at: When it was submitted, in seconds since the epoch.
        folder: Its private folder.
    """

    job_id: str
    scheduler: str
    log: str
    argv: tuple[str, ...]
    cwd: str
    submitted_at: float
    folder: str


@dataclass(frozen=True, slots=True)
class Departure:
    """A driver ready to be submitted; nothing is written yet.

    Attributes:
        argv: Program and arguments.
        cwd: Folder it runs in.
        environ: Environment it gets on top of the batch job's own.
        shape: What its job asks for.
        site: The machine.
        folder: Its private folder.
    """

    argv: tuple[str, ...]
    cwd: str
    environ: Mapping[str, str]
    shape: Shape
    site: Site
    folder: Path

    @property
    def script(self) -> str:
        """The job's script.

        Raises:
            RequestError: The batch system has no words for what the shape asks for.
            SiteError: The shared root's path cannot be written into a job script.
        """
        folder = str(self.folder)
        return program_script(
            _dialect(self.site, self.folder),
            self.shape,
            folder,
            "hpcburst.workers.detached",
            folder,
        )

    def submit(self) -> Detached:
        """Submit it.

        Raises:
            SubmitError: The batch system refused it.
            SiteError: The command did not answer, or the folder is not private.
        """
        script = self.script
        private_folder(self.folder.parent)
        private_folder(self.folder)
        if self.site.scheduler == LOCAL:
            private_folder(self.folder / "spool")
        task = {"argv": self.argv, "cwd": self.cwd, "environ": dict(self.environ)}
        write_private(self.folder / TASK, json.dumps(task).encode())
        path = self.folder / "job.sh"
        write_private(path, script.encode())
        dialect = _dialect(self.site, self.folder)
        try:
            job_id = asyncio.run(probe.submit(dialect, str(path), script, OF_ANOTHER_JOB))
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        log = dialect.log_of(str(self.folder), job_id)
        told = Detached(
            job_id=job_id,
            scheduler=self.site.scheduler,
            log=log,
            argv=self.argv,
            cwd=self.cwd,
            submitted_at=time.time(),
            folder=str(self.folder),
        )
        write_private(self.folder / RECORD, json.dumps(asdict(told)).encode())
        return told


def depart(
    argv: Sequence[str], *, cwd: str, environ: Mapping[str, str], needs: Needs, site: Site
) -> Departure:
    """A driver for a batch job of its own.

    Args:
        argv: Program and arguments.
        cwd: Folder it runs in.
        environ: Environment it gets on top of the batch job's own.
        needs: What it asks for; without a walltime, a day or as much as a queue gives.
        site: The machine.

    Raises:
        RequestError: No queue has room for it.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder = site.paths.shared_root.resolve() / "detached" / name
    return Departure(tuple(argv), cwd, environ, _shape(needs, site), site, folder)


def known(site: Site) -> list[Detached]:
    """The drivers there is a record of, the oldest first; old records are swept on the way."""
    found = []
    for folder in sorted((site.paths.shared_root.resolve() / "detached").glob("*-*-*")):
        try:
            fields = json.loads((folder / RECORD).read_bytes())
        except (OSError, ValueError):  # just being submitted
            continue
        if _last_word(folder) < time.time() - max(site.keep_runs_days, 1.0) * _DAY_S:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            found.append(Detached(**{**fields, "argv": tuple(fields["argv"])}))
    return found


def look(site: Site, drivers: Sequence[Detached]) -> dict[str, JobNews]:
    """News of these drivers by the id of their job, by one command (on the local queue one each).

    Raises:
        SiteError: The batch system did not answer.
    """
    ours = [driver for driver in drivers if driver.scheduler == site.scheduler]
    news = {driver.job_id: NO_NEWS for driver in drivers}
    together: dict[str, list[Detached]] = {}
    for driver in ours:
        together.setdefault(driver.folder if site.scheduler == LOCAL else "", []).append(driver)
    for group in together.values():
        dialect = _dialect(site, Path(group[0].folder))
        news |= asyncio.run(probe.news(dialect, [driver.job_id for driver in group]))
    return news


def cancel(site: Site, job_id: str) -> Detached:
    """End a driver, and with it all its batch jobs.

    Raises:
        RequestError: There is no record of such a driver.
        SiteError: The batch system did not answer.
    """
    drivers = [driver for driver in known(site) if driver.job_id == job_id]
    if not drivers or drivers[-1].scheduler != site.scheduler:
        known_ids = ", ".join(driver.job_id for driver in known(site)) or "none"
        raise RequestError(
            f"Job {job_id} was to be cancelled",
            "it is none of the drivers submitted from here",
            f"these are: {known_ids}",
        )
    asyncio.run(probe.cancel(_dialect(site, Path(drivers[-1].folder)), [job_id]))
    return drivers[-1]


def _shape(needs: Needs, site: Site) -> Shape:
    queues = [queue for queue in site.queues if needs.queue in (None, queue.name)]
    most_s = max((queue.max_walltime_s for queue in queues), default=USUAL_S)
    walltime_s = needs.walltime_s or min(USUAL_S, most_s) - START_S
    granted = grant(replace(needs, walltime_s=walltime_s), site)
    return Shape(
        cores=needs.cores,
        memory_mb=needs.memory_mb or granted.memory_mb,
        walltime_s=walltime_s + START_S,
        queue=granted.queue,
        placement=needs.placement,
    )


def _dialect(site: Site, folder: Path) -> Dialect:
    return dialect_for(site.scheduler, site.dialect, folder / "spool")


def _last_word(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.iterdir()), default=time.time())
