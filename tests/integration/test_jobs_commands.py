"""`hpcburst jobs` and `hpcburst plan`, and how a cluster looks: told by and of real runs."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess

import dask.config
import pytest

from hpcburst import BurstCluster
from hpcburst.cli.main import main
from hpcburst.comms.staging import OWNER_FILE, RunFolder, process_started_at
from hpcburst.jobs import probe
from hpcburst.jobs.local import LocalDialect
from hpcburst.placement import ONE_NODE
from hpcburst.policy.load import load_site
from hpcburst.pools.own_jobs import OwnJobs
from hpcburst.pools.state import JobNow, RunNow, Stage
from hpcburst.pools.telling import FILE, Teller, read_state
from hpcburst.tasks import Burst, Command, Needs, Shape
from support.processes import wait_until

WAIT_S = 90.0
"""For what takes two seconds on a quiet machine."""

QUEUES = {"local": {"cores": 4, "memory": "8GB", "walltime": "1h", "total-cores": 4}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the module's runs; commands of this module look here."""
    folder = tmp_path_factory.mktemp("jobs")
    roots = {"shared-root": str(folder / "shared"), "node-root": str(folder / "node")}
    site = {**roots, "queues": QUEUES, "pilot": {"memory": "1GB"}, "idle-timeout": "5m"}
    with dask.config.set({"hpcburst": site}):
        yield folder


@pytest.fixture(scope="module")
def cluster(folder):
    """One pilot of one core, with a long task on it and one that waits."""
    shape = {"cores": 1, "memory": "1GB"}
    with BurstCluster(shapes=[shape], max_jobs=1, budget=9, name="mine") as cluster:
        work = Command(("sleep", "600"), "/", dict(os.environ))
        futures = [cluster.launch(Burst("long", work, Needs())) for _ in range(2)]
        wait_until(lambda: cluster.now().running == 1, "the first task at work", WAIT_S)
        yield cluster
        for future in futures:
            future.cancel()


@pytest.fixture
def said(capsys, folder):
    """Runs a command; its exit status and what it printed."""

    def run(*argv):
        capsys.readouterr()
        status = main(argv)
        return status, capsys.readouterr().out

    return run


def _stages(cluster):
    """Where the jobs are in their life, as other processes read it."""
    told = read_state(cluster.run_folder)
    return [job.stage for job in told.jobs] if told else None


# -- live runs -------------------------------------------------------------------------------


def test_another_process_reads_what_a_run_is_doing(cluster, said):
    """`jobs list` tells of a run that goes on: its driver, its tasks and its jobs."""
    wait_until(lambda: _stages(cluster) == [Stage.BUSY], "the news", WAIT_S)
    status, out = said("jobs", "list", "--json")
    (run,) = json.loads(out)
    assert status == 0
    assert (run["standing"], run["driver"]["pid"]) == ("live", os.getpid())
    assert (run["state"]["waiting"], run["state"]["done"]) == (1, 0)
    assert run["state"]["jobs"][0]["tasks"] == 1
    _, table = said("jobs", "list")
    assert cluster.run_folder.name in table
    assert "1 busy" in table


def test_why_names_a_reason_for_all_that_waits(cluster, said):
    """`jobs why` has a reason for what waits, and says what comes next."""
    status, out = said("jobs", "why", cluster.run_folder.name[-6:])
    assert status == 0
    assert "1 task running in 1 job." in out
    assert "max-jobs" in out
    assert "it takes no more tasks in" in out
    assert "of 9 core-hours spent" in out


def test_a_run_that_is_not_there_is_answered_with_those_that_are(cluster, capsys):
    """A wrong name is an answer."""
    assert main(["jobs", "why", "nonsense"]) == 1
    assert cluster.run_folder.name in capsys.readouterr().err


def test_a_living_run_is_never_cleaned(cluster, said, capsys):
    """`jobs clean` leaves alone what somebody looks after, even when it is named."""
    status, out = said("jobs", "clean")
    assert (status, "nothing was left" in out) == (0, True)
    assert main(["jobs", "clean", cluster.run_folder.name]) == 1
    assert "alive" in capsys.readouterr().err
    assert cluster.now().running == 1


# -- dead drivers ----------------------------------------------------------------------------


@pytest.fixture
def lost(folder):
    """A run whose driver died and left a running job, credentials and a log."""
    run = RunFolder.make(folder / "shared")
    spool = run.secret / "spool"
    spool.mkdir(mode=0o700)
    script = run.secret / "job.sh"
    text = "#!/bin/sh\n#LOCALQ walltime=600\nexec sleep 600\n"
    script.write_text(text)
    dialect = LocalDialect(spool)
    job_id = asyncio.run(probe.submit(dialect, str(script), text))
    job = JobNow("pilot-1", job_id, Shape(), Stage.PENDING, 0.0, "", 0, "Priority", "it starts")
    Teller(run.path, lambda: None).tell(RunNow(run.path.name, "local", 0.0, jobs=(job,)))
    with subprocess.Popen(["true"]) as gone:
        pass
    owner = json.loads((run.path / OWNER_FILE).read_text())
    (run.path / OWNER_FILE).write_text(json.dumps({**owner, "pid": gone.pid, "started": "1"}))
    yield run, dialect, job_id
    if spool.is_dir():
        asyncio.run(probe.cancel(dialect, [job_id]))
    shutil.rmtree(run.path, ignore_errors=True)


def _is_alive(job_id):
    return bool(process_started_at(int(job_id)))


def test_what_a_dead_driver_left_is_cleaned(lost, said):
    """Its jobs end, its credentials go, its log stays; a second time there is nothing to do."""
    run, _, job_id = lost
    (run.logs / "1.log").write_text("what happened\n")
    status, out = said("jobs", "why", run.path.name)
    assert "lost" in out
    assert "jobs clean" in out
    status, out = said("jobs", "clean", "--dry-run", "--json")
    (row,) = json.loads(out)["runs"]
    assert (row["run"], row["jobs"], row["secrets"]) == (run.path.name, [job_id], True)
    assert _is_alive(job_id)
    status, out = said("jobs", "clean")
    assert status == 0
    assert f"1 job ended ({job_id}), credentials removed" in out
    assert not _is_alive(job_id)
    assert not run.secret.exists()
    assert (run.logs / "1.log").exists()
    assert "nothing was left" in said("jobs", "clean")[1]


def test_the_folder_of_a_lost_run_goes_when_that_is_said(lost, said):
    """`--folders` removes records and logs as well."""
    run, _, job_id = lost
    assert said("jobs", "clean", run.path.name, "--folders")[0] == 0
    assert not run.path.exists()
    assert not _is_alive(job_id)


def test_nothing_goes_while_the_batch_system_does_not_answer(lost, said, monkeypatch):
    """Jobs that cannot be ended are not forgotten: all that names them stays, and it is told."""
    run, _, job_id = lost
    monkeypatch.setattr(LocalDialect, "states_argv", lambda *_: ["false"])
    status, out = said("jobs", "clean")
    assert status == 1
    assert "stays as it is" in out
    assert (run.path / FILE).exists()
    assert _is_alive(job_id)


def test_a_run_that_ended_well_leaves_nothing_to_tell(tmp_path, said):
    """After `close` a run is not in the list, and there is nothing to clean."""
    site = {"shared-root": str(tmp_path / "shared"), "queues": QUEUES}
    with BurstCluster(site=site) as cluster:
        wait_until((cluster.run_folder / FILE).exists, "the first word", WAIT_S)
    assert not (cluster.run_folder / FILE).exists()
    with dask.config.set({"hpcburst.shared-root": str(tmp_path / "shared")}):
        assert json.loads(said("jobs", "list", "--json")[1]) == []


def test_jobs_of_their_own_are_told_as_well(tmp_path, said):
    """A task that has a batch job to itself is in the list, by its job's id, until it ends."""
    jobs = OwnJobs(load_site({"shared-root": str(tmp_path / "shared")}), max_jobs=1)
    try:
        work = Command(("sleep", "600"), "/", dict(os.environ))
        for _ in range(2):
            jobs.launch(Burst("alone", work, Needs()), ONE_NODE)
        with dask.config.set({"hpcburst.shared-root": str(tmp_path / "shared")}):
            wait_until(lambda: '"busy"' in said("jobs", "list", "--json")[1], "the job", WAIT_S)
            (run,) = json.loads(said("jobs", "why", "--json")[1])
        assert run["state"]["waiting"] == 1
        assert "1 task running in 1 job" in run["answer"]
        assert _is_alive(run["state"]["jobs"][0]["job_id"])
    finally:
        jobs.close()
    with dask.config.set({"hpcburst.shared-root": str(tmp_path / "shared")}):
        assert json.loads(said("jobs", "list", "--json")[1]) == []


# -- plans -----------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_submitted_and_starts_nothing(tmp_path, said):
    """`hpcburst plan` prints jobs, reasons and scripts; no folder is made and no job submitted."""
    with dask.config.set({"hpcburst.shared-root": str(tmp_path / "shared")}):
        status, out = said("plan", "66", "--needs", "cores=2,memory=2GB,walltime=5m", "--dry-run")
    assert status == 0
    assert "66 tasks of 2 cores, 2000 MB, about 300 s" in out
    assert "more places would be used, but" in out
    assert "#LOCALQ walltime=" in out
    assert not (tmp_path / "shared").exists()


def test_a_planned_script_is_the_one_a_run_submits(cluster, said):
    """But for the run's name and port, which only a run decides."""
    _, out = said("plan", "1", "--json")
    (row,) = json.loads(out)["submit"]
    shape = Shape(**row["shape"])
    port = cluster.scheduler_address.rsplit(":", 1)[1]
    run = cluster.job_script(shape).replace(cluster.run_folder.name, "RUN")
    assert row["script"].replace("pilot-1", "pilot") == run.replace(f":{port}", ":PORT")


def test_a_plan_keeps_to_the_limits_it_is_given(said):
    """`--max-jobs` and `--budget` bound a plan as they bound a run."""
    _, out = said("plan", "9", "--max-jobs", "1", "--json")
    assert sum(row["jobs"] for row in json.loads(out)["submit"]) == 1
    status, out = said("plan", "9", "--needs", "walltime=30m", "--budget", "0.01")
    assert status == 1
    assert "budget" in out


@pytest.mark.parametrize(
    "argv", [["0"], ["x"], ["2:colour=red"], ["2:cores"], ["1", "--prefer", "x"], ["1:gpus=7"]]
)
def test_a_plan_that_cannot_be_read_is_an_answer(argv, folder, capsys):
    """Wrong numbers, unknown needs, and tasks no queue holds are refused with what to write."""
    assert main(["plan", *argv]) == 1
    assert capsys.readouterr().err.startswith("hpcburst: ")


# -- looks -----------------------------------------------------------------------------------


def test_a_cluster_looks_as_dask_users_know_it(cluster):
    """`repr` names the cluster, its address, workers, threads and memory."""
    assert repr(cluster).startswith("BurstCluster(mine, 'tls://")
    assert "workers=1, threads=1, memory=" in repr(cluster)


def test_a_rich_console_shows_the_reasons(cluster):
    """Printed by rich, a cluster says why it has not more jobs."""
    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=200).print(cluster)
    assert "1 task running in 1 job." in page.getvalue()
    assert "it takes no more tasks in" in page.getvalue()
    assert ("tasks", "1 waiting, 1 running, 0 done", "0 waiting, 0 running, 0 done") in list(
        cluster.__rich_repr__()
    )


def test_a_notebook_shows_the_reasons_and_its_controls_work(cluster):
    """The widget tells what the console does; its buttons scale, and say what cannot be."""
    pytest.importorskip("ipywidgets")
    html = cluster._repr_html_()
    assert "1 waiting, 1 running" in html
    assert "it takes no more tasks in" in html
    status, scaling = cluster._widget().children
    assert "1 waiting, 1 running" in status.children[1].value
    _, accordion, told = scaling.children
    (count, scale), (least, most, adapt) = (row.children for row in accordion.children)
    count.value = 1
    scale.click()
    wait_until(lambda: cluster._keeper.floor, "the held pilot", WAIT_S)
    assert "1 are held, at most 1 jobs" in told.value
    most.value = 0
    adapt.click()
    assert "at least one job is needed" in told.value.lower()
    most.value, least.value = 50, 0
    adapt.click()
    wait_until(lambda: not cluster._keeper.floor, "the pilot let go", WAIT_S)
    assert cluster.site.limits.max_jobs == 50
    cluster.adapt(maximum=1)


def test_looks_show_data_as_data(cluster, monkeypatch):
    """What a batch system or a name holds is text in a notebook, never markup."""
    pilot = next(iter(cluster._keeper.pilots))
    monkeypatch.setattr(pilot.record, "job_id", "<script>alert(1)</script>")
    assert "<script>alert" not in cluster._repr_html_()
    assert "&lt;script&gt;" in cluster._repr_html_()
