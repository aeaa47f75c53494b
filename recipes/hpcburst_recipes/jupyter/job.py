"""The batch job of a session: asked for only when somebody wants to look."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hpcburst.comms.staging import private_folder, write_private
from hpcburst.errors import RequestError, SubmitError
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect, JobNews, JobState
from hpcburst.jobs.known import dialect_for
from hpcburst.policy.decide import fits
from hpcburst.policy.model import Site
from hpcburst.policy.present import LOCAL
from hpcburst.pools.scripts import program_script
from hpcburst.tasks import Shape
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.jupyter.session import Phase, Session, read_session, write_plan

JOB_FILE = "job.json"
FOLDER = "session"

PROGRAM = "hpcburst_recipes.jupyter.session"

_NOT_HANDED_ON = re.compile(r"PREFECT_\w+")
"""Batch systems keep the environment of a submission, and these may hold the user's API key."""

LOOK_EVERY_S = 0.2
ASK_EVERY_S = 10.0
"""Seconds between two questions to the batch system; the session itself tells by a file."""

LOCAL_ASK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Desk:
    """Where sessions of a checkpoint are asked for.

    Attributes:
        checkpoint: The checkpoint.
        site: What the site allows.
    """

    checkpoint: Checkpoint
    site: Site

    @property
    def folder(self) -> Path:
        """The bundle."""
        return Path(self.checkpoint.folder)

    @property
    def dialect(self) -> Dialect:
        """How the batch system is spoken to."""
        spool = private_folder(private_folder(self.folder / FOLDER) / "spool")
        return dialect_for(self.site.scheduler, self.site.dialect, spool)

    def job_id(self) -> str:
        """Id of the job that was submitted last; "" if there is none."""
        return self._job().get("id", "")

    def news(self) -> JobNews | None:
        """What the batch system says of that job; None without one."""
        job_id = self.job_id()
        if not job_id:
            return None
        return asyncio.run(probe.news(self.dialect, [job_id]))[job_id]

    def live(self) -> Session | None:
        """The session, if its job runs."""
        session, job = read_session(self.folder), self._job()
        if session is None or session.phase is Phase.ENDED or session.name != job.get("name"):
            return None
        news = self.news()
        return session if news is not None and news.state is JobState.RUNNING else None

    def submit(self, walltime: float | str | None = None) -> str:
        """Ask for a job with a session in it; returns its id.

        Raises:
            RequestError: No queue takes it.
            SubmitError: The batch system refused it.
        """
        shape = self.shape(walltime)
        name = secrets.token_hex(4)
        logs = private_folder(private_folder(self.folder / FOLDER) / "logs")
        plan = self.folder / FOLDER / f"{name}.json"
        write_plan(plan, self.folder, name, shape.walltime_s)
        text = program_script(self.dialect, shape, str(logs), PROGRAM, str(plan))
        script = plan.with_suffix(".sh")
        write_private(script, text.encode())
        try:
            job_id = asyncio.run(probe.submit(self.dialect, str(script), text, _NOT_HANDED_ON))
        finally:
            script.unlink(missing_ok=True)
        log = self.dialect.log_of(str(logs), job_id)
        job = {"id": job_id, "name": name, "log": log, "at": time.time()}
        write_private(self.folder / JOB_FILE, json.dumps(job).encode())
        return job_id

    def wait_ready(self, tell: Callable[[str], None]) -> Session:
        """Wait until the session can be reached; `tell` hears of each step.

        Raises:
            SubmitError: The job ended, or will never start.
        """
        told, ask_at = "", 0.0
        every_s = LOCAL_ASK_EVERY_S if self.site.scheduler == LOCAL else ASK_EVERY_S
        while True:
            session = read_session(self.folder)
            mine = session is not None and session.name == self._job()["name"]
            if session is not None and mine and session.phase is Phase.RUNNING:
                return session
            if session is not None and mine and session.phase is Phase.ENDED:
                raise self._gone(session.why)
            step = "starting JupyterLab and running the cells" if mine else told
            if time.monotonic() >= ask_at:
                ask_at = time.monotonic() + every_s
                step = self._step(mine=mine)
            if step != told:
                told = step
                tell(step)
            time.sleep(LOOK_EVERY_S)

    def cancel(self) -> None:
        """End the job, waiting or running."""
        job_id = self.job_id()
        if job_id:
            asyncio.run(probe.cancel(self.dialect, [job_id]))

    def shape(self, walltime: float | str | None = None) -> Shape:
        """What a session asks the batch system for.

        Raises:
            RequestError: It cannot be read, or no queue takes it.
        """
        asked = dict(self.checkpoint.question["session"])
        if walltime is not None:
            asked["walltime"] = walltime
        default = self.site.default_shape
        asked.setdefault("memory", default.memory_mb)
        shape = Shape.of(**asked)
        for queue in self.site.queues:
            named = replace(shape, queue=None if self.site.scheduler == LOCAL else queue.name)
            if fits(named, queue):
                return named
        raise RequestError(f"A session asks for {shape}", "no queue takes such a job")

    def _step(self, *, mine: bool) -> str:
        news = self.news()
        if news is None or news.state is JobState.PENDING:
            if news is not None and news.held:
                raise self._gone(f"the batch system holds it: {news.reason}")
            why = f" ({news.reason})" if news and news.reason else ""
            return f"job {self.job_id()} is queued{why}"
        if news.state is JobState.ENDED:
            raise self._gone("its job ended")
        where = f" on {news.host}" if news.host else ""
        return "starting JupyterLab and running the cells" if mine else f"the job starts{where}"

    def _gone(self, why: str) -> SubmitError:
        job = self._job()
        log = Path(job.get("log", ""))
        tail = log.read_text(errors="replace") if log.is_file() else ""
        asked = f"A session on the checkpoint {self.checkpoint.id} was opened"
        return SubmitError(asked, why, job_id=job.get("id"), log=job.get("log"), tail=tail)

    def _job(self) -> dict[str, str]:
        try:
            return dict(json.loads((self.folder / JOB_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}
