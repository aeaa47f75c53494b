"""Prefect as the watch sees it: asked for all runs at once, told what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_hpcburst.worker.verdict import RunNews, Verdict
from prefect_hpcburst.worker.watch import Unreachable

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

ASKED_AT_ONCE = 200
"""Flow runs that the server tells of in one answer."""


class PrefectApi:
    """Implements `watch.Prefect`.

    Args:
        client: The worker's client.
        logger_of: The logger whose lines land in a flow run's log.
    """

    def __init__(self, client: PrefectClient, logger_of: Callable[[FlowRun], Any]) -> None:
        self._client = client
        self._logger_of = logger_of
        self._seen: dict[str, FlowRun] = {}

    def know(self, flow_run: FlowRun) -> None:
        """From now on `tell` writes into this run's log."""
        self._seen[str(flow_run.id)] = flow_run

    async def news(self, flow_run_ids: Sequence[str]) -> Mapping[str, RunNews]:
        """What is known of these flow runs; those that are gone are left out.

        Raises:
            Unreachable: Prefect does not answer.
        """
        found: dict[str, FlowRun] = {}
        for first in range(0, len(flow_run_ids), ASKED_AT_ONCE):
            ids = flow_run_ids[first : first + ASKED_AT_ONCE]
            found |= {str(run.id): run for run in await self._read(ids)}
        kept = {run_id: run for run_id, run in self._seen.items() if run_id in flow_run_ids}
        self._seen = kept | found
        return {run_id: _news_of(run) for run_id, run in found.items()}

    async def say(self, flow_run_id: str, verdict: Verdict) -> None:
        """Give a flow run the state of a verdict; one that is gone needs none.

        Raises:
            Unreachable: Prefect does not answer.
        """
        from prefect.client.schemas.responses import SetStateStatus
        from prefect.states import AwaitingRetry, Cancelled, Crashed

        made = {"crashed": Crashed, "cancelled": Cancelled, "reschedule": AwaitingRetry}
        state: State[Any] = made[verdict.state](message=verdict.message)
        status = await self._set(flow_run_id, state, force=verdict.force)
        if verdict.state == "reschedule" and status is not SetStateStatus.ACCEPT:
            # A run without a deployment cannot come back.
            await self._set(flow_run_id, Crashed(message=verdict.message), force=False)
        self.tell(flow_run_id, verdict.message)

    async def renew(self, lease: str, seconds: float) -> None:
        """Hold a concurrency slot for so long from now on; one that is gone is gone.

        Raises:
            Unreachable: Prefect does not answer.
        """
        await _answered(self._client.renew_concurrency_lease(UUID(lease), seconds))

    def tell(self, flow_run_id: str, text: str) -> None:
        """Write a line into a flow run's log."""
        run = self._seen.get(flow_run_id)
        if run is not None:
            self._logger_of(run).info(text)

    async def _read(self, flow_run_ids: Sequence[str]) -> list[FlowRun]:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(each) for each in flow_run_ids]))
        return await _answered(self._client.read_flow_runs(flow_run_filter=chosen)) or []

    async def _set(self, flow_run_id: str, state: State[Any], *, force: bool) -> Any:
        answer = await _answered(
            self._client.set_flow_run_state(UUID(flow_run_id), state, force=force)
        )
        return answer.status if answer else None


async def _answered(question: Any) -> Any:
    """The answer; None when what is asked about is gone.

    Raises:
        Unreachable: There is none.
    """
    import httpx
    from prefect.exceptions import ObjectNotFound

    try:
        return await question
    except ObjectNotFound:
        return None
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (404, 410):
            return None
        raise Unreachable(str(error)) from error
    except httpx.HTTPError as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error


def _news_of(run: FlowRun) -> RunNews:
    if run.state is None:
        return RunNews("PENDING")
    details = run.state.state_details
    lease = getattr(details, "deployment_concurrency_lease_id", None)
    return RunNews(
        state=run.state.type.value,
        message=run.state.message or "",
        leaves=bool(details.pause_reschedule),
        starts=run.run_count,
        lease=str(lease or ""),
    )
