"""A flow stops, lets its pilots go, and goes on with the answer, however it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import dask.config
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.flow_runs import resume_flow_run
from pydantic import BaseModel, Field, model_validator

from hpcburst import needs
from hpcburst_recipes import NoAnswer, Rejected, checkpoint
from hpcburst_recipes.checkpoints.answer import answer
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.desk import checkpoints
from prefect_hpcburst import BurstTaskRunner
from support.processes import wait_until


class Choice(BaseModel):
    """Which threshold should the next stage use?"""

    threshold: float = Field(0.5, ge=0, le=1)
    keep: list[str] = []
    note: str = ""

    @model_validator(mode="after")
    def _odd(self) -> Choice:
        if self.note == "no such luck":
            raise ValueError("the model alone knows why not")
        return self


@task
@needs(cores=1)
def square(x):
    return x * x


@pytest.fixture
def root(tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A shared root of the test's own, in the config; previews are the preview tests' affair."""
    monkeypatch.setattr("hpcburst_recipes.checkpoints.flow.can_render", lambda: False)
    with dask.config.set({"hpcburst.shared-root": str(tmp_path / "shared")}):
        yield tmp_path / "shared"


@contextmanager
def running(pipeline: Callable[..., Any], *args: Any) -> Iterator[Future[Any]]:
    """A flow that runs beside the test."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(pipeline, *args)


def asked(root: Path, future: Future[Any], number: int = 1) -> Checkpoint:
    """The checkpoint the flow stopped at."""

    def there() -> bool:
        if future.done():
            future.result()
            raise AssertionError("the flow did not stop")
        return len(checkpoints(root)) == number

    wait_until(there, "the checkpoint", within_s=40)
    return checkpoints(root)[-1]


def state_of(one: Checkpoint) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(one.question["flow_run"])).state
    return state.name if state else ""


def paused(one: Checkpoint) -> None:
    wait_until(lambda: state_of(one) == "Paused", "the pause")


@flow
def review(**options: Any) -> BaseModel:
    return checkpoint("review-fit", ask=Choice, show={"fit": [1, 2, 3]}, **options)


def test_an_answer_from_python_ends_the_pause(root: Path) -> None:
    """The flow is Paused in Prefect, and goes on with the typed value that was answered."""
    with running(review) as future:
        one = asked(root, future)
        paused(one)
        answer("review-fit", values={"threshold": 0.7}, note="fine")
        choice = future.result(timeout=30)
    assert choice == Choice(threshold=0.7)
    assert state_of(one) == "Completed"


def test_the_form_on_the_prefect_page_answers_too(root: Path) -> None:
    """What is sent by Prefect's own form is an answer like any other, with its way recorded."""
    with running(review) as future:
        one = asked(root, future)
        paused(one)
        flow_run = UUID(one.question["flow_run"])
        with pytest.raises(RuntimeError, match="Cannot resume"):
            resume_flow_run(flow_run, run_input={"checkpoint_answer": "approve", "threshold": 7})
        resume_flow_run(flow_run, run_input={"checkpoint_answer": "approve", "threshold": 0.9})
        choice = future.result(timeout=30)
    assert choice.threshold == 0.9
    assert one.outcome()["via"] == "Prefect page"


def test_an_answer_that_only_the_model_refuses_is_asked_again_and_fails_nothing(
    root: Path,
) -> None:
    """An invalid answer, by form or by file, leaves the flow waiting for a better one."""
    with running(review) as future:
        one = asked(root, future)
        paused(one)
        bad = {"checkpoint_answer": "approve", "note": "no such luck"}
        resume_flow_run(UUID(one.question["flow_run"]), run_input=bad)
        wait_until(lambda: one.round() == 2, "the refusal of the form")
        answer(one.id, values={"note": "no such luck"})
        wait_until(lambda: one.round() == 3, "the refusal of the file")
        assert "the model alone knows" in one.refusals()[0]
        answer(one.id, values={"note": "now"})
        assert future.result(timeout=30).note == "now"


def test_a_rejection_fails_the_flow_with_its_reason(root: Path) -> None:
    """Saying no stops the pipeline, and its state says who said so and why."""
    with running(review) as future:
        one = asked(root, future)
        paused(one)
        answer(one.id, "reject", note="batch effect")
        with pytest.raises(Rejected, match="batch effect"):
            future.result(timeout=30)
    assert state_of(one) == "Failed"


@pytest.mark.parametrize(("on_timeout", "ends"), [("approve", None), ("fail", NoAnswer)])
def test_at_its_deadline_the_flow_does_what_was_said(
    root: Path, on_timeout: str, ends: type[Exception] | None
) -> None:
    """Nobody answers: the flow goes on with the defaults, or fails, as stated; a hook was told."""
    told: list[str] = []

    @flow
    def hasty() -> BaseModel:
        return checkpoint(
            "hasty", Choice, deadline=2, on_timeout=on_timeout, notify=told.append, wait="inline"
        )

    if ends is None:
        assert hasty() == Choice()
    else:
        with pytest.raises(ends):
            hasty()
    assert len(told) == 2
    assert "waits for you: hpcburst checkpoint open " in told[0]
    assert "still waits" in told[1]


def test_a_subflow_waits_for_its_own_answer(root: Path) -> None:
    """A checkpoint in a subflow stops the subflow; "suspend" there is a pause."""

    @flow
    def outer() -> float:
        return review(wait="suspend").threshold

    with running(outer) as future:
        one = asked(root, future)
        paused(one)
        answer(one.id, values={"threshold": 0.1})
        assert future.result(timeout=30) == 0.1


def test_a_flow_that_is_retried_asks_not_again_about_the_same(root: Path) -> None:
    """What was approved stays approved when the flow fails later and runs again."""
    tries: list[float] = []

    @flow(retries=1)
    def shaky() -> float:
        choice = checkpoint("again", Choice, show={"d": 1}, wait="inline")
        tries.append(choice.threshold)
        if len(tries) == 1:
            raise RuntimeError("later")
        return choice.threshold

    with running(shaky) as future:
        answer(asked(root, future).id, values={"threshold": 0.2})
        assert future.result(timeout=30) == 0.2
    assert tries == [0.2, 0.2]
    assert len(checkpoints(root)) == 1


def test_an_equal_question_about_equal_data_can_take_the_answer_of_an_earlier_run(
    root: Path,
) -> None:
    """`reuse=True` asks once for the same data, and again when the data are others."""

    @flow
    def nightly(data: int) -> float:
        show = {"data": data}
        return checkpoint("nightly", Choice, show=show, wait="inline", reuse=True).threshold

    with running(nightly, 1) as future:
        answer(asked(root, future).id, values={"threshold": 0.3})
        assert future.result(timeout=30) == 0.3
    assert nightly(1) == 0.3
    with running(nightly, 2) as future:
        wait_until(lambda: len(checkpoints(root)) == 2, "the second question")
        answer(checkpoints(root)[0].id, values={"threshold": 0.4})
        assert future.result(timeout=30) == 0.4


def test_the_pilots_are_gone_within_15_seconds_while_it_waits(root: Path) -> None:
    """No node is held while a person thinks."""
    held: dict[str, Any] = {}

    @flow(task_runner=BurstTaskRunner(max_jobs=2))
    def pipeline() -> float:
        squares = square.map(range(4)).result()
        from prefect.context import FlowRunContext

        held["cluster"] = FlowRunContext.get().task_runner.cluster
        held["before"] = len(held["cluster"].plan)
        return checkpoint("pilots", Choice, show={"squares": squares}).threshold

    with running(pipeline) as future:
        one = asked(root, future)
        began = time.monotonic()
        wait_until(lambda: not held["cluster"].plan, "the pilots' leave", within_s=15)
        print(f"{held['before']} pilots gone {time.monotonic() - began:.1f} s after the question")
        assert held["before"] > 0
        answer(one.id)
        assert future.result(timeout=40) == 0.5


def test_the_flow_runs_page_says_what_is_asked_and_keeps_what_was_decided(
    root: Path, tmp_path: Path
) -> None:
    """The artifact has question, deadline, default, plot, table and the command to copy."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"<script>x": ["<img src=x onerror=1>", "| b"]})
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"\x89PNG")

    @flow
    def pipeline() -> float:
        show = {"fit": table, "curve": picture}
        options = {"deadline": "2h", "on_timeout": "approve", "preselect": {"threshold": 0.25}}
        return checkpoint("look", Choice, show=show, text="Is <b> it?", **options).threshold

    with running(pipeline) as future:
        one = asked(root, future)
        paused(one)
        text = artifact(one)
        answer(one.id)
        assert future.result(timeout=30) == 0.25
    assert "then it is approved with the defaults" in text
    assert f"```\nhpcburst checkpoint open {one.id}\n```" in text
    assert "data:image/png;base64," in text
    assert "| threshold | 0.25; from 0; to 1 |" in text
    assert "<" not in text
    assert "approve" in artifact(one)
    assert "Record:" in artifact(one)


def artifact(one: Checkpoint) -> str:
    key = ArtifactFilter.model_validate({"key": {"any_": [f"checkpoint-{one.id}"]}})
    with get_client(sync_client=True) as client:
        rows = client.read_artifacts(artifact_filter=key)
    return str(max(rows, key=lambda row: row.created).data)


def test_in_a_task_or_without_prefect_it_waits_in_its_place(root: Path) -> None:
    """The same call works in a task, and in a plain script."""

    @task
    def inner() -> float:
        return checkpoint("inner", Choice).threshold

    @flow
    def pipeline() -> float:
        return inner()

    with running(pipeline) as future:
        answer(asked(root, future).id, values={"threshold": 0.6})
        assert future.result(timeout=30) == 0.6
    with running(lambda: checkpoint("plain", Choice).threshold) as future:
        wait_until(lambda: len(checkpoints(root)) == 2, "the question")
        answer("plain", values={"threshold": 0.8})
        assert future.result(timeout=30) == 0.8


def test_the_record_has_the_decision_and_the_digests(root: Path) -> None:
    """Who, how, when and on which data is kept beside the notebook as it was decided on."""
    with running(review) as future:
        one = asked(root, future)
        answer(one.id, values={"threshold": 0.7}, note="fine")
        future.result(timeout=30)
    record = Path(one.folder, "record")
    content = json.loads((record / "decision.json").read_text())
    assert content["decision"]["values"]["threshold"] == 0.7
    assert content["data_sha256"]["fit"] == one.question["data"]["fit"]["sha256"]
    cells = json.loads((record / "review.ipynb").read_text())["cells"]
    assert "## Decision" in cells[-1]["source"]


SUSPENDING = """
import os
from pathlib import Path
from prefect import flow, task
from pydantic import BaseModel
from hpcburst_recipes import checkpoint

KEPT = Path(os.environ["KEPT"])  # Prefect runs a copy of this file, in a folder that goes

class Choice(BaseModel):
    threshold: float = 0.5

@task(persist_result=True)
def costly():
    with open(KEPT / "computed", "a") as file:
        file.write("x")
    return 41

@flow(persist_result=True)
def pipeline():
    value = costly()
    choice = checkpoint("suspended", Choice, show={"value": value}, wait="suspend")
    (KEPT / "result").write_text(str(choice.threshold))
"""


@pytest.fixture
def execute(tmp_path: Path, root: Path, prefect_api: str) -> Callable[[UUID], str]:
    """Runs a deployed flow run in a process of its own, as a worker does."""
    from prefect import settings

    storage = settings.PREFECT_LOCAL_STORAGE_PATH.value()
    environ = {
        **os.environ,
        "PREFECT_API_URL": prefect_api,
        "PREFECT_LOCAL_STORAGE_PATH": str(storage),
        "DASK_HPCBURST__SHARED_ROOT": str(root),
        "KEPT": str(tmp_path),
    }
    environ.pop("PREFECT_HOME", None)

    def run(flow_run: UUID) -> str:
        argv = [sys.executable, "-m", "prefect", "flow-run", "execute", str(flow_run)]
        done = subprocess.run(
            argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def deployed(folder: Path) -> UUID:
    """A flow run of a deployment, waiting to be run."""
    (folder / "pipeline.py").write_text(SUSPENDING)
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("pipeline")
        deployment = client.create_deployment(
            flow_id, "suspending", path=str(folder), entrypoint="pipeline.py:pipeline"
        )
        return client.create_flow_run_from_deployment(deployment).id


@pytest.mark.parametrize("how", ["file", pytest.param("form", marks=pytest.mark.long)])
def test_a_suspended_flow_ends_its_process_and_comes_back_with_the_answer(
    root: Path, tmp_path: Path, execute: Callable[[UUID], str], how: str
) -> None:
    """While it waits there is no process; then it goes on from persisted results, typed."""
    flow_run = deployed(tmp_path)
    execute(flow_run)
    (one,) = checkpoints(root)
    assert state_of(one) == "Suspended"
    if how == "file":
        assert answer(one.id, values={"threshold": 0.7}).woken
    else:
        resume_flow_run(flow_run, run_input={"checkpoint_answer": "approve", "threshold": 0.7})
    assert state_of(one) == "Resuming"
    said = execute(flow_run)

    assert state_of(one) == "Completed", said
    assert (tmp_path / "result").read_text() == "0.7"
    assert (tmp_path / "computed").read_text() == "x"
    assert [known.id for known in checkpoints(root)] == [one.id]
