"""The lookout: a thread beside a flow run that shows how its burst goes, and hears of its end.

It keeps one progress artifact up to date, and leaves a report at the end. It also asks whether the
run is being cancelled: Prefect stops the process of a run that one of its workers started, and does
nothing for one that was started by hand.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect_hpcburst.progress import Pilots, Tally, described, reported

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

    from hpcburst.pools.cluster import BurstCluster

logger = logging.getLogger("hpcburst")

LOOK_S = 2.0
"""How often the API is asked about the run: a body is stopped within five seconds of a cancel."""

SHOW_S = 6.0
"""How often the artifact changes: often enough to watch, and one small request each."""

FAREWELL_S = 5.0
"""What the last words to the API may take; the run does not wait longer for them."""

PROGRESS_KEY, REPORT_KEY = "hpcburst-progress", "hpcburst-report"


class Lookout:
    """Looks after one flow run from a thread of its own.

    Args:
        flow_run_id: The run.
        cluster: Its pilots.
        tally: Its task runs; others count in it.
        on_cancel: Called once when somebody cancels the run.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        cluster: BurstCluster,
        tally: Tally,
        on_cancel: Callable[[], None],
    ) -> None:
        self._flow_run_id = flow_run_id
        self._cluster = cluster
        self._tally = tally
        self._on_cancel = on_cancel
        self._ended = threading.Event()
        self._artifact_id: UUID | None = None
        self._shown = ""
        self._show_at = time.monotonic() + LOOK_S
        self.cancelled = False
        self._thread = threading.Thread(target=self._watch, name="hpcburst-lookout", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show how it ended, and go. Idempotent; takes `FAREWELL_S` at most."""
        self._ended.set()
        self._thread.join(FAREWELL_S)

    def _watch(self) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self._ended.wait(LOOK_S):
                self._try(client, self._look)
                if time.monotonic() >= self._show_at:
                    self._show_at = time.monotonic() + SHOW_S
                    self._try(client, self._show)
            for last in (self._finish_cancel, self._show, self._report):
                self._try(client, last)

    def _try(self, client: SyncPrefectClient, act: Callable[[SyncPrefectClient], None]) -> None:
        """An API that does not answer must not disturb the run."""
        try:
            act(client)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: what is shown is not vital
            logger.debug("the Prefect API was not told of the burst: %s", error)

    def _look(self, client: SyncPrefectClient) -> None:
        state = client.read_flow_run(self._flow_run_id).state
        if not self.cancelled and state and (state.is_cancelling() or state.is_cancelled()):
            self.cancelled = True
            self._on_cancel()

    def _finish_cancel(self, client: SyncPrefectClient) -> None:
        """Who stopped the bodies says so: from Cancelling, the API takes no other end."""
        from prefect.states import Cancelled

        if self.cancelled:
            told: State[None] = Cancelled(message="Its bodies were stopped and its pilots let go.")
            client.set_flow_run_state(self._flow_run_id, told, force=True)

    def _show(self, client: SyncPrefectClient) -> None:
        from prefect.client.schemas.actions import ArtifactUpdate

        text = described(self._tally, Pilots.of(self._cluster.record, self._why()))
        if text == self._shown:
            return
        percent = self._tally.percent
        if self._artifact_id is None:
            self._artifact_id = self._create(client, PROGRESS_KEY, "progress", percent, text)
        else:
            changed = ArtifactUpdate(data=percent, description=text)
            client.update_artifact(self._artifact_id, changed)
        self._shown = text

    def _report(self, client: SyncPrefectClient) -> None:
        text = reported(self._tally, self._cluster.record, str(self._cluster.run_folder))
        self._create(client, REPORT_KEY, "markdown", text, "The pilots of a flow run")

    def _create(
        self, client: SyncPrefectClient, key: str, kind: str, data: Any, description: str
    ) -> UUID:
        from prefect.client.schemas.actions import ArtifactCreate

        made = ArtifactCreate(
            key=key,
            type=kind,
            data=data,
            description=description,
            flow_run_id=self._flow_run_id,
        )
        return client.create_artifact(made).id

    def _why(self) -> list[str]:
        with suppress(RuntimeError, AttributeError):  # the cluster begins, or has ended
            return self._cluster.why()
        return []
