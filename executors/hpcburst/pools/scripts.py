"""Job scripts that run one of our programs, in the header that dask-jobqueue writes."""

from __future__ import annotations

import re
import shlex
import sys

from hpcburst.jobs.dialect import Dialect
from hpcburst.jobs.directives import JOB_NAME, with_section
from hpcburst.pools.fleet import WRITERS
from hpcburst.tasks import Shape

OF_ANOTHER_JOB = re.compile(r"(SLURM|SLURMD|PMI|PMIX|OMPI|PALS)_(?!CONF)\w+")
"""Environment variables that a job submitted from within a job must not inherit: launchers of
parallel programs would take that job's sizes for its own."""


def program_script(dialect: Dialect, shape: Shape, logs: str, module: str, argument: str) -> str:
    """The script of a job that runs `python -m MODULE ARGUMENT ...` with this Python.

    What follows the argument is what dask-jobqueue would tell a Dask worker.

    Args:
        dialect: The batch system's.
        shape: What the job asks for.
        logs: Folder of its log.
        module: The program.
        argument: Its first argument; any text.

    Raises:
        RequestError: The batch system has no words for what the shape asks for.
        SiteError: The folder's path cannot be written into a job script.
    """
    import dask.config

    section = dask.config.get(f"jobqueue.{dialect.name}", None) or {}
    writer = WRITERS[dialect.name](
        scheduler=shlex.quote(argument),
        name="program",
        cores=shape.cores,
        memory=f"{shape.memory_mb}MB",
        processes=1,
        nanny=False,
        # The program takes the shell's place: what the batch system signals is the program.
        python=f"exec {shlex.quote(sys.executable)}",
        interface="",
        worker_command=module,
        job_name=JOB_NAME,
        shebang="#!/bin/bash",
        **with_section(dialect.job_options(shape, logs), section),
    )
    return str(writer.job_script())
