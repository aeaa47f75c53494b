"""`checkpoint(...)`: the call in a flow. It asks, lets the pilots go, waits, and goes on typed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from pydantic import BaseModel

from hpcburst.amounts import read_walltime_s
from hpcburst.errors import BurstError, RequestError
from hpcburst.policy.load import load_site
from hpcburst.policy.model import Site
from hpcburst.tasks import Env
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.bundle import Origin, inputs_of, make_bundle
from hpcburst_recipes.checkpoints.decision import Decision, value_of
from hpcburst_recipes.checkpoints.desk import checkpoints
from hpcburst_recipes.checkpoints.notebook import write_notebook
from hpcburst_recipes.checkpoints.page import announce, announce_decision
from hpcburst_recipes.checkpoints.preview import can_render, render_preview
from hpcburst_recipes.checkpoints.question import KEEP_WAITING, Choices, Question, question
from hpcburst_recipes.checkpoints.record import keep_record
from hpcburst_recipes.checkpoints.waiting import (
    Notify,
    Wait,
    wait_here,
    wait_paused,
    wait_suspended,
)
from hpcburst_recipes.jupyter.kernels import Home, home_of
from prefect_hpcburst import BurstTaskRunner

if TYPE_CHECKING:
    from prefect.logging.loggers import LoggingAdapter

Model = TypeVar("Model", bound=BaseModel)

WAYS = ("pause", "suspend", "inline")

_calls: dict[tuple[str, int, str], int] = {}
"""How often a run of a flow has asked by a name: a process that comes back counts the same."""


def checkpoint(  # noqa: PLR0913 - the words of the call are its documentation
    name: str,
    ask: type[Model] | None = None,
    *,
    show: Mapping[str, Any] | None = None,
    text: str = "",
    choices: Choices | None = None,
    preselect: Mapping[str, Any] | None = None,
    env: str | Path | None = None,
    notebook: str | Path | None = None,
    wait: Literal["pause", "suspend", "inline"] = "pause",
    deadline: float | str | None = None,
    on_timeout: str = KEEP_WAITING,
    walltime: float | str = "1h",
    cores: int = 1,
    memory: float | str | None = None,
    reuse: bool = False,
    notify: Notify | None = None,
) -> Model:
    """Stop here, show what there is, and go on with a person's decision.

    The pilots of the flow's task runner leave first. In an async flow call it by
    `await asyncio.to_thread(checkpoint, ...)`.

    Args:
        name: Name of the checkpoint.
        ask: Pydantic model of the answer; None asks for yes or no.
        show: What the person sees, by name: tables, arrays, figures, plain data, paths of files.
        text: The question in words; default: the model's docstring.
        choices: By field, the values to choose from, or each with what speaks for it.
        preselect: Values chosen beforehand.
        env: Env that the notebook runs in; default: the flow's own Python.
        notebook: A notebook to use; default: one with a cell for everything shown.
        wait: "pause": the process stays. "suspend": it ends, and the flow run begins anew with its
            persisted results when there is an answer (needs a deployment; in a subflow it pauses).
            "inline": the process stays and Prefect's state stays Running; always so in tasks.
        deadline: Time until `on_timeout` happens.
        on_timeout: "keep-waiting", "approve" (with the defaults), "reject" or "fail".
        walltime: Walltime of a session that looks at it.
        cores: Cores of a session.
        memory: Memory of a session.
        reuse: Take the answer that was given to an equal question about equal data before.
        notify: Called with a text when it waits, and at half time: send a mail, for example. The
            text has neither data nor secrets in it.

    Returns:
        The answer: an instance of `ask`.

    Raises:
        Rejected: The answer was no.
        NoAnswer: The deadline passed, and `on_timeout` is "fail".
        RequestError: The question cannot be asked so, or something cannot be shown.
    """
    if wait not in WAYS:
        raise RequestError(f"wait={wait!r} was asked for", f"it is one of: {', '.join(WAYS)}")
    seconds = None if deadline is None else read_walltime_s(deadline)
    asked = question(
        name,
        ask,
        text=text,
        choices=choices,
        preselect=preselect,
        deadline_s=seconds,
        on_timeout=on_timeout,
    )
    session = {"walltime": str(walltime), "cores": cores}
    if memory is not None:
        session["memory"] = str(memory)
    here = _Here.find(wait)
    here.let_pilots_go()
    look = _Look(env, None if notebook is None else Path(notebook), session, reuse)
    one = _checkpoint(here, asked, show or {}, look)
    return cast("Model", value_of(one, here.decide(Wait(one, asked, here.logger, notify))))


@dataclass(frozen=True, slots=True)
class _Look:
    """How the checkpoint is to be looked at."""

    env: str | Path | None
    notebook: Path | None
    session: Mapping[str, Any]
    reuse: bool


@dataclass(frozen=True, slots=True)
class _Here:
    """Where the call is: in a flow run or not, and how it can wait there."""

    logger: logging.Logger | LoggingAdapter
    way: str = "inline"
    flow_run: UUID | None = None
    runner: Any = None
    attempt: int = 0

    @classmethod
    def find(cls, way: str) -> _Here:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return cls(logging.getLogger("hpcburst"))
        logger, run = get_run_logger(), context.flow_run
        if TaskRunContext.get() is not None:
            way = "inline"  # a task run cannot be paused
        elif way == "suspend" and (run.parent_task_run_id or not run.deployment_id):
            what = "a subflow" if run.parent_task_run_id else "a flow without a deployment"
            logger.warning("Prefect does not suspend %s: its process waits instead", what)
            way = "pause"
        return cls(logger, way, run.id, context.task_runner, run.run_count)

    def let_pilots_go(self) -> None:
        """Have the pilots of the flow leave: nothing runs while a person looks."""
        if isinstance(self.runner, BurstTaskRunner):
            self.runner.scale_to_zero()

    def call_of(self, name: str) -> int:
        """Which call by this name this is, in this run of the flow."""
        if self.flow_run is None:
            return 0
        key = (str(self.flow_run), self.attempt, name)
        _calls[key] = _calls.get(key, 0) + 1
        return _calls[key]

    def decide(self, wait: Wait) -> Decision:
        """Wait for the decision, and keep its record."""
        decision = self._wait(wait)
        record = keep_record(wait.checkpoint)
        if self.flow_run is not None:
            announce_decision(wait.checkpoint, record)
        who = f"{decision.who} ({decision.via})"
        self.logger.info("Checkpoint %s: %s by %s", wait.asked.name, decision.action, who)
        return decision

    def _wait(self, wait: Wait) -> Decision:
        if self.flow_run is not None and self.way == "pause":
            return wait_paused(wait, self.flow_run)
        if self.flow_run is not None and self.way == "suspend":
            return wait_suspended(wait)
        return wait_here(wait)


def _checkpoint(here: _Here, asked: Question, show: Mapping[str, Any], look: _Look) -> Checkpoint:
    """The checkpoint of this call: that of an earlier process, an equal one, or a new one."""
    site = load_site()
    root, call = site.paths.shared_root, here.call_of(asked.name)
    mine = [one for one in checkpoints(root) if _is_of_call(one, here, asked.name, call)]
    if mine and here.way == "suspend":
        return mine[-1]  # what it shows need not come out the same, bit by bit, a second time
    env = _env(site, look.env)
    origin = Origin(
        flow_run=str(here.flow_run or ""),
        call=call,
        suspended=here.way == "suspend",
        env=str(look.env or ""),
        env_key=env.key if env else "",
        kernel_env=asdict(env) if env else None,
        session=look.session,
    )
    fresh = make_bundle(root, asked, show, origin=origin)
    equals = mine + ([one for one in checkpoints(root) if _approved(one)] if look.reuse else [])
    for known in equals:
        if inputs_of(known) == inputs_of(fresh) and known.id != fresh.id:
            shutil.rmtree(fresh.folder)
            return known
    _prepare(here, fresh, look, home_of(env, root))
    return fresh


def _prepare(here: _Here, one: Checkpoint, look: _Look, home: Home) -> None:
    """Lay out the notebook, draw its page while the pilots leave, and say so in Prefect."""
    write_notebook(one, look.notebook)
    if can_render():
        try:
            render_preview(one, home)
        except BurstError as error:
            here.logger.warning("%s", error)
    if here.flow_run is not None:
        announce(one)
    asks = f"Checkpoint {one.question['name']} waits for you: hpcburst checkpoint open {one.id}"
    here.logger.info("%s", asks)


def _is_of_call(one: Checkpoint, here: _Here, name: str, call: int) -> bool:
    """Whether this is what the same call asked before; a rejected one is asked again."""
    question = one.question
    same = (question["flow_run"], question["name"], question["call"]) == (
        str(here.flow_run or ""),
        name,
        call,
    )
    outcome = one.outcome()
    return same and call > 0 and (outcome is None or outcome["action"] == "approve")


def _approved(one: Checkpoint) -> bool:
    outcome = one.outcome()
    return outcome is not None and outcome["action"] == "approve"


def _env(site: Site, wanted: str | Path | None) -> Env | None:
    """The env, built where every node sees it."""
    if wanted is None:
        return None
    from hpcburst.envs.store import EnvStore

    shared = replace(site, envs=replace(site.envs, place="shared"))
    return EnvStore.of_site(shared).ensure(wanted)
