"""A flight: what lives as long as one flow run, its pilots, its envs and its bodies on their way.

Engine threads wait here for envs and outcomes. Stopping the flight wakes all of them at once, and
withdraws their bodies from the pilots.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from hpcburst.comms.staging import private_folder
from hpcburst.errors import Cancelled
from prefect_hpcburst.lookout import Lookout
from prefect_hpcburst.progress import Tally

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from prefect.client.schemas.objects import State
    from prefect.logging.loggers import LoggingAdapter

    from hpcburst.pools.cluster import BurstCluster
    from hpcburst.results import Line, Outcome
    from hpcburst.tasks import Burst, Env, Needs

    Logger = logging.Logger | LoggingAdapter

T = TypeVar("T")

_Place = tuple[str | None, str | None, tuple[str, ...]]
"""What an env is asked for with: its path or name, where that is looked up, and modules."""

MAX_BUILDS = 2
"""Envs built at once: each build keeps a few cores of a login node busy."""

FREIGHT_BYTES = 256_000_000
"""Arguments of bodies on their way, together: `map` over a thousand items with a table for all does
not hold a thousand tables. Beyond that, bodies wait for others to end."""

CHECK_S = 1.0
"""How often who waits for room looks whether the flight was stopped."""

CLOSE_S = 20.0
"""Seconds the pilots get to end."""


class Flight:
    """The pilots, envs and bodies of one flow run.

    Args:
        cluster: Where the bodies run.
        owned: Whether the cluster ends with the flight.
        logger: Gets one line about the pilots when they have ended.
        flow_run_id: The flow run whose burst is shown in the UI; None shows none.

    Attributes:
        cluster: As given.
        tally: Counts the task runs.
        cancelled: Whether somebody cancelled the flow run, in the UI or by the API.
    """

    def __init__(
        self,
        cluster: BurstCluster,
        *,
        owned: bool,
        logger: Logger,
        flow_run_id: UUID | None = None,
    ) -> None:
        self.cluster = cluster
        self._owned = owned
        self._logger = logger
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._waits: set[Future[Any]] = set()
        self._envs: dict[_Place, Future[Env | None]] = {}
        self._env_keys: dict[_Place, str] = {}
        self._builds = threading.Semaphore(MAX_BUILDS)
        self._results = ""
        self.tally = Tally()
        self._unloaded = threading.Condition()
        self._carried_bytes = 0
        self.cancelled = False
        self._lookout: Lookout | None = None
        if flow_run_id is not None:
            self._lookout = Lookout(flow_run_id, cluster, self.tally, self.cancel)

    def count(self, future: Future[State[Any]]) -> None:
        """Count a task run that was submitted, and again when it has ended."""
        with self._lock:
            self.tally.submitted += 1
        future.add_done_callback(self._count_ended)

    @property
    def stopped(self) -> bool:
        """Whether its bodies were withdrawn."""
        return self._stopped.is_set()

    def env_key(self, needs: Needs) -> str:
        """The key of the env of these needs; "" for the driver's own Python.

        Raises:
            EnvError: The env cannot be found or read.
        """
        place = _place(needs)
        if place not in self._env_keys:
            self._env_keys[place] = self.cluster.env_key_for(needs)
        return self._env_keys[place]

    def begin_env(self, needs: Needs) -> Future[Env | None]:
        """Have the env of these needs built beside the flow, once, unless it is there."""
        place = _place(needs)
        with self._lock:
            future = self._envs.get(place)
            if future is not None:
                return future
            future = self._envs[place] = Future()
            self._waits.add(future)
        if needs.env is None and not needs.modules:
            future.set_result(None)
        else:
            # A daemon: the build of an env must not hold a run that was stopped.
            threading.Thread(target=self._build, args=(needs, future), daemon=True).start()
        return future

    def env(self, needs: Needs) -> Env | None:
        """The env of these needs, when it is built.

        Raises:
            EnvError: It cannot be found, read, solved or built.
            asyncio.CancelledError: The flight was stopped.
        """
        return self._await(self.begin_env(needs))

    def launch(self, burst: Burst, on_lines: Callable[[Sequence[Line]], None]) -> Future[Outcome]:
        """Queue a body.

        Raises:
            RequestError: No queue can hold what it needs.
            asyncio.CancelledError: The flight was stopped.
        """
        self._check()
        future = self.cluster.launch(burst, on_lines)
        with self._lock:
            self._waits.add(future)
        future.add_done_callback(self._waits.discard)
        if self._stopped.is_set():
            future.cancel()
        return future

    def outcome(self, future: Future[Outcome]) -> Outcome:
        """The outcome of a launched body; what was stopped raises as `launch` does."""
        return self._await(future)

    def has_room(self, size_bytes: int) -> bool:
        """Whether a body with arguments of this size need not wait for others to end."""
        return not self._carried_bytes or self._carried_bytes + size_bytes <= FREIGHT_BYTES

    @contextmanager
    def room_for(self, size_bytes: int) -> Iterator[None]:
        """Hold room for arguments of this size; waits until there is some.

        Raises:
            asyncio.CancelledError: The flight was stopped.
        """
        with self._unloaded:
            while not self.has_room(size_bytes):
                self._check()
                self._unloaded.wait(CHECK_S)
            self._carried_bytes += size_bytes
        try:
            yield
        finally:
            with self._unloaded:
                self._carried_bytes -= size_bytes
                self._unloaded.notify_all()

    def results_folder(self) -> str:
        """Folder on the shared file system for large values; private.

        Raises:
            SiteError: The name is taken by somebody else's.
        """
        if not self._results:
            self._results = str(private_folder(self.cluster.run_folder / "results"))
        return self._results

    def cancel(self) -> None:
        """Stop, because somebody cancelled the flow run."""
        self.cancelled = True
        self.stop()

    def stop(self) -> None:
        """Withdraw all bodies; who waits for one, or for an env, waits no more. Idempotent."""
        self._stopped.set()
        with self._lock:
            waits = list(self._waits)
        for future in waits:
            future.cancel()

    def close(self) -> None:
        """End the flight, and its pilots if they are its own. Idempotent."""
        self.stop()
        if self._owned:
            self.cluster.close(timeout=CLOSE_S)
        if self._lookout is not None:
            self._lookout.close()
        if self._owned:
            self._logger.info("%s", self.cluster.record.text().splitlines()[0])

    def _count_ended(self, future: Future[State[Any]]) -> None:
        well = not (future.cancelled() or future.exception()) and future.result().is_completed()
        with self._lock:
            self.tally.ended += 1
            self.tally.failed += not well

    def _check(self) -> None:
        if self._stopped.is_set():
            # What Prefect's own runners raise: the engine tells of a crash, and does not retry.
            raise asyncio.CancelledError("its flow run ended before it did")

    def _await(self, future: Future[T]) -> T:
        try:
            return future.result()
        except (CancelledError, Cancelled):
            self._check()
            raise

    def _build(self, needs: Needs, future: Future[Env | None]) -> None:
        with self._builds, suppress(InvalidStateError):  # it was cancelled meanwhile
            try:
                if not future.cancelled():
                    future.set_result(self.cluster.env_for(needs))
            except InvalidStateError:
                raise
            except Exception as error:  # noqa: BLE001 - the edge of the thread: its future tells
                future.set_exception(error)


def _place(needs: Needs) -> _Place:
    return (needs.env, needs.folder, needs.modules)
