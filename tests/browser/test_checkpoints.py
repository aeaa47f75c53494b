"""A person decides in a real browser: in the notebook's panel, by a magic, in Prefect's form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.processes import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

FLOW = """
from pathlib import Path
import pyarrow
from prefect import flow, task
from pydantic import BaseModel, Field
from hpcburst import needs
from hpcburst_recipes import checkpoint
from prefect_hpcburst import BurstTaskRunner

class Choice(BaseModel):
    threshold: float = Field(0.5, ge=0, le=1)
    keep: list[str] = []
    note: str = ""

@task
@needs(cores=1)
def fit(number):
    return number / 10

@flow(task_runner=BurstTaskRunner(max_jobs=1))
def review():
    scores = fit.map(range(10)).result()
    samples = ["a", "b", "<script>alert(1)</script>"]
    bars = "".join(
        f'<rect x="{40 * n}" y="{100 - 100 * s}" width="30" height="{100 * s}" fill="#1565c0"/>'
        for n, s in enumerate(scores)
    )
    Path("curve.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="100">{bars}'
        "<script>alert(2)</script></svg>"
    )
    table = pyarrow.table({"<img src=x onerror=alert(3)>": samples, "score": scores[:3]})
    return checkpoint(
        "review-fit", ask=Choice, text="Which threshold fits <b onclick=alert(4)>best</b>?",
        show={"fit": table, "curve": Path("curve.svg")}, choices={"keep": samples},
        deadline="8h", on_timeout="approve", walltime="30m",
    ).threshold

print(review(), flush=True)
"""


def finished(flow: Any) -> str:
    wait_until(lambda: flow.poll() is not None, "the flow's end", within_s=120)
    assert flow.returncode == 0
    return str(flow.communicate()[0]).strip()


def move_slider(page: Any, to: str) -> None:
    readout = page.locator(".widget-readout").first
    readout.click()
    readout.fill(to)
    readout.press("Enter")


def test_a_person_decides_in_the_notebook_without_running_a_cell(
    place: Any, page: Any, picture: Callable[[str], None]
) -> None:
    """Flow, question on Prefect's page, warm notebook, slider, approve: the flow has the value."""
    flow = place.flow(FLOW)
    waits = place.waiting()
    page.goto(f"{place.server}/runs/flow-run/{waits['flow_run']}")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text(f"checkpoint-{waits['id']}").first.click()
    page.get_by_text(f"hpcburst checkpoint open {waits['id']}").first.wait_for()
    picture("checkpoint-page")

    page.goto(place.open("review-fit"))
    page.locator(".jp-OutputArea-output img").first.wait_for()
    page.get_by_role("button", name="approve").wait_for()
    move_slider(page, "0.72")
    page.get_by_role("button", name="approve").scroll_into_view_if_needed()
    picture("checkpoint-panel")
    page.get_by_role("button", name="approve").click()
    page.get_by_text("the pipeline went on").wait_for()

    assert finished(flow) == "0.72"
    record = Path(waits["folder"], "record", "review.html")
    wait_until(record.exists, "the record", within_s=60)
    page.goto(record.as_uri())
    page.get_by_text("by the notebook").wait_for()
    picture("checkpoint-record")


def test_a_magic_decides_too(place: Any, page: Any) -> None:
    """`%approve threshold=0.31` in a cell is an answer, and a wrong one is one line."""
    flow = place.flow(FLOW)
    place.waiting()
    page.goto(place.open("review-fit"))
    page.get_by_role("button", name="approve").wait_for()
    own = page.locator(".jp-CodeCell").nth(-2).locator(".cm-content")
    tries = {"threshold=3": "not recorded:", "threshold=0.31": "recorded: approve"}
    for words, answer in tries.items():
        own.click()
        page.keyboard.press("Control+A")
        page.keyboard.type(f"%approve {words}")
        page.keyboard.press("Control+Enter")
        page.get_by_text(answer).first.wait_for()
    assert finished(flow) == "0.31"


def test_the_form_on_prefects_page_decides_too(
    place: Any, page: Any, picture: Callable[[str], None]
) -> None:
    """The resume form asks what the model asks, and its answer is the flow's value."""
    flow = place.flow(FLOW)
    waits = place.waiting()
    page.goto(f"{place.server}/runs/flow-run/{waits['flow_run']}")
    page.get_by_role("button", name="Resume").first.click()
    page.get_by_text("Threshold (Optional)").first.wait_for()
    picture("checkpoint-form")
    page.locator(".p-modal input[type=number]").first.fill("0.64")
    page.locator(".p-modal button.p-select-button__control").first.click()
    page.keyboard.press("ArrowDown")
    page.locator(".p-select-option--highlighted", has_text="approve").wait_for()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Submit").click()
    assert finished(flow) == "0.64"
