"""Tasks whose body is a program: under a BurstTaskRunner it runs on a pilot, as a body would."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from prefect import flow, task, unmapped
from prefect.cache_policies import INPUTS, TASK_SOURCE

from hpcburst import needs, shell
from hpcburst.errors import BodyDied, CommandFailed, EnvError, RequestError, WalltimeReached
from hpcburst.programs import Completed
from prefect_hpcburst import BurstTaskRunner
from support.modules import environment_modules
from support.processes import wait_until


@task
@needs(command=["sh", "-c", "echo $PPID $1-$2", "sh", "{word}", "{count}"])
def echo(word, count=1):
    raise AssertionError("the body is not run on a pilot")


@task
@needs(command="cat {files}")
def join(files): ...


def text_of(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_command_runs_in_place_of_the_body(burst):
    """The program runs elsewhere, gets the call's arguments and defaults, and gives its output."""

    @flow
    def pipeline():
        return echo.submit("a b").result()

    done = burst(pipeline)
    parent, said = done.stdout.split(" ", 1)
    assert isinstance(done, Completed)
    assert said == "a b-1"
    assert int(parent) != os.getpid()


def test_map_futures_and_lists(burst, tmp_path):
    """`map`, `unmapped` and futures give arguments as they do to bodies; a list is many words."""
    count = task(shell(["sh", "-c", "echo $#", "sh", "{words}"], name="count"))
    say = task(shell("printf %s {x}{end}", name="say"))
    files = [text_of(tmp_path, f"{n}", f"{n};") for n in range(3)]

    @task
    def lines_of(done):
        return done.stdout.split(";")

    @flow
    def pipeline():
        said = say.map([1, 2.5, "z"], end=unmapped("!"))
        joined = join.submit(files)
        return (
            [done.stdout for done in said.result()],
            lines_of.submit(joined).result(),
            count.submit([str(path) for path in files]).result().stdout,
        )

    assert burst(pipeline) == (["1!", "2.5!", "z!"], ["0", "1", "2", ""], "3")


def test_it_runs_in_the_flows_working_directory(burst, tmp_path, monkeypatch):
    """Relative paths mean for a command what they mean for the flow."""
    monkeypatch.chdir(tmp_path)
    write = task(shell(["sh", "-c", 'pwd > "$1"', "sh", "{out}"]))

    @flow
    def pipeline():
        write.submit("here.txt").result()

    burst(pipeline)
    assert Path((tmp_path / "here.txt").read_text().strip()) == tmp_path


def test_a_failed_command_is_retried_and_then_told(burst, tmp_path):
    """A status that is no success fails the run as an exception would, after its retries."""
    script = 'echo x >> "$1"; echo "no convergence" >&2; exit 4'
    fit = task(shell(["sh", "-c", script, "sh", "{tries}"], name="fit"), retries=2)

    @flow
    def pipeline():
        state = fit.submit(tmp_path / "tries", return_state=True)
        return state.name, state.result(raise_on_failure=False)

    name, error = burst(pipeline)
    assert name == "Failed"
    assert isinstance(error, CommandFailed)
    assert (error.returncode, error.stderr) == (4, "no convergence")
    assert error.job_id
    assert (tmp_path / "tries").read_text() == "x\n" * 3


def test_a_command_that_recovers_succeeds(burst, tmp_path):
    """A retry that ends well gives the run its result."""
    script = 'if [ -e "$1" ]; then echo done; else touch "$1"; exit 1; fi'
    fit = task(shell(["sh", "-c", script, "sh", "{mark}"]), retries=1)

    @flow
    def pipeline():
        return fit.submit(tmp_path / "mark").result().stdout

    assert burst(pipeline) == "done"


def test_statuses_signals_and_missing_programs(burst):
    """Each way to end has an answer of its own; the flow goes on."""
    search = task(shell("sh -c 'exit {code}'", name="search", ok=(0, 1)))
    crash = task(shell("sh -c 'kill -SEGV $$'", name="crash"))
    missing = task(shell("no-such-program", name="missing"))

    @flow
    def pipeline():
        states = [crash.submit(return_state=True), missing.submit(return_state=True)]
        found = search.submit(1).result().returncode
        return found, *(state.result(raise_on_failure=False) for state in states)

    found, crashed, absent = burst(pipeline)
    assert found == 1
    assert isinstance(crashed, BodyDied)
    assert "SIGSEGV" in str(crashed)
    assert isinstance(absent, CommandFailed)
    assert absent.returncode == 127


def test_an_argument_without_text_fails_its_run_alone(burst):
    """An argument that no command line can say is refused with its name."""

    @flow
    def pipeline():
        bad = echo.submit({"not": "text"}, return_state=True)
        return bad.result(raise_on_failure=False), echo.submit("fine").result().returncode

    error, fine = burst(pipeline)
    assert isinstance(error, RequestError)
    assert "{word}" in str(error)
    assert fine == 0


def test_a_timeout_stops_the_program_and_its_children(burst, tmp_path):
    """`timeout_seconds` stops the program with all it started."""
    script = 'sleep 60 & echo $! > "$1"; wait'
    hang = task(shell(["sh", "-c", script, "sh", "{pid}"]), timeout_seconds=1)

    @flow
    def pipeline():
        state = hang.submit(tmp_path / "pid", return_state=True)
        return state.name, state.result(raise_on_failure=False)

    name, error = burst(pipeline)
    assert name == "TimedOut"
    assert isinstance(error, WalltimeReached)
    wait_until(lambda: gone(int((tmp_path / "pid").read_text())), "the end of the child")


def test_a_flow_that_fails_stops_its_programs(burst, tmp_path):
    """When the flow ends by an exception, its programs are stopped."""
    hang = task(shell(["sh", "-c", 'echo $$ > "$1"; exec sleep 60', "sh", "{pid}"]))
    pid = tmp_path / "pid"

    @flow
    def pipeline():
        hang.submit(pid)
        wait_until(lambda: pid.exists() and pid.read_text().strip(), "the start of the program")
        raise KeyError("the flow")

    since = time.monotonic()
    with pytest.raises(KeyError):
        burst(pipeline)
    wait_until(lambda: gone(int(pid.read_text())), "the end of the program")
    assert time.monotonic() - since < 30


def test_its_output_goes_to_the_runs_log(burst, task_log):
    """What a program writes, to either stream, is in its task run's log, in its own words."""
    talk = task(shell("sh -c 'echo one line; echo a warning >&2'"))

    @flow
    def pipeline():
        future = talk.submit()
        future.wait()
        return future.task_run_id

    texts = [text for _, text in task_log(burst(pipeline))]
    assert "one line" in texts
    assert "a warning" in texts


def test_a_cached_command_is_not_run_again_until_its_template_changes(burst, tmp_path):
    """Caching by source and inputs knows one template from another, and a file it runs once."""
    options = {"cache_policy": INPUTS + TASK_SOURCE, "persist_result": True}
    script = ["sh", "-c", 'echo x >> "$1"', "sh", "{tries}"]
    one = task(shell(script, name="count"), **options)
    other = task(shell([*script, "more"], name="count"), **options)
    tries = tmp_path / "tries"

    @flow
    def pipeline(a_task):
        return a_task.submit(tries, return_state=True).name

    assert [burst(pipeline, one), burst(pipeline, one)] == ["Completed", "Cached"]
    assert burst(pipeline, other) == "Completed"
    assert tries.read_text() == "x\nx\n"


def test_under_another_runner_a_shell_task_runs_here_all_the_same(prefect_api):
    """`shell` tasks mean the same in a flow that has no BurstTaskRunner, and when called."""
    say = task(shell("echo {x}", name="say"))

    @flow
    def pipeline():
        return say.submit(1).result().stdout, say(2).stdout

    assert pipeline() == ("1", "2")


def test_an_async_flow_awaits_nothing_but_its_results(burst):
    """Commands work from an async flow as bodies do."""
    import asyncio

    say = task(shell("echo {x}", name="say"))

    @flow
    async def pipeline():
        return [done.stdout for done in say.map([1, 2]).result()]

    assert asyncio.run(burst(pipeline)) == ["1", "2"]


@pytest.mark.channel
def test_a_command_runs_in_its_conda_env(prefect_api, shared_root, channel_url, tmp_path):
    """The program comes from the task's env, with its activation; no Python of ours is near."""
    text_of(tmp_path, "tool.yaml", "dependencies: [hpctool]\nvariables: {GREETING: hello}\n")
    which = ["sh", "-c", "command -v hpctool; echo $GREETING $CONDA_PREFIX"]
    look = task(shell(which, name="look", env=str(tmp_path / "tool.yaml")))
    site = {"shared-root": str(shared_root), "envs": {"channels": [channel_url]}}

    @flow(task_runner=BurstTaskRunner(max_jobs=1, site=site))
    def pipeline():
        return look.submit().result().stdout.splitlines()

    program, variables = pipeline()
    greeting, prefix = variables.split()
    assert greeting == "hello"
    assert program == f"{prefix}/bin/hpctool"


@pytest.mark.skipif(environment_modules() is None, reason="Environment Modules is not installed")
def test_modules_are_loaded_for_commands_and_bodies(
    prefect_api, shared_root, tmp_path, monkeypatch
):
    """`modules` without an env give a task their variables; a list that does not load is told."""
    tool = environment_modules()
    tool.write(tmp_path / "modules", "gcc/13", [("set", "CC", "gcc-13"), ("prepend", "PATH", "/g")])
    monkeypatch.setenv("MODULEPATH", str(tmp_path / "modules"))
    monkeypatch.setenv(tool.variable, str(tool.command))
    compiler = task(shell(["sh", "-c", "echo $CC $PATH"], modules="gcc/13"))
    missing = task(shell("true", name="missing", modules=["nothere/1"]))

    @task
    @needs(modules=["gcc/13"])
    def in_a_body():
        import os

        return os.environ["CC"], os.environ["LOADEDMODULES"]

    @flow(task_runner=BurstTaskRunner(max_jobs=1, site={"shared-root": str(shared_root)}))
    def pipeline():
        refused = missing.submit(return_state=True).result(raise_on_failure=False)
        return compiler.submit().result().stdout, in_a_body.submit().result(), refused

    said, body, refused = pipeline()
    assert said.startswith("gcc-13 /g:")
    assert body == ("gcc-13", "gcc/13")
    assert isinstance(refused, EnvError)
    assert "nothere/1" in str(refused)
