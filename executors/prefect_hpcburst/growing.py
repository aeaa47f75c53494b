"""Retries that grow: a task that ran out of memory or time asks for more of that at its next try.

A step costs none of the user's retries, and no other failure takes one.
"""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any

from hpcburst.policy.growth import next_needs, step_count
from hpcburst.results import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

    from hpcburst.results import Failure
    from hpcburst.tasks import Needs


class Growth:
    """What the runs of one task ask for at their next try. Threads may use it at the same time.

    Args:
        needs: What every run asks for first.
        timeout_s: Seconds a body may run by Prefect's `timeout_seconds`: what that stopped does
            not get a longer walltime.
    """

    def __init__(self, needs: Needs, timeout_s: float | None = None) -> None:
        self._needs = needs
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._grown: dict[UUID | None, Needs] = {}
        self._due: set[UUID | None] = set()

    def needs(self, run_id: UUID | None) -> Needs:
        """What a run asks for at this try."""
        with self._lock:
            self._due.discard(run_id)
            return self._grown.get(run_id, self._needs)

    def note(self, run_id: UUID | None, failure: Failure) -> Needs | None:
        """Note how a try failed; returns what the next one asks for, if it is more."""
        now = self._grown.get(run_id, self._needs)
        if failure.fault is Fault.TIMEOUT and not self._by_walltime(now):
            return None
        larger = next_needs(now, failure)
        if larger is not None:
            with self._lock:
                self._grown[run_id] = larger
                self._due.add(run_id)
        return larger

    def is_due(self, run_id: UUID) -> bool:
        """Whether the try that failed last is to be made again with more."""
        return run_id in self._due

    def steps_taken(self, run_id: UUID) -> int:
        """How often a run has grown."""
        return step_count(self._needs) - step_count(self._grown.get(run_id, self._needs))

    def _by_walltime(self, needs: Needs) -> bool:
        limit_s = self._timeout_s
        return needs.walltime_s is not None and (limit_s is None or needs.walltime_s <= limit_s)


def let_grow(remote: Task[..., Any], growth: Growth, needs: Needs) -> None:
    """Let Prefect try a task again for every step, beside the user's own retries.

    Args:
        remote: The task; its retries and their condition are changed.
        growth: Knows which failures take a step.
        needs: What it asks for first.
    """
    steps = step_count(needs)
    if steps:
        remote.retry_condition_fn = _condition(growth, remote.retries, remote.retry_condition_fn)
        remote.retries += steps


def _condition(growth: Growth, retries: int, of_user: Any) -> Callable[..., Any]:
    """Whether to try again: always when a step was taken, else as often as the user said."""

    def used_up(run: TaskRun) -> bool:
        return run.run_count - growth.steps_taken(run.id) > retries

    def again(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
        if growth.is_due(run.id):
            return True
        return not used_up(run) and bool(of_user is None or of_user(task, run, state))

    async def again_asking(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
        if growth.is_due(run.id):
            return True
        return not used_up(run) and bool(await of_user(task, run, state))

    return again_asking if inspect.iscoroutinefunction(of_user) else again
