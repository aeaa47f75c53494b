"""`BurstTaskRunner`: the engine stays here, in threads; only the body of a task travels to a pilot."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from prefect import Task
from prefect.cache_policies import NONE, CachePolicy
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from hpcburst.bodies import body_of
from hpcburst.errors import RequestError
from hpcburst.tasks import Env, Needs, Shape, needs_of
from prefect_hpcburst.caching import InEnv
from prefect_hpcburst.remote_body import AsyncRemoteBody, Order, RemoteBody

if TYPE_CHECKING:
    from hpcburst.policy.model import Site
    from hpcburst.pools.cluster import BurstCluster

MAX_IN_FLIGHT = 512
"""Engine threads. A thread waits while its body runs elsewhere; what is submitted beyond them is
queued in order, which cannot deadlock: a task's upstream was submitted before it."""


class BurstTaskRunner(ThreadPoolTaskRunner[Any]):
    """Run the bodies of a flow's tasks on pilots, each in the env it `@needs`.

    Args:
        max_jobs: Batch jobs at once; None is the site's limit, which is never exceeded.
        shapes: Shapes of pilot to use; see `hpcburst.BurstCluster`.
        site: Overrides of the `hpcburst` config section.
        cluster: A BurstCluster that is open already; it is used and left open.

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
    ) -> None:
        super().__init__(max_workers=MAX_IN_FLIGHT)
        self.max_jobs = max_jobs
        self.shapes = tuple(shapes)
        self.site = site
        self._given_cluster = cluster
        self._cluster: BurstCluster | None = None
        self._builder: ThreadPoolExecutor | None = None
        self._envs: dict[Needs, Future[Env | None]] = {}

    def duplicate(self) -> Self:
        """A runner with the same settings and no pilots."""
        return type(self)(self.max_jobs, self.shapes, self.site, self._given_cluster)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BurstTaskRunner):
            return False
        mine = (self.max_jobs, self.shapes, self.site, self._given_cluster)
        return mine == (other.max_jobs, other.shapes, other.site, other._given_cluster)  # noqa: SLF001

    __hash__ = None  # type: ignore[assignment]  # settings may be mappings

    @property
    def cluster(self) -> BurstCluster:
        """The cluster the bodies run on; made at the first submit.

        Raises:
            RuntimeError: The runner is not running a flow.
        """
        if not self._started:
            raise RuntimeError("the task runner has pilots only while its flow runs")
        if self._cluster is None:
            self._cluster = self._given_cluster or self._new_cluster()
        return self._cluster

    def submit(  # type: ignore[override]
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Submit a task: its engine runs here, its body on a pilot.

        Raises:
            RequestError: The task cannot travel (a generator, no source, more than any queue has).
        """
        remote = task if isinstance(task.fn, RemoteBody) else self._remote(task)
        return super().submit(remote, parameters, wait_for, dependencies)

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        """End the run: wait for what was submitted, or stop it if the flow was stopped."""
        if exc_type is not None:
            self._close()
        try:
            super().__exit__(exc_type, exc_value, traceback)
        finally:
            self._close()

    def __getstate__(self) -> dict[str, Any]:
        live = {"_cluster": None, "_builder": None, "_envs": {}}
        return {**super().__getstate__(), **live}

    def _remote(self, task: Task[..., Any]) -> Task[..., Any]:
        """A copy of the task whose function runs on a pilot."""
        if task.isgenerator:
            raise RequestError(
                f"Task {task.name!r} was submitted to a BurstTaskRunner",
                "it is a generator, and a generator cannot be left half-way on a pilot",
                "return a list, or submit it with another task runner",
            )
        needs = needs_of(task)
        body = body_of(task.fn, stand_ins={_get_run_logger(): "task_logger"})
        order = Order(
            name=task.name,
            body=body,
            needs=needs,
            env=self._env(needs),
            launch=self.cluster.launch,
            timeout_s=task.timeout_seconds,
            log_prints=task.log_prints is not False,
        )
        remote = copy.copy(task)
        remote.fn = (AsyncRemoteBody if task.isasync else RemoteBody)(task.fn, order)
        remote.timeout_seconds = None  # kept on the pilot, which can stop a blocking body
        remote.source_code = body.digest  # what TASK_SOURCE hashes: the body as it travels
        remote.cache_policy = self._cache_policy(task, needs)
        return remote

    def _cache_policy(self, task: Task[..., Any], needs: Needs) -> Any:
        policy = task.cache_policy
        if needs.env is None or not isinstance(policy, CachePolicy) or policy == NONE:
            return policy
        return policy + InEnv(env_key=self.cluster.env_key_for(needs))

    def _env(self, needs: Needs) -> Future[Env | None]:
        """The env, built beside the flow: submitting goes on while it is."""
        if needs not in self._envs:
            if self._builder is None:
                self._builder = ThreadPoolExecutor(4, thread_name_prefix="hpcburst-env")
            self._envs[needs] = self._builder.submit(self.cluster.env_for, needs)
        return self._envs[needs]

    def _new_cluster(self) -> BurstCluster:
        from hpcburst.pools.cluster import BurstCluster

        cluster = BurstCluster(shapes=self.shapes, max_jobs=self.max_jobs, site=self.site)
        self._logger().info("Pilots come and go with demand; records are in %s", cluster.run_folder)
        return cluster

    def _close(self) -> None:
        cluster, self._cluster = self._cluster, None
        builder, self._builder = self._builder, None
        self._envs = {}
        if builder is not None:
            builder.shutdown(wait=False, cancel_futures=True)
        if cluster is not None and cluster is not self._given_cluster:
            cluster.close()
            self._logger().info("%s", cluster.record.text().splitlines()[0])

    def _logger(self) -> Any:
        from prefect.exceptions import MissingContextError

        try:
            return get_run_logger()
        except MissingContextError:
            return self.logger


def _get_run_logger() -> Any:
    """Prefect's `get_run_logger`, the object that flow files import."""
    import prefect

    return prefect.get_run_logger
