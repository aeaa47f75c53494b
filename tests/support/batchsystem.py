"""A batch system, real or fake, spoken to as the fleet speaks to it."""

from __future__ import annotations

import asyncio
import os
import textwrap
import uuid
from dataclasses import dataclass
from pathlib import Path

import hpcburst.pools.fleet  # noqa: F401 - imports dask_jobqueue without giving it our signals
from hpcburst.jobs import probe
from hpcburst.jobs.dialect import Dialect, JobState
from hpcburst.jobs.directives import with_section
from hpcburst.jobs.local import DIRECTIVE
from hpcburst.tasks import Shape
from support.fakescheduler import FakeScheduler
from support.processes import marked, wait_until


@dataclass
class System:
    """A batch system, spoken to as the fleet speaks to it.

    Attributes:
        dialect: The dialect under test.
        folder: Where scripts and logs go.
        mark: Is in the environment of every process of every job.
        fake: The fake it is; None for the embedded queue.
    """

    dialect: Dialect
    folder: Path
    mark: str
    fake: FakeScheduler | None = None

    def submit(self, body, *, walltime_s=60, name="job.sh"):
        """Submit a job whose script is `body`; returns its id."""
        script = self.folder / name
        script.write_text(self.script(textwrap.dedent(body), Shape(walltime_s=walltime_s)))
        os.environ["HPCBURST_TEST_MARK"] = self.mark
        try:
            return asyncio.run(probe.submit(self.dialect, str(script), script.read_text()))
        finally:
            del os.environ["HPCBURST_TEST_MARK"]
            script.unlink()  # the batch system keeps a copy of its own

    def script(self, body, shape):
        """The job script, by dask-jobqueue's job class where it has one."""
        options = with_section(self.dialect.job_options(shape, str(self.folder)), {})
        if self.dialect.name == "local":
            head = [f"{DIRECTIVE} {words}" for words in options["job_extra_directives"]]
            return "\n".join(["#!/bin/sh", *head, body])
        (self.folder / f"{uuid.uuid4().hex}.body").write_text(body)
        (path,) = self.folder.glob("*.body")
        job = path.rename(path.with_suffix(".sh"))
        return job_of(self.dialect, shape, options, python=f"exec /bin/sh {job} #").job_script()

    def states(self, *job_ids):
        """The states of some jobs, by one command."""
        news = asyncio.run(probe.news(self.dialect, job_ids))
        return {job_id: told.state for job_id, told in news.items()}

    def state(self, job_id):
        """The state of one job."""
        return self.states(job_id)[job_id]

    def news(self, job_id):
        """All that is told of one job."""
        return asyncio.run(probe.news(self.dialect, [job_id]))[job_id]

    def cancel(self, *job_ids):
        """End some jobs, by one command."""
        asyncio.run(probe.cancel(self.dialect, job_ids))

    def await_state(self, job_id, state, within_s=30):
        """Wait until a job is in a state."""
        wait_until(lambda: self.state(job_id) is state, f"job {job_id} {state}", within_s)

    def await_end(self, job_id):
        """Wait until a job has ended; some systems forget it then."""
        over = (JobState.ENDED, JobState.UNKNOWN)
        wait_until(lambda: self.state(job_id) in over, f"job {job_id} over")

    def await_text(self, path, text):
        """Wait until a file holds a text."""
        wait_until(lambda: path.exists() and text in path.read_text(), f"{text!r} in {path}")

    def log(self, job_id):
        """The log of a job."""
        return Path(self.dialect.log_of(str(self.folder), job_id))

    @property
    def forgets(self):
        """Whether it knows ended jobs no more."""
        return self.dialect.name == "htcondor"

    @property
    def processes(self):
        """Live processes of all its jobs."""
        return marked(f"HPCBURST_TEST_MARK={self.mark}")


def job_of(dialect, shape, options, *, python):
    """A job of dask-jobqueue's class for this batch system, made with our options."""
    import dask_jobqueue

    job_class = {
        "slurm": dask_jobqueue.slurm.SLURMJob,
        "pbs": dask_jobqueue.pbs.PBSJob,
        "sge": dask_jobqueue.sge.SGEJob,
        "lsf": dask_jobqueue.lsf.LSFJob,
        "htcondor": dask_jobqueue.htcondor.HTCondorJob,
        "oar": dask_jobqueue.oar.OARJob,
    }[dialect.name]
    return job_class(
        "tls://127.0.0.1:1",
        name="pilot-1",
        cores=shape.cores,
        memory=f"{shape.memory_mb}MB",
        processes=1,
        python=python,
        job_name="hpcburst",
        **options,
    )
