"""How a flow waits for its decision: its process stays, or ends and comes again.

While the process stays, a listener looks for answers that come by file and ends Prefect's pause
when there is one; an answer by Prefect's form ends it by itself, and becomes such a file first.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from httpx import TransportError
from prefect.exceptions import Abort, ObjectNotFound
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.states import Running, Scheduled
from pydantic import ValidationError

from hpcburst_recipes.checkpoints.answering import AlreadyAnswered, Checkpoint, InvalidAnswer
from hpcburst_recipes.checkpoints.decision import Decision, answer_when_due, take
from hpcburst_recipes.checkpoints.page import form, values_of
from hpcburst_recipes.checkpoints.question import Question

if TYPE_CHECKING:
    from prefect.logging.loggers import LoggingAdapter

Notify = Callable[[str], object]

LOOK_FIRST_S, LOOK_AT_LAST_S = 0.1, 2.0
"""Seconds between two looks for an answer: inotify does not see what other nodes write."""

ASK_SERVER_S = 2
"""Seconds between two questions to Prefect's server whether its form was sent."""

FOR_EVER_S = 10 * 365 * 86400
"""Prefect's pauses end; ours end when the checkpoint's deadline says so."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What waiting needs to know.

    Attributes:
        checkpoint: The bundle.
        asked: The question.
        logger: The flow run's.
        notify: Told once more at half time.
    """

    checkpoint: Checkpoint
    asked: Question
    logger: logging.Logger | LoggingAdapter
    notify: Notify | None = None


def wait_here(wait: Wait) -> Decision:
    """Look for an answer until there is one that counts."""
    decision = _look_out(wait, threading.Event())
    if decision is None:
        raise RuntimeError("this wait has no other end")
    return decision


def wait_paused(wait: Wait, flow_run: UUID) -> Decision:
    """Pause the flow run, its process waiting; the form on its page answers too."""

    def ask(kind: type[RunInput], key: str) -> Any:
        try:
            with _listening(wait, flow_run):
                return pause_flow_run(
                    wait_for_input=kind, timeout=FOR_EVER_S, poll_interval=ASK_SERVER_S, key=key
                )
        except TransportError as error:
            wait.logger.warning("Prefect's server is away; its form is not heard: %s", error)
        wait_here(wait)
        _listen(wait, flow_run, threading.Event())  # ends the pause as soon as the server is back
        return None

    return _ask_until_decided(wait, ask)


def wait_suspended(wait: Wait) -> Decision:
    """Suspend the flow run: this process ends here, and another one comes back to this line."""

    def ask(kind: type[RunInput], key: str) -> Any:
        return suspend_flow_run(wait_for_input=kind, key=key)

    return _ask_until_decided(wait, ask)


def wake_flow(checkpoint: Checkpoint) -> bool:
    """Have a suspended flow run begin again, since it has its answer; whether it was suspended.

    Raises:
        Exception: Prefect's server does not answer.
    """
    from prefect.client.orchestration import get_client

    if not (checkpoint.question["suspended"] and checkpoint.question["flow_run"]):
        return False
    flow_run = UUID(checkpoint.question["flow_run"])
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        state = client.read_flow_run(flow_run).state
        if state is not None and state.is_paused():
            client.set_flow_run_state(flow_run, Scheduled(name="Resuming"))
            return True
    return False


def _look_out(wait: Wait, stop: threading.Event) -> Decision | None:
    """Look for an answer; None when `stop` was set before there is one."""
    reminder = _Reminder(wait)
    pause_s = LOOK_FIRST_S
    while True:
        answer_when_due(wait.checkpoint)
        decision = take(wait.checkpoint, wait.asked)
        if decision is not None or stop.wait(pause_s):
            return decision
        reminder.look()
        pause_s = min(pause_s * 1.2, LOOK_AT_LAST_S)


def _ask_until_decided(wait: Wait, ask: Callable[[type[RunInput], str], Any]) -> Decision:
    """Ask by Prefect's means, again and again with fresh keys, until an answer stands."""
    attempt = 0
    while True:
        answer_when_due(wait.checkpoint)
        decision = take(wait.checkpoint, wait.asked)
        if decision is not None:
            return decision
        key = f"{wait.checkpoint.id}-{wait.checkpoint.round()}-{attempt}"
        attempt += 1
        # A form that was never filled in cannot be read: then a file ended the pause, or this
        # pause belongs to a process that died.
        with suppress(ValidationError):
            _record(wait, ask(form(wait.asked, wait.checkpoint), key))


def _record(wait: Wait, given: RunInput | None) -> None:
    if given is None:
        return
    action, values, why = values_of(given)
    try:
        wait.checkpoint.decide(action, values, via="Prefect page", note=why)
    except AlreadyAnswered as error:
        wait.logger.warning("The form came second: %s", error)
    except InvalidAnswer as error:
        number = wait.checkpoint.round()
        wait.checkpoint.refuse(number, str(error))


@contextmanager
def _listening(wait: Wait, flow_run: UUID) -> Iterator[None]:
    """Have a thread end the pause when an answer comes by file."""
    stop = threading.Event()
    context = contextvars.copy_context()  # Prefect's settings are in it
    thread = threading.Thread(
        target=context.run, args=(_listen, wait, flow_run, stop), name="checkpoint", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _listen(wait: Wait, flow_run: UUID, stop: threading.Event) -> None:
    from prefect.client.orchestration import get_client

    if _look_out(wait, stop) is None:
        return
    while not stop.is_set():
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(flow_run).state
                if state is not None and state.is_paused():
                    client.set_flow_run_state(flow_run, Running())
                    return
        except Abort:
            return
        except Exception as error:  # noqa: BLE001 - a server that is away for a while comes back
            wait.logger.warning("The answer is there; Prefect's server is not: %s", error)
        stop.wait(LOOK_AT_LAST_S)


class _Reminder:
    """Tells that a checkpoint waits, and once more at half time."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._told = wait.notify is None
        _tell(wait, "waits for you")

    def look(self) -> None:
        deadline = self._wait.checkpoint.deadline()
        created = float(self._wait.checkpoint.question["created"])
        if self._told or deadline is None or time.time() < (created + deadline) / 2:
            return
        self._told = True
        _tell(self._wait, "still waits for you")


def _tell(wait: Wait, what: str) -> None:
    """Call the flow's hook; its failure is a line in the log."""
    if wait.notify is None:
        return
    one = wait.checkpoint
    text = f"Checkpoint {one.question['name']} {what}: hpcburst checkpoint open {one.id}"
    try:
        wait.notify(text)
    except Exception as error:  # noqa: BLE001 - a mail that cannot be sent stops no flow
        wait.logger.warning("The checkpoint's hook failed: %s", error)
