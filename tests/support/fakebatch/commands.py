"""Which commands there are, and how one is run: `main([FOLDER, FLAVOUR, COMMAND, *ARGS])`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support.fakebatch import engine, htcondor, lsf, oar, pbs, sge, slurm

FLAVOURS = {
    "slurm": (slurm.COMMANDS, slurm.TROUBLE),
    "pbs": (pbs.COMMANDS, pbs.TROUBLE),
    "torque": (pbs.TORQUE_COMMANDS, pbs.TROUBLE),
    "sge": (sge.COMMANDS, sge.TROUBLE),
    "lsf": (lsf.COMMANDS, lsf.TROUBLE),
    "htcondor": (htcondor.COMMANDS, htcondor.TROUBLE),
    "oar": (oar.COMMANDS, oar.TROUBLE),
}


def main(words):
    """Run one command; its exit status."""
    folder, flavour, command, args = Path(words[0]), words[1], words[2], words[3:]
    commands, trouble = FLAVOURS[flavour]
    with (folder / engine.CALLS).open("a") as log:
        log.write(json.dumps([command, *args]) + "\n")
    try:
        engine.suffer(folder, command, trouble)
        return commands[command](folder, args) or 0
    except engine.Refused as refused:
        print(refused, file=sys.stderr)
        return 1
