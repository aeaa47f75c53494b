"""The batch systems that are spoken to. Which of them is here, `policy.present` tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from hpcburst.jobs.dialect import Dialect
from hpcburst.jobs.htcondor import HtcondorDialect
from hpcburst.jobs.local import LocalDialect
from hpcburst.jobs.lsf import LsfDialect
from hpcburst.jobs.oar import OarDialect
from hpcburst.jobs.pbs import PbsDialect
from hpcburst.jobs.sge import SgeDialect
from hpcburst.jobs.slurm import SlurmDialect

DIALECTS: Mapping[str, Callable[..., Dialect]] = {
    "slurm": SlurmDialect,
    "lsf": LsfDialect,
    "htcondor": HtcondorDialect,
    "oar": OarDialect,
    "sge": SgeDialect,
    "pbs": PbsDialect,
    "torque": partial(PbsDialect, torque=True),
}
"""Who speaks to which batch system. The arguments are what a site may have to state."""


def dialect_for(scheduler: str, stated: Mapping[str, str], spool: Path) -> Dialect:
    """How a batch system is spoken to.

    Args:
        scheduler: Its name; that of the dialect of the embedded queue is one too.
        stated: How it is set up here, where that must be told.
        spool: Folder of the embedded queue, which each run has its own of.
    """
    if scheduler == LocalDialect.name:
        return LocalDialect(spool)
    return DIALECTS[scheduler](**stated)
