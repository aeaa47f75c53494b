"""What the keeper has going on: work that may be stopped, and errands that must be seen through."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Chores:
    """Asynchronous work of one owner."""

    _work: set[asyncio.Task[None]] = field(default_factory=set)
    _errands: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that may be stopped at any point."""
        self._keep(work, self._work)

    def see_through(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something that must not be stopped half-way: it submits or ends a job."""
        self._keep(errand, self._errands)

    async def stop(self) -> None:
        """Stop what may be stopped, and wait for the rest."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        while self._errands:
            await asyncio.wait(self._errands)

    @staticmethod
    def _keep(work: Coroutine[Any, Any, None], kept: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        kept.add(task)  # the event loop itself holds tasks only weakly
        task.add_done_callback(kept.discard)
