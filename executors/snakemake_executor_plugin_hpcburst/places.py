"""Where jobs run: on pilots that many share, or in batch jobs of their own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hpcburst.placement import ANYWHERE, Placement, Spread
from hpcburst.results import Outcome
from hpcburst.tasks import Burst, Needs, Shape
from snakemake_executor_plugin_hpcburst.resources import Defaults, needs_of_job
from snakemake_executor_plugin_hpcburst.settings import ExecutorSettings, read_shapes

if TYPE_CHECKING:
    from hpcburst.policy.model import Site
    from hpcburst.pools.cluster import BurstCluster
    from hpcburst.pools.own_jobs import OwnJobs
    from hpcburst.pools.record import PilotRecord


class Places:
    """The pilots and the own jobs of one run; each begins with the first job that goes there.

    Args:
        settings: The user's.
    """

    def __init__(self, settings: ExecutorSettings) -> None:
        self._settings = settings
        self._cluster: BurstCluster | None = None
        self._own: OwnJobs | None = None
        self._known: set[Placement] = {ANYWHERE}
        self._guard = threading.Lock()

    @cached_property
    def site(self) -> Site:
        """What the machine allows.

        Raises:
            SiteError: The config cannot be read.
        """
        from hpcburst.policy.load import load_site

        return load_site()

    def needs(self, threads: Any, resources: Mapping[str, Any]) -> Needs:
        """What a job asks for here.

        Args:
            threads: What Snakemake settled as the job's threads.
            resources: The job's resources.

        Raises:
            RequestError: A value is not an amount of what it stands for.
            SiteError: The config cannot be read.
        """
        return needs_of_job(threads, resources, self._defaults)

    def launch(self, burst: Burst, spread: Spread | None) -> Future[Outcome]:
        """Queue a job.

        Args:
            burst: The job's command.
            spread: Nodes and processes of a batch job of its own; None is for the pilots.

        Raises:
            BurstError: It cannot be had here; nothing was queued.
        """
        self._check(burst.needs.placement)
        if spread is not None:
            return self._own_jobs().launch(burst, spread)
        return self._pilots().launch(burst)

    def lives(self) -> list[PilotRecord]:
        """The lives of all pilots so far."""
        return [] if self._cluster is None else list(self._cluster.record.pilots.values())

    def close(self) -> None:
        """End every batch job. Idempotent."""
        with self._guard, ExitStack() as stack:
            cluster, self._cluster = self._cluster, None
            own, self._own = self._own, None
            for place in (cluster, own):
                if place is not None:
                    stack.callback(place.close)

    @cached_property
    def _defaults(self) -> Defaults:
        site = self.site
        counts_disk = site.scheduler == "htcondor" or "disk_resource" in site.dialect
        return replace(self._settings.defaults, counts_disk=counts_disk)

    def _check(self, placement: Placement) -> None:
        """Refuse at once what the batch system has no words for."""
        if placement in self._known:
            return
        from hpcburst.jobs.known import DIALECTS

        if self.site.scheduler in DIALECTS:
            dialect = DIALECTS[self.site.scheduler](**self.site.dialect)
            gpus = 1 if placement.gpu_model else 0
            dialect.job_options(Shape(gpus=gpus, placement=placement), "/logs")
        self._known.add(placement)

    def _pilots(self) -> BurstCluster:
        if self._cluster is None:
            from hpcburst.pools.cluster import BurstCluster

            shapes = read_shapes(self._settings.shapes)
            self._cluster = BurstCluster(
                max_jobs=self._settings.max_jobs, shapes=shapes, site=self.site
            )
        return self._cluster

    def _own_jobs(self) -> OwnJobs:
        if self._own is None:
            from hpcburst.pools.own_jobs import OwnJobs

            self._own = OwnJobs(self.site, self._settings.max_jobs)
        return self._own
