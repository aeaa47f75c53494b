"""hpcburst: tasks of Prefect and Snakemake on short batch jobs, each in its own conda env.

The folders stand in the order a task travels: a *task* (`tasks`, `bodies`, `programs`) names an
*env* (`envs`) and resources; the *site* (`policy`) grants a shape; a *pool* (`pools`) asks the
batch system for a *job* (`jobs`) of that shape; the *pilot* in it (`workers`) runs the task's body
in the env's own interpreter; a *result* (`results`) comes home. `comms` keeps strangers out of that
way.

Importing this package does nothing and costs nothing: the names below load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpcburst._version import __version__

if TYPE_CHECKING:
    from hpcburst.pools.cluster import BurstCluster
    from hpcburst.programs import shell
    from hpcburst.tasks import needs

__all__ = ["BurstCluster", "__version__", "needs", "shell"]

_HOMES = {
    "BurstCluster": "hpcburst.pools.cluster",
    "needs": "hpcburst.tasks",
    "shell": "hpcburst.programs",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hpcburst' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
