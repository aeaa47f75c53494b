"""The batch systems that can be asked for their queues."""

from __future__ import annotations

from collections.abc import Mapping

from hpcburst.policy.discovery import htcondor, lsf, oar, pbs, sge, slurm
from hpcburst.policy.discovery.found import System

SYSTEMS: Mapping[str, System] = {
    "slurm": slurm.SYSTEM,
    "pbs": pbs.SYSTEM,
    "torque": pbs.SYSTEM,
    "sge": sge.SYSTEM,
    "lsf": lsf.SYSTEM,
    "htcondor": htcondor.SYSTEM,
    "oar": oar.SYSTEM,
}
