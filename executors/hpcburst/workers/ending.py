"""The end of a pilot's job: foretold by the batch system, announced or ordered by a signal."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hpcburst.errors import BurstError
from hpcburst.jobs import probe
from hpcburst.jobs.known import DIALECTS

logger = logging.getLogger("hpcburst.pilot")

ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGXCPU)
"""End now. Slurm and PBS send SIGTERM some seconds before SIGKILL; LSF sends SIGUSR2 at its run
limit, Grid Engine SIGUSR2 (`-notify`) or SIGXCPU (`s_rt`)."""

WARNINGS = (signal.SIGUSR1,)
"""The end is near: Slurm's `--signal`, Grid Engine's `-notify` before a suspension."""

STAGGER_S = 5.0
"""Pilots that start together ask for their limits within this time, not all at once."""


@dataclass(slots=True)
class Ending:
    """When this pilot's job ends, and whether it was told to.

    Attributes:
        told: Set when it is told to end.
    """

    told: asyncio.Event = field(default_factory=asyncio.Event)
    _at: float | None = None
    _listeners: list[Callable[[float], None]] = field(default_factory=list)

    def obey_signals(self) -> None:
        """Hear what the batch system signals from now on."""
        loop = asyncio.get_running_loop()
        for signum in ORDERS:
            loop.add_signal_handler(signum, self.told.set)
        for signum in WARNINGS:
            loop.add_signal_handler(signum, self.ends_at, time.time())

    def ends_at(self, at: float) -> None:
        """The job is known to end then (seconds since the epoch); a warning counts as the end."""
        self._at = at if self._at is None else min(at, self._at)
        for listener in self._listeners:
            listener(self._at - time.time())

    def listen(self, listener: Callable[[float], None]) -> None:
        """Tell somebody how many seconds are left, now if that is known and whenever it changes."""
        self._listeners.append(listener)
        if self._at is not None:
            listener(self._at - time.time())

    def unlisten(self, listener: Callable[[float], None]) -> None:
        """Tell somebody no more."""
        self._listeners.remove(listener)

    async def ask(self, batch_system: str) -> None:
        """Ask the batch system when this job will be ended: sites cut what was asked for."""
        dialect = DIALECTS[batch_system]()
        job_id = os.environ.get(dialect.job_id_variable, "")
        if not job_id:
            return
        await asyncio.sleep(random.uniform(0, STAGGER_S))  # noqa: S311 - a stagger, no secret
        try:
            at = await probe.limit(dialect, job_id)
        except BurstError as error:  # the driver's own estimate stands
            logger.info("when this job ends is not known: %s", error)
        else:
            if at is not None:
                self.ends_at(at)
