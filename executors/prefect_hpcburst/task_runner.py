"""`BurstTaskRunner`: the engine stays here, in threads; only the body of a task travels to a pilot.

States, retries, caching, hooks and logs are Prefect's own, kept in the flow process. A *flight*
begins at the first submit of a flow run and ends with it; each task submitted gets a *remote twin*
whose function is a call to a pilot.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from hpcburst.errors import RequestError
from prefect_hpcburst.asking import read_by_name
from prefect_hpcburst.flight import Flight
from prefect_hpcburst.futures import BurstFuture, by_reference, unmapped_by_reference
from prefect_hpcburst.remote_body import StandIn
from prefect_hpcburst.remote_task import remote_task
from prefect_hpcburst.threads import EngineThreads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prefect import Task
    from prefect.client.schemas.objects import FlowRun
    from prefect.futures import PrefectConcurrentFuture, PrefectFuture, PrefectFutureList

    from hpcburst.policy.model import Site
    from hpcburst.pools.cluster import BurstCluster
    from hpcburst.tasks import Shape

MAX_IN_FLIGHT = 512
"""Engine threads. A thread waits while its body runs elsewhere; what is submitted beyond them is
queued in order, which cannot deadlock: a task's upstream was submitted before it."""

STOP_S = 5.0
"""Seconds that engines get to report how their runs ended when the flow run was stopped."""


class BurstTaskRunner(ThreadPoolTaskRunner[Any]):
    """Run the bodies of a flow's tasks on pilots, each in the env it `@needs`.

    A flow that returns ends when the bodies it began have ended; one that fails or is interrupted
    ends at once, and its bodies are stopped. A task that cannot run fails alone, with the reason.

    Args:
        max_jobs: Batch jobs at once; None is what the site gives. Its own limit holds in any case.
        shapes: Shapes of pilot to use; see `hpcburst.BurstCluster`.
        site: Overrides of the `hpcburst` config section.
        cluster: A BurstCluster that is open already; it is used and left open.
        needs: What tasks need, by their names, for tasks that others wrote without `@needs`:
            `{"fit": {"memory": "8GB", "env": "stats.yaml"}}`.

    Raises:
        RequestError: Both a cluster and what a new one should be were given, or needs that cannot
            be read.

    Examples:
        >>> @flow(task_runner=BurstTaskRunner(max_jobs=50))        # doctest: +SKIP
        ... def pipeline():
        ...     return fit.map(range(1000)).result()
    """

    def __init__(
        self,
        max_jobs: int | None = None,
        shapes: Sequence[Shape | Mapping[str, Any]] = (),
        site: Site | Mapping[str, Any] | None = None,
        cluster: BurstCluster | None = None,
        needs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(max_workers=MAX_IN_FLIGHT)
        self.max_jobs = max_jobs
        self.shapes = tuple(shapes)
        self.site = site
        self.needs = read_by_name(needs or {})
        self._given_cluster = cluster
        self._flight: Flight | None = None
        self._flow_run: FlowRun | None = None
        self._flight_lock = threading.Lock()
        if cluster is not None and (max_jobs is not None or shapes or site is not None):
            raise RequestError(
                "BurstTaskRunner was given a cluster and max_jobs, shapes or site",
                "the cluster has its own",
                "say them to the BurstCluster",
            )

    def duplicate(self) -> Self:
        """A runner with the same settings and no pilots."""
        return type(self)(*self._settings())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BurstTaskRunner) and self._settings() == other._settings()

    __hash__ = None  # type: ignore[assignment]  # settings may be mappings

    @property
    def cluster(self) -> BurstCluster:
        """The cluster the bodies run on; made at the first submit.

        Raises:
            RuntimeError: The runner is not running a flow.
        """
        return self._running_flight().cluster

    def scale_to_zero(self) -> None:
        """Have pilots leave while the flow waits for something else; tasks call them back."""
        if self._flight is not None:
            self._flight.cluster.scale_to_zero()

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> BurstFuture[Any]:
        """Submit a task: its engine runs here, its body on a pilot."""
        told = by_reference(parameters)
        future = super().submit(self._remote(task), told, wait_for, dependencies)
        self._running_flight().count(future.wrapped_future)
        return BurstFuture(future.task_run_id, future.wrapped_future)

    def map(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
    ) -> PrefectFutureList[PrefectConcurrentFuture[Any]]:
        """Submit a task for each item; its body is read once."""
        return super().map(self._remote(task), unmapped_by_reference(parameters), wait_for)

    def __enter__(self) -> Self:
        super().__enter__()
        self._executor = EngineThreads(MAX_IN_FLIGHT)  # type: ignore[assignment]
        return self

    def __exit__(self, exc_type: object, exc_value: object, traceback: object) -> None:
        """End the run: wait for bodies on their way, or stop them if the flow did not return."""
        flight, self._flight = self._flight, None
        if flight and (exc_type is not None or flight.stopped or self._flow_failed()):
            flight.stop()
            self._executor.hurry(STOP_S)  # type: ignore[union-attr]
        try:
            super().__exit__(exc_type, exc_value, traceback)
        finally:
            if flight is not None:
                flight.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._given_cluster is not None:
            raise RequestError(
                "A flow with BurstTaskRunner(cluster=...) was sent to another process",
                "its cluster is open in this process alone",
                "give the runner max_jobs, shapes and site instead",
            )
        gone: dict[str, Any] = {
            "_flight": None,
            "_flow_run": None,
            "_executor": None,
            "_cancel_events": {},
        }
        state = {**super().__getstate__(), **gone, "_started": False}
        del state["_flight_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore = getattr(super(), "__setstate__", self.__dict__.update)  # older Prefects have none
        restore(state)
        self._flight_lock = threading.Lock()

    def _settings(self) -> tuple[Any, ...]:
        return (self.max_jobs, self.shapes, self.site, self._given_cluster, self.needs)

    def _remote(self, task: Task[..., Any]) -> Task[..., Any]:
        if isinstance(task.fn, StandIn):
            return task
        return remote_task(task, self._running_flight(), self.needs)

    def _running_flight(self) -> Flight:
        if not self._started:
            raise RuntimeError("the task runner has pilots only while its flow runs")
        with self._flight_lock:
            if self._flight is None:
                self._flight = self._new_flight()
            return self._flight

    def _new_flight(self) -> Flight:
        from hpcburst.pools.cluster import BurstCluster

        context = FlowRunContext.get()
        self._flow_run = context.flow_run if context else None
        logger = get_run_logger() if context else self.logger
        run_id = self._flow_run.id if self._flow_run else None
        if self._given_cluster is not None:
            return Flight(self._given_cluster, owned=False, logger=logger, flow_run_id=run_id)
        cluster = BurstCluster(shapes=self.shapes, max_jobs=self.max_jobs, site=self.site)
        logger.info("Pilots come and go with demand; records are in %s", cluster.run_folder)
        return Flight(cluster, owned=True, logger=logger, flow_run_id=run_id)

    def _flow_failed(self) -> bool:
        """Whether the flow raised: Prefect's engine has caught that before it closes its runner."""
        state = self._flow_run.state if self._flow_run else None
        return state is not None and not state.is_completed()
