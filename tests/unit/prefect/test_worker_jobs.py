"""The form of a work pool, the job it asks for, and the ticket that takes secrets to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hpcburst.comms.exports import exports
from hpcburst.errors import RequestError
from hpcburst.jobs.known import DIALECTS
from hpcburst.jobs.local import LocalDialect
from hpcburst.policy.load import load_site
from hpcburst.policy.model import Queue, Site
from prefect_hpcburst.worker.form import JobForm, base_job_template
from prefect_hpcburst.worker.records import FlowRunFolders, JobRecord, Owner
from prefect_hpcburst.worker.submission import Submitter, job_variables
from prefect_hpcburst.worker.tickets import taken_by, taking, tear, write_ticket

values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,12}", fullmatch=True).map(lambda name: f"X_{name}")


@pytest.fixture
def site(shared_root: Path) -> Site:
    """A site with one queue."""
    found = load_site({"shared-root": str(shared_root)})
    queue = Queue("batch", max_cores=8, max_memory_mb=32000, max_walltime_s=7200)
    return replace(found, queues=(queue,))


# -- the form ------------------------------------------------------------------------------------


def test_every_field_of_the_form_is_explained():
    """Each of our fields has a title, a text that helps, and a default that is allowed."""
    variables = base_job_template()["variables"]
    ours = {name: row for name, row in variables["properties"].items() if name != "command"}
    assert next(iter(ours)) == "queue"
    for name, row in ours.items():
        assert row["title"], name
        assert len(row["description"]) > 15, name
    defaults = {name: row["default"] for name, row in ours.items() if "default" in row}
    Draft202012Validator(variables).validate(defaults)


def test_queues_are_those_of_the_site():
    """The form offers the queues that the config states, and no other ones."""
    import dask.config

    stated = {"fast": {"cores": 4, "memory": "8GB", "walltime": "2h"}}
    with dask.config.set({"hpcburst.queues": stated, "hpcburst.scheduler": "slurm"}):
        row = base_job_template()["variables"]["properties"]["queue"]
    assert row["enum"] == ["fast"]
    assert row["default"] == "fast"
    assert "4 cores, 2 h" in row["description"]


@pytest.mark.parametrize("text", ["90", "90s", "5m", "1h30m", "01:30:00", "2-12:00:00", "1.5h"])
def test_the_form_takes_the_walltimes_that_are_understood(text):
    """What the form lets pass is read; the job asks for just that."""
    pattern = base_job_template()["variables"]["properties"]["walltime"]["pattern"]
    assert re.search(pattern, text)
    assert JobForm(walltime=text).shape().walltime_s > 0


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-1h", "1" * 60 + "x"])
def test_the_form_refuses_what_is_no_walltime(text):
    """Nonsense is refused in the form already, and quickly."""
    assert not re.search(
        base_job_template()["variables"]["properties"]["walltime"]["pattern"], text
    )


# -- the job -------------------------------------------------------------------------------------


def dialects(folder: Path):
    return [make() for make in DIALECTS.values()] + [LocalDialect(folder)]


def test_no_secret_is_in_a_job_script(site, tmp_path):
    """On every batch system: what the batch system is given holds no variable of the flow's."""
    form = JobForm(env={"PREFECT_API_KEY": "hush-hush"}, on_early_end="reschedule", walltime="1h")
    for number, dialect in enumerate(dialects(tmp_path)):
        folder = FlowRunFolders.below(tmp_path / "shared").of(f"run-{number}")
        job = Submitter(site, dialect).prepare(form, None, folder)
        given = job.script + (folder / f"{job.ticket.name}.sh").read_text()
        assert "hush-hush" not in given
        assert "hush-hush" in job.ticket.read_text()
        assert job.ticket.stat().st_mode & 0o777 == 0o600
        assert "timeout --foreground --signal=TERM 3540" in given


def test_a_job_asks_for_what_the_form_says(site, tmp_path):
    """Cores, memory, walltime and account of the form are in the job's header."""
    form = JobForm(cores=4, memory="8GB", walltime="90m", account="proj-7")
    folder = FlowRunFolders.below(tmp_path / "shared").of("run")
    script = Submitter(site, DIALECTS["slurm"]()).prepare(form, None, folder).script
    for line in ("--cpus-per-task=4", "--mem=7630M", "-t 1:30:00", "-A proj-7"):
        assert f"#SBATCH {line}" in script


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cores": 99}, "at most 8 cores"),
        ({"queue": "nosuch"}, "no such queue"),
        ({"account": "x\n#SBATCH --uid=0"}, "no name of one"),
        ({"walltime": "soon"}, "not a positive length of time"),
        ({"modules": ["gcc; rm -rf ~"]}, "not a list of module names"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_queued(site, tmp_path, fields, words):
    """A job that no queue takes, and names that are none, are answered at once."""
    folder = FlowRunFolders.below(tmp_path / "shared").of("run")
    submitter = Submitter(site, DIALECTS["slurm"]())
    form = JobForm(**fields)

    def ask() -> None:
        submitter.env_of(form)
        submitter.prepare(form, None, folder)

    with pytest.raises(RequestError, match=words):
        ask()


def test_a_flow_finds_its_server_and_no_other():
    """The job gets the server's address, goes to it past any proxy, and starts none of its own."""
    form = JobForm(env={"PREFECT_API_URL": "http://head:4200/api"}, max_pilots=7)
    found = job_variables(form, {"NO_PROXY": "here", "DASK_CONFIG": "/c", "HOME": "/home/me"})
    assert found["NO_PROXY"] == "here,head"
    assert found["DASK_CONFIG"] == "/c"
    assert found["DASK_HPCBURST__MAX_JOBS"] == "7"
    assert found["PREFECT_SERVER_EPHEMERAL_ENABLED"] == "false"
    assert "HOME" not in found


# -- the ticket ----------------------------------------------------------------------------------


@given(st.dictionaries(names, values, max_size=4))
def test_variables_arrive_as_they_are(variables):
    """Quotes, line breaks, dollars: a variable's value is data to the shell."""
    script = exports(variables) + "\nexec env -0"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, env={})
    rows = dict(row.split("=", 1) for row in done.stdout.decode().split("\0") if "=" in row)
    assert {name: rows[name] for name in variables} == variables


def test_a_name_that_a_shell_would_run_is_refused():
    """A variable's name cannot carry a command."""
    with pytest.raises(RequestError, match="no name of a variable"):
        exports({"A;rm -rf ~": ""})


def test_one_job_alone_takes_a_ticket(tmp_path):
    """Two jobs were queued for one run by mistake: one runs it, the other ends at once; the
    secrets are gone from the disk as soon as they are read."""
    ticket = write_ticket(tmp_path, "", {"TOKEN": "s3cret"}, "")
    text = taking(ticket, "MY_JOB") + f'\nprintf "$TOKEN." >>{tmp_path}/ran'
    assert taken_by(ticket) is None
    for number in ("1", "2"):
        environ = {**os.environ, "MY_JOB": number}
        assert subprocess.run(["/bin/bash", "-c", text], env=environ, check=False).returncode == 0
    assert (tmp_path / "ran").read_text() == "s3cret."
    assert taken_by(ticket) == "1"
    assert not any("s3cret" in p.read_text() for p in tmp_path.iterdir() if p.name != "ran")


def test_a_job_without_its_ticket_does_nothing(tmp_path):
    """A withdrawn job that starts all the same ends at once, and well."""
    ticket = write_ticket(tmp_path, "", {}, "")
    tear(ticket)
    tear(ticket)
    text = taking(ticket, "") + "\nexit 7"
    assert subprocess.run(["/bin/bash", "-c", text], check=False).returncode == 0


# -- what is kept --------------------------------------------------------------------------------


def record_of(folders: FlowRunFolders, run_id: str, owner: Owner) -> JobRecord:
    folder = folders.of(run_id)
    return JobRecord(
        flow_run_id=run_id,
        pool="sci",
        scheduler="slurm",
        host="head",
        folder=str(folder),
        ticket=str(folder / "secret" / "ticket"),
        walltime_s=60.0,
        on_early_end="crash",
        max_jobs=5,
        owner=owner,
        job_id="12",
    )


def test_only_jobs_of_dead_workers_are_adopted(tmp_path):
    """A worker that starts takes over what a dead one left in its pool, and nothing else."""
    folders = FlowRunFolders.below(tmp_path / "shared")
    here = Owner.here()
    dead = replace(here, started="1")
    for run_id, owner in (("alive", here), ("dead", dead), ("over", dead)):
        record_of(folders, run_id, owner).save()
    replace(record_of(folders, "other", dead), pool="other").save()
    record_of(folders, "over", dead).forget()
    (folders.of("broken") / "job.json").write_text("{")
    adopted = list(folders.orphans("sci"))
    assert [record.flow_run_id for record in adopted] == ["dead"]
    assert adopted[0].owner == here
    assert list(folders.orphans("sci")) == []


def test_old_folders_go_and_live_ones_stay(tmp_path):
    """Logs of runs that are over are kept for as long as the site says; those of jobs for ever."""
    folders = FlowRunFolders.below(tmp_path / "shared")
    record_of(folders, "lives", Owner.here()).save()
    for name in ("lives", "old"):
        for path in (*folders.of(name).rglob("*"), folders.of(name)):
            os.utime(path, (1, 1))
    folders.of("young")
    folders.sweep(keep_days=10)
    left = {path.name for path in folders.root.iterdir()}
    assert {"lives", "young"} <= left
    assert "old" not in left


def test_a_template_survives_the_way_to_the_server():
    """The template is plain JSON."""
    template = base_job_template()
    assert json.loads(json.dumps(template)) == template
