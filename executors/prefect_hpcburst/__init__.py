"""Prefect on the batch system: `BurstTaskRunner` sends the bodies of a flow's tasks to pilots.

The engine (states, retries, caching, logs) stays in the flow process; pilots need no Prefect.
"""

from prefect_hpcburst.asking import make_method, with_needs
from prefect_hpcburst.task_runner import BurstTaskRunner

__all__ = ["BurstTaskRunner", "with_needs"]

make_method()
