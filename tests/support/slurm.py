"""A private Slurm of many nodes on this machine, for tests and for trying things out.

    python tests/support/slurm.py up [--install] [--nodes 8] [--cores 4] [--memory 8000]
    eval "$(python tests/support/slurm.py env)"
    sbatch --wrap hostname; squeue
    python tests/support/slurm.py down

It listens on the loopback only and keeps all its files in one folder (--folder). Once it is
installed (--install, as root on Debian or Ubuntu) it needs no privilege; started by root, every
user of the machine may submit to it. A cluster that runs is left as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Run the command line; the exit status."""
    from support.clusters.command import command
    from support.clusters.slurm import Slurm

    return command(Slurm, __doc__ or "", sys.argv[1:])


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # run as a file, it stands beside its package
    sys.exit(main())
