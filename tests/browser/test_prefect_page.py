"""Prefect's page in a real browser: what a person sees and presses to run and to stop a flow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Page, browser, obstacle
from support.prefect_site import SECRET, PrefectSite
from support.processes import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

RUN_S = 240.0

SQUARES = """
import time
from pathlib import Path
from hpcburst import needs
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect_hpcburst import BurstTaskRunner

@task
@needs(cores=1)
def square(number):
    return number * number

@flow(task_runner=BurstTaskRunner(max_jobs=2), log_prints=True)
def pipeline(count: int = 2):
    total = sum(square.map(range(count)).result())
    create_markdown_artifact(f"# The sum is {total}", key="sum")
    print(f"the sum of {count} squares is {total}")

@flow
def patient():
    Path(__file__).with_name("began").touch()
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectSite]:
    """A server and a worker on the local queue."""
    if reason := obstacle():
        pytest.skip(reason)
    made = PrefectSite(tmp_path_factory.mktemp("site"))
    try:
        made.start_server()
        made.start_worker()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def page(site: PrefectSite) -> Iterator[Page]:
    """A browser that has logged in with the server's secret."""
    with browser() as found:
        found.go(site.page)
        found.await_text("Login")
        found.type_into("input[type=password]", SECRET)
        found.press_enter("input[type=password]")
        found.await_text("Work Pools", "Deployments")
        yield found


def test_the_form_of_the_work_pool_speaks_plainly(site, page):
    """The work pool's form asks for queue, walltime, memory and env in words, with what this
    machine has to choose from."""
    page.go(f"{site.page}/v2/work-pools/work-pool/{site.pool}/edit")
    page.await_text("Queue", "Walltime", "Cores", "Memory", "Environment modules", "Account")
    page.await_text("When the job ends early", "Most pilots", "(local: at most")


def test_a_flow_is_started_from_the_page(site, page):
    """A person opens a deployment, changes a parameter and presses Submit: the flow runs as a job,
    its tasks and its artifact are on the page of the run."""
    deployment = site.deploy(SQUARES, "pipeline", name="nightly", cron="0 3 * * *")
    page.go(f"{site.page}/v2/deployments")
    page.await_text("At 03:00 AM")
    page.press("nightly", "a")
    page.press("Run")
    page.press("Custom run", "[role=menuitem]")
    page.await_text("Parameters", "count")
    page.type_into("input[type=number]", "3")
    page.press_until("Submit", lambda: site.triggered(deployment), "the run that was asked for")
    (run_id,) = site.triggered(deployment)
    page.go(f"{site.page}/v2/runs/flow-run/{run_id}")
    page.await_text("Completed", "3 Task runs", within_s=RUN_S)
    page.await_text("Submitted job", "the sum of 3 squares is 5")
    page.press("Artifacts", "[role=tab]")
    page.await_text("sum")


def test_a_running_flow_is_stopped_by_the_pages_button(site, page):
    """A person presses Cancel on the page of a run: run and job end."""
    deployment = site.deploy(SQUARES, "patient", name="patient")
    run_id = site.trigger(deployment)
    wait_until((site.flows / "began").exists, "the flow's first line", RUN_S)
    page.go(f"{site.page}/v2/runs/flow-run/{run_id}")
    page.await_text("Running", "patient")
    page.press("Open menu")
    page.press("Cancel", "[role=menuitem]")
    page.press("Cancel Flow Run", "[role=alertdialog] button, [role=dialog] button")
    page.await_text("Cancelled", within_s=60)
    job = int(site.read(run_id).infrastructure_pid.split(":")[-1])
    wait_until(lambda: not Path(f"/proc/{job}").exists(), "the end of the job", 60)
