"""From a task to its remote twin: the same task for Prefect's engine, with a body that travels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NONE

from hpcburst.bodies import body_of
from hpcburst.errors import BurstError, RequestError
from hpcburst.policy.decide import grant
from hpcburst.policy.growth import largest_needs
from hpcburst.programs import digest_of
from prefect_hpcburst.asking import needs_for, travelling
from prefect_hpcburst.caching import policy_in_env
from prefect_hpcburst.growing import Growth, let_grow
from prefect_hpcburst.remote_body import AsyncRemoteBody, Order, Refusal, RemoteBody, stand_ins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect import Task

    from hpcburst.tasks import Needs
    from prefect_hpcburst.flight import Flight


def remote_task(
    task: Task[..., Any], flight: Flight, by_name: Mapping[str, Mapping[str, Any]]
) -> Task[..., Any]:
    """A copy of a task whose body runs on a pilot.

    A task that cannot travel gets a copy that fails with the reason: the others of its flow go on.

    Args:
        task: The task as the user wrote it.
        flight: What carries its runs.
        by_name: What the runner was told of the needs of tasks, by their names.
    """
    try:
        return _travelling(task, needs_for(task, by_name), flight)
    except BurstError as reason:
        return _refused(task, reason)


def _travelling(task: Task[..., Any], needs: Needs, flight: Flight) -> Task[..., Any]:
    _check_kind(task)
    grant(largest_needs(needs), flight.cluster.site, flight.cluster.shapes)
    digest = _digest(task, needs)
    policy = policy_in_env(task, lambda: flight.env_key(needs))
    flight.begin_env(needs)
    order = _order(task, needs, flight)
    remote = copy.copy(task)
    remote.fn = (AsyncRemoteBody if task.isasync else RemoteBody)(order)
    let_grow(remote, order.growth, needs)
    remote.timeout_seconds = None  # kept on the pilot, which can stop a blocking body
    remote.source_code = digest  # what TASK_SOURCE hashes
    remote.cache_policy = policy
    return remote


def _digest(task: Task[..., Any], needs: Needs) -> str:
    """Of what runs on the pilot: the body as it travels, or the command that takes its place."""
    if needs.command:
        return digest_of(needs)
    return body_of(travelling(task.fn), stand_ins=stand_ins()).digest


def _order(task: Task[..., Any], needs: Needs, flight: Flight) -> Order:
    return Order(
        fn=travelling(task.fn),
        needs=needs,
        growth=Growth(needs, task.timeout_seconds),
        flight=flight,
        timeout_s=task.timeout_seconds,
        log_prints=task.log_prints is not False,
        value_comes_home=bool(needs.command or task.on_completion_hooks or task.on_commit_hooks),
    )


def _check_kind(task: Task[..., Any]) -> None:
    if task.isgenerator:
        raise RequestError(
            f"Task {task.name!r} was submitted to a BurstTaskRunner",
            "it is a generator, and a generator cannot be left half-way on a pilot",
            "return a list, or submit it with another task runner",
        )


def _refused(task: Task[..., Any], reason: BurstError) -> Task[..., Any]:
    remote = copy.copy(task)
    remote.fn = Refusal(task.fn, reason)
    remote.isasync = remote.isgenerator = False
    remote.retries = 0  # it would be refused again
    remote.cache_policy = NONE
    return remote
