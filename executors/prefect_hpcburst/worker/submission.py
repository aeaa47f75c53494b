"""The batch job of a flow run: what it asks for, what is in it, and how it gets into the queue."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hpcburst.comms.exports import SERVER_FILE
from hpcburst.comms.staging import write_private
from hpcburst.errors import RequestError, SiteError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect
from hpcburst.jobs.directives import JOB_NAME, with_section
from hpcburst.policy.model import Queue, Site
from hpcburst.tasks import Env, Shape
from prefect_hpcburst.worker.form import JobForm
from prefect_hpcburst.worker.tickets import taking, write_ticket

if TYPE_CHECKING:
    from hpcburst.envs.store import EnvStore

logger = logging.getLogger("prefect.workers.hpcburst")

LEAVE_S = 60.0
"""Seconds before the end of its walltime at which a flow that may be rescheduled is told to leave:
Prefect needs a few of them to say so, and a body on its way gets the rest."""

SHORTEST_S = 2 * LEAVE_S
"""A job that lasts no longer than this is left to the batch system's own signal."""

RETRY_S = (2.0, 5.0, 15.0, 60.0)
"""Pauses before a job is submitted again, the last one again and again while the batch system is
down."""

MAX_REFUSALS = 3
"""Refusals in a row by a batch system that answers otherwise: then it means what it says."""

DEFAULT_COMMAND = "prefect flow-run execute"

SHEBANG = "#!/bin/bash"
"""Users' own prologues (`jobqueue.<name>.job-script-prologue`) are written for bash."""

EPHEMERAL = ("PREFECT_SERVER_EPHEMERAL_ENABLED", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE")
"""Names, new and old, of the setting that lets Prefect start a server of its own."""

_NOT_HANDED_ON = re.compile(r"PREFECT_\w+|(SLURM|SLURMD|PMI|PMIX)_(?!CONF)\w+")
"""Variables of the worker that a job does not inherit. Batch systems keep the environment of a
submission: secrets come with the ticket. And the sizes of a job the worker runs in are its own."""


@dataclass(frozen=True, slots=True)
class FlowJob:
    """A job, ready to be submitted.

    Attributes:
        shape: What it asks for.
        script: Its script.
        ticket: The file with its variables.
    """

    shape: Shape
    script: str
    ticket: Path


@dataclass(frozen=True, slots=True)
class Submitter:
    """Makes and submits the jobs of flow runs.

    Attributes:
        site: What the site allows.
        dialect: How the batch system is spoken to.
    """

    site: Site
    dialect: Dialect

    def env_of(self, form: JobForm) -> Env | None:
        """The env of a flow, built if need be; None is the worker's own Python.

        It lies where every node sees it: one process of one job reads it, once.

        Raises:
            hpcburst.errors.EnvError: It cannot be found, built or loaded.
        """
        modules = form.module_names()
        if not form.env_spec and not modules:
            return None
        return self._store().ensure(form.env_spec or None, modules)

    def prepare(self, form: JobForm, env: Env | None, folder: Path) -> FlowJob:
        """Write the ticket of a job and put its script together.

        Args:
            form: What was asked for, with the variables that Prefect adds.
            env: The flow's env.
            folder: The flow run's folder.

        Raises:
            RequestError: The site has no room for such a job, or something asked cannot be read.
        """
        shape = form.shape()
        check_shape(shape, self.site)
        variables = job_variables(form, os.environ)
        place = os.environ.get(SERVER_FILE)
        after = f"[ ! -r {shlex.quote(place)} ] || . {shlex.quote(place)}" if place else ""
        ticket = write_ticket(folder / "secret", activation_text(env), variables, after)
        inside = folder / f"{ticket.name}.sh"
        write_private(inside, body(form, env, ticket, self.dialect, folder).encode())
        return FlowJob(shape, self._script(shape, folder, inside), ticket)

    async def submit(self, job: FlowJob, folder: Path) -> str:
        """Submit it once; returns its id.

        Raises:
            SubmitError: The batch system refused it.
            SiteError: It did not answer: the job may be queued or not.
        """
        path = folder / "job.sh"
        write_private(path, job.script.encode())
        return await probe.submit(self.dialect, str(path), job.script, _NOT_HANDED_ON)

    async def answers(self) -> bool:
        """Whether the batch system answers at all."""
        try:
            await probe.news(self.dialect, ["0"])
        except SiteError:
            return False
        return True

    def _store(self) -> EnvStore:
        from hpcburst.envs.store import EnvStore

        return EnvStore.of_site(replace(self.site, envs=replace(self.site.envs, place="shared")))

    def _script(self, shape: Shape, folder: Path, inside: Path) -> str:
        """The job's script by dask-jobqueue, which writes one for a Dask worker.

        What it says behind our own command is a comment to the shell.
        """
        import dask.config

        from hpcburst.pools.fleet import WRITERS

        name = self.dialect.name
        section = dask.config.get(f"jobqueue.{name}", None) or {}
        options = with_section(self.dialect.job_options(shape, str(folder / "logs")), section)
        writer = WRITERS[name](
            scheduler="none",
            name=JOB_NAME,
            python=f"exec /bin/bash {shlex.quote(str(inside))} #",
            cores=shape.cores,
            memory=f"{shape.memory_mb}MB",
            processes=1,
            job_name=JOB_NAME,
            worker_command="none",
            death_timeout=0,
            local_directory="",
            interface="",
            shebang=SHEBANG,
            **options,
        )
        return str(writer.job_script())


def pauses() -> Iterator[float]:
    """Seconds to wait before each next attempt at a submission; without end."""
    yield from RETRY_S
    while True:
        yield RETRY_S[-1]


def check_shape(shape: Shape, site: Site) -> None:
    """Make sure that a queue takes the job.

    Raises:
        RequestError: There is no such queue, or it takes no such job.
    """
    from hpcburst.policy.decide import fits

    queue = site.queue(shape.queue)
    if queue is None:
        raise RequestError(
            f"Queue {shape.queue!r} was asked for",
            "this site has no such queue",
            f"the queues are {', '.join(each.name for each in site.queues)}",
        )
    if not fits(shape, queue):
        raise RequestError(
            f"A flow's job asks for {shape}",
            f"queue {queue.name!r} gives at most {_words(queue)}",
            "ask for less: the flow's tasks run in jobs of their own",
        )


def job_variables(form: JobForm, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a flow's job: Prefect's, ours, the user's. The user's count most.

    Args:
        form: What was asked for, with the variables that Prefect adds.
        environ: The worker's own environment: where its Dask config is, the flow's is too.
    """
    asked = {name: text for name, text in form.env.items() if text is not None}
    ours = {name: text for name, text in environ.items() if name.startswith("DASK_")}
    if form.on_early_end == "reschedule":
        ours["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] = "reschedule"
    if form.max_pilots:
        ours["DASK_HPCBURST__MAX_JOBS"] = str(form.max_pilots)
    host = urlsplit(asked.get("PREFECT_API_URL", "")).hostname
    if host:
        known = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
        ours["NO_PROXY"] = ours["no_proxy"] = ",".join(filter(None, (known, host)))
    # A flow that cannot reach its server must fail, not start a server of its own.
    return {**ours, **asked, **dict.fromkeys(EPHEMERAL, "false")}


def body(form: JobForm, env: Env | None, ticket: Path, dialect: Dialect, folder: Path) -> str:
    """What the job does: take its ticket, go to its folder, become the flow.

    Prefect's process takes the shell's place: what the batch system signals is Prefect's.
    """
    start = form.working_dir or str(folder)
    words = [*_deadline(form), *_command(form, env)]
    return "\n".join(
        [
            taking(ticket, dialect.job_id_variable),
            f"cd -- {shlex.quote(start)} || exit 1",
            f"exec {shlex.join(words)}\n",
        ]
    )


def activation_text(env: Env | None) -> str:
    """Shell text that activates the flow's env."""
    if env is None:
        beside = shlex.quote(str(Path(sys.executable).parent))
        return f'export PATH={beside}:"$PATH"'
    from hpcburst.envs.activation.capture import as_shell

    return as_shell(env.activation)


def _command(form: JobForm, env: Env | None) -> list[str]:
    command = form.command or DEFAULT_COMMAND
    if command == DEFAULT_COMMAND:
        python = env.interpreter if env else sys.executable
        return [python, "-m", *DEFAULT_COMMAND.split()]
    return shlex.split(command)


def _deadline(form: JobForm) -> Sequence[str]:
    """Words that have the flow told to leave in time, by the job's own clock.

    Not every batch system warns a job, and some leave it but a moment.
    """
    walltime_s = form.shape().walltime_s
    if form.on_early_end != "reschedule" or walltime_s <= SHORTEST_S:
        return ()
    return ("timeout", "--foreground", "--signal=TERM", f"{walltime_s - LEAVE_S:.0f}")


def _words(queue: Queue) -> str:
    return (
        f"{queue.max_cores} cores, {queue.max_memory_mb} MB, {queue.max_gpus} GPUs and "
        f"{queue.max_walltime_s / 60:g} min"
    )
