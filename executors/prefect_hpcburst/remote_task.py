"""From a task to its remote twin: the same task for Prefect's engine, with a body that travels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NONE

from hpcburst.bodies import body_of
from hpcburst.errors import BurstError, RequestError
from hpcburst.policy.decide import grant
from hpcburst.programs import digest_of
from hpcburst.tasks import needs_of
from prefect_hpcburst.caching import policy_in_env
from prefect_hpcburst.remote_body import AsyncRemoteBody, Order, Refusal, RemoteBody, stand_ins

if TYPE_CHECKING:
    from prefect import Task

    from hpcburst.tasks import Needs
    from prefect_hpcburst.flight import Flight


def remote_task(task: Task[..., Any], flight: Flight) -> Task[..., Any]:
    """A copy of a task whose body runs on a pilot.

    A task that cannot travel gets a copy that fails with the reason: the others of its flow go on.

    Args:
        task: The task as the user wrote it.
        flight: What carries its runs.
    """
    try:
        return _travelling(task, flight)
    except BurstError as reason:
        return _refused(task, reason)


def _travelling(task: Task[..., Any], flight: Flight) -> Task[..., Any]:
    _check_kind(task)
    needs = needs_of(task)
    grant(needs, flight.cluster.site, flight.cluster.shapes)
    digest = _digest(task, needs)
    policy = policy_in_env(task, lambda: flight.env_key(needs))
    flight.begin_env(needs)
    remote = copy.copy(task)
    remote.fn = (AsyncRemoteBody if task.isasync else RemoteBody)(_order(task, needs, flight))
    remote.timeout_seconds = None  # kept on the pilot, which can stop a blocking body
    remote.source_code = digest  # what TASK_SOURCE hashes
    remote.cache_policy = policy
    return remote


def _digest(task: Task[..., Any], needs: Needs) -> str:
    """Of what runs on the pilot: the body as it travels, or the command that takes its place."""
    if needs.command:
        return digest_of(needs)
    return body_of(task.fn, stand_ins=stand_ins()).digest


def _order(task: Task[..., Any], needs: Needs, flight: Flight) -> Order:
    return Order(
        fn=task.fn,
        needs=needs,
        flight=flight,
        timeout_s=task.timeout_seconds,
        log_prints=task.log_prints is not False,
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
