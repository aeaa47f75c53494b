"""A private Grid Engine of many nodes on this machine, for tests and for trying things out.

    python tests/support/sge.py up [--install] [--nodes 8] [--cores 4] [--memory 8000]
    python tests/support/sge.py run -- qsub -b y hostname
    python tests/support/sge.py run -- bash
    python tests/support/sge.py down

Needs root, on Debian or Ubuntu: its daemons listen on all addresses, so they get a network of their
own, in namespaces, and nothing of it can be reached from outside. What uses the cluster must run on
its head (run). All files are in one folder (--folder). A cluster that runs is left as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Run the command line; the exit status."""
    from support.clusters.command import command
    from support.clusters.sge import Sge

    return command(Sge, __doc__ or "", sys.argv[1:])


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # run as a file, it stands beside its package
    sys.exit(main())
