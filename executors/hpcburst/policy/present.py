"""Which batch system is here, by its commands. Pure: told where commands are, it says a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

LOCAL = "local"
"""The embedded queue, where there is no batch system."""

SCHEDULERS = ("local", "slurm", "pbs", "torque", "sge", "lsf", "htcondor", "oar")
"""Names of the batch systems that are spoken to."""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    # Slurm first: it brings a qsub and a bsub of its own, and those are the lesser way in.
    "slurm": ("sbatch", "squeue"),
    "lsf": ("bsub", "bjobs"),
    "oar": ("oarsub", "oarstat"),
    "sge": ("qsub", "qstat", "qconf"),
    "pbs": ("qsub", "qstat"),
    # Last: many machines have its commands and no pool behind them.
    "htcondor": ("condor_submit", "condor_q"),
}
"""Commands that tell a batch system when all of them are there, the likelier system first."""

_TORQUE = re.compile(r"^Version: |torque", re.IGNORECASE | re.MULTILINE)


def detect(which: Callable[[str], str | None], output: Callable[[list[str]], str]) -> str:
    """The name of the batch system that is here: one of `SCHEDULERS`, `LOCAL` if there is none.

    Commands on PATH decide. Three systems share `qsub` and `qstat`: `qconf` is Grid Engine's
    alone, and of the others Torque says so when asked for its version.

    Args:
        which: Where a command is (`shutil.which`).
        output: What a command prints; "" when it fails (`ask.output_or_nothing`).
    """
    for name, commands in COMMANDS.items():
        if all(map(which, commands)):
            torque = name == "pbs" and _TORQUE.search(output(["qstat", "--version"]))
            return "torque" if torque else name
    return LOCAL
