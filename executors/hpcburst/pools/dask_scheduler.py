"""Dask's scheduler as we run it: one TLS port, and a plug-in that tells who comes and goes."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from hpcburst.comms.ports import NoHttpServer
from hpcburst.pools.keeper import Keeper


class PortlessScheduler(NoHttpServer, Scheduler):  # type: ignore[misc]  # distributed is untyped
    """Dask's scheduler with its one TLS port."""


class Watcher(SchedulerPlugin):  # type: ignore[misc]
    """Tells the keeper who comes and goes."""

    name = "hpcburst-watcher"

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A pilot said hello."""
        self._keeper.pilot_up(str(scheduler.workers[worker].name), worker)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:  # noqa: ARG002
        """A pilot is gone."""
        self._keeper.pilot_gone(worker)

    def update_graph(self, scheduler: Any, **_: Any) -> None:  # noqa: ARG002
        """Tasks of plain Dask came."""
        self._keeper.wake()
