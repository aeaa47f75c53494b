"""Programs as bodies: called by hand they run here, as they run on a pilot."""

from __future__ import annotations

import inspect
import os
import pickle
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import dask
import pytest

from hpcburst import needs, shell
from hpcburst.errors import BodyDied, CommandFailed, RequestError, RunError, WalltimeReached
from hpcburst.programs import MAX_CHARS, Completed, command_of, completed_of, digest_of
from hpcburst.results import Failure, Fault, Line, Outcome, Usage
from hpcburst.tasks import Burst, Command, Env, Needs, needs_of
from hpcburst.workers.work import Workplace


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    """A site whose shared root is the test's own."""
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"hpcburst.shared-root": str(tmp_path / "shared")}):
        yield


@pytest.fixture
def workplace(tmp_path):
    """Where a pilot does its work."""
    place = Workplace(tmp_path / "pilot", node_root=tmp_path)
    yield place
    place.close()


def test_a_shell_function_runs_its_command_here():
    """Called by hand, the command runs here and gives its status and what it wrote."""
    both = shell(["sh", "-c", "echo out $1; echo err >&2", "sh", "{word}"])
    done = both("a  b")
    assert (done.returncode, done.stdout, done.stderr, done.whole) == (0, "out a b", "err", True)
    assert 0 < done.wall_s < 20
    assert pickle.loads(pickle.dumps(done)) == done


def test_what_it_writes_is_shown(capfd):
    """By hand, what the command writes is seen as it comes, on the same streams."""
    shell("sh -c 'echo out; echo err >&2'")()
    assert capfd.readouterr() == ("out\n", "err\n")


def test_its_fields_are_its_parameters():
    """The function has a name, and the template's fields as parameters in their order."""
    fit = shell("Rscript fit.R --block {block} --out {out} {block}", name="fit", cores=2)
    assert list(inspect.signature(fit).parameters) == ["block", "out"]
    assert (fit.__name__, fit.__module__) == ("fit", __name__)
    assert shell("/usr/bin/env").__name__ == "env"
    assert needs_of(fit).cores == 2
    assert needs_of(fit).folder == str(Path(__file__).parent)
    with pytest.raises(TypeError, match="out"):
        fit(1)


def test_parameters_may_have_any_name():
    """A field may be called as anything in the function is."""
    words = ("name", "needs", "values", "function", "command", "self")
    done = shell(["echo", *(f"{{{word}}}" for word in words)])(*range(6))
    assert done.stdout == "0 1 2 3 4 5"


def test_functions_of_other_templates_have_other_sources():
    """Engines that know a task by its source never take one command for another."""
    one, two = shell("cat {x}", name="show"), shell("wc {x}", name="show")
    assert inspect.getsource(one) != inspect.getsource(two)
    assert inspect.getsource(one) == inspect.getsource(shell("cat {x}", name="show"))


def test_no_shell_reads_an_argument(tmp_path):
    """Whatever an argument holds, the program gets it letter by letter."""
    nasty = f"$(touch {tmp_path}/ran) `touch {tmp_path}/ran`; touch {tmp_path}/ran; ' \" \\ *\n~"
    code = "import sys; print(ascii(sys.argv[1]))"
    assert shell(["python3", "-c", code, "{x}"])(nasty).stdout == ascii(nasty)
    assert not (tmp_path / "ran").exists()


def test_without_an_env_the_drivers_own_python_comes_first():
    """A command without an env finds the driver's Python and what is installed beside it."""
    done = shell(["python3", "-c", "import sys; print(sys.prefix)"])()
    assert done.stdout == sys.prefix


def test_a_failed_command_is_an_error_with_its_status_and_last_words():
    """A status that does not mean success is an error that carries it, and both outputs' ends."""
    fail = shell("sh -c 'echo some result; echo no licence >&2; exit 3'", name="fit")
    with pytest.raises(CommandFailed, match=r"'fit'.*status 3") as caught:
        fail()
    error = caught.value
    assert isinstance(error, RunError)
    assert (error.returncode, error.stdout, error.stderr) == (3, "some result", "no licence")
    assert "no licence" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (again.returncode, again.stderr) == (3, "no licence")


def test_statuses_that_mean_success_are_stated():
    """With `ok` a status other than 0 is a result, and 0 is none if it is not in it."""
    search = shell("sh -c 'exit {code}'", ok=(0, 1))
    assert search(1).returncode == 1
    with pytest.raises(CommandFailed, match="status 2"):
        search(2)
    with pytest.raises(CommandFailed, match="status 0"):
        shell("true", ok=1)()


def test_a_signal_is_named():
    """A command that was killed says by which signal, also when it ran inside a shell."""
    with pytest.raises(BodyDied, match="SIGSEGV") as caught:
        shell("sh -c 'echo last words; kill -SEGV $$'")()
    assert "last words" in caught.value.tail
    with pytest.raises(CommandFailed, match=r"status 139.*SIGSEGV"):
        shell("sh -c 'exit 139'")()


def test_a_command_that_takes_too_long_is_stopped():
    """The walltime holds for commands called by hand too."""
    with pytest.raises(WalltimeReached, match=r"longer than the 0\.3 s"):
        shell("sleep 60", walltime=0.3)()


@pytest.mark.parametrize("text", ["no-such-program", "./no-such-program", "/no/such/program"])
def test_a_program_that_is_not_there_is_named(text):
    """A program that cannot be found is an error that names it, with a shell's status for that."""
    with pytest.raises(CommandFailed, match=r"no program '.*no") as caught:
        shell(text)()
    assert caught.value.returncode == 127


def test_a_script_whose_interpreter_is_not_there_says_so(tmp_path):
    """A script whose first line names a program that is gone is not called missing itself."""
    script = tmp_path / "fit.R"
    script.write_text("#!/no/such/Rscript\n")
    script.chmod(0o755)
    with pytest.raises(CommandFailed, match="interpreter in its first line"):
        shell("./fit.R")()


def test_a_file_that_may_not_be_run_says_so(tmp_path):
    """A file without the permission to run it is told from one that is not there."""
    (tmp_path / "fit.sh").write_text("echo fit\n")
    with pytest.raises(CommandFailed, match="Permission denied"):
        shell("./fit.sh")()


def test_wrong_templates_and_fields_are_refused_at_once():
    """A template that cannot be read never becomes a function."""
    for template, fields in (("fit {x.y}", {}), ("fit", {"memry": 1}), ("fit", {"ok": 300})):
        with pytest.raises(RequestError):
            shell(template, **fields)


def test_needs_with_a_command_leave_the_function_as_it_is():
    """Called by hand, a function that needs a command runs as it is written."""

    @needs(command="tool {x}")
    def fit(x):
        return x + 1

    assert fit(1) == 2


def test_the_program_is_looked_for_in_its_env(tmp_path, workplace):
    """A pilot finds the program on the PATH of the task's env, with the env's variables."""
    tool = tmp_path / "env" / "bin" / "hpctool"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\necho "tool of $GREETING"\n')
    tool.chmod(0o755)
    activation = {"PATH": f"{tool.parent}:${{PATH}}", "GREETING": "the env"}
    env = Env(key="k", prefix=str(tmp_path / "env"), activation=activation)
    wants = Needs(env="e.yml", command=("hpctool",))
    lines = []
    burst = Burst("tool", command_of(lambda: None, wants, (), {}), wants, env)
    outcome = workplace.do(burst, threading.Event(), lines.append)
    assert completed_of(replace(outcome, lines=tuple(lines)), wants, "tool").stdout == (
        "tool of the env"
    )


def test_an_env_gets_nothing_of_the_drivers_python_or_job(monkeypatch):
    """Variables of the driver's Python and of the driver's own batch job do not travel."""
    for name in ("PYTHONPATH", "PYTHONHOME", "SLURM_JOB_ID", "PBS_JOBID"):
        monkeypatch.setenv(name, "/driver")
    environ = command_of(lambda: None, Needs(env="e.yml", command=("true",)), (), {}).environ
    assert "/driver" not in environ.values()


def test_output_comes_line_by_line_with_its_stream(workplace, tmp_path):
    """Lines arrive while the command runs, marked with the stream they were written to."""
    go = tmp_path / "go"
    script = f"echo first; echo problem >&2; while [ ! -e {go} ]; do sleep 0.01; done; printf last"
    command = Command(("sh", "-c", script), cwd=str(tmp_path), environ=dict(os.environ))
    lines = []

    def hear(line):
        lines.append(line)
        if len(lines) == 2:
            go.touch()  # the command goes on when both lines have come

    outcome = workplace.do(Burst("talk", command, timeout_s=20), threading.Event(), hear)
    assert outcome.ok
    assert {(line.level, line.text) for line in lines[:2]} == {
        ("stdout", "first"),
        ("stderr", "problem"),
    }
    assert lines[2].text == "last"


def test_a_result_carries_a_bounded_output():
    """What a program writes beyond a million characters is not in its result, which says so."""
    lines = tuple(Line("x" * 999) for _ in range(2000))
    outcome = Outcome(returncode=0, lines=lines, usage=Usage(wall_s=1.5))
    done = completed_of(outcome, Needs(command=("yes",)), "yes")
    assert len(done.stdout) == MAX_CHARS
    assert not done.whole
    assert done.wall_s == 1.5
    many = Outcome(returncode=0, lines=(Line("x"),) * 10_001)
    assert not completed_of(many, Needs(command=("yes",)), "yes").whole


def test_an_out_of_memory_kill_is_told_as_such():
    """A command killed at the memory limit says so, and what to ask for."""
    failure = Failure(Fault.OUT_OF_MEMORY, "out of memory", "It was killed at the limit.")
    outcome = Outcome(failure=failure, returncode=-9, lines=(Line("loading"),))
    with pytest.raises(BodyDied, match=r"@needs\(memory=") as caught:
        completed_of(outcome, Needs(command=("fit",)), "fit")
    assert caught.value.tail == "loading"


def test_the_digest_is_that_of_the_command():
    """A template or a status changes the digest; resources and the order of statuses do not."""
    base = Needs(command=("fit", "{x}"), ok=(0, 1))
    assert digest_of(base) == digest_of(replace(base, cores=4, ok=(1, 0)))
    others = {
        digest_of(replace(base, command=("fit", "-v", "{x}"))),
        digest_of(replace(base, ok=(0,))),
    }
    assert digest_of(base) not in others
    assert len(others) == 2


@pytest.mark.channel
def test_by_hand_it_runs_in_its_env(channel_url, tmp_path):
    """Called by hand, a command with an env runs in it, built as it is for pilots."""
    (tmp_path / "tool.yml").write_text("dependencies: [hpctool]\nvariables: {GREETING: hello}\n")
    look = shell(["sh", "-c", "command -v hpctool; echo $GREETING"], env=str(tmp_path / "tool.yml"))
    with dask.config.set({"hpcburst.envs.channels": [channel_url]}):
        program, greeting = look().stdout.splitlines()
    assert program.endswith("/bin/hpctool")
    assert greeting == "hello"


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_an_r_script_runs(tmp_path):
    """A script in R gets its arguments, and its result comes home."""
    (tmp_path / "fit.R").write_text(
        "x <- as.numeric(commandArgs(trailingOnly = TRUE)); cat(mean(x), '\\n')\n"
    )
    assert shell("Rscript --vanilla fit.R {xs}")([1, 2, 6]).stdout.strip() == "3"


def test_a_completed_is_a_value():
    """Two equal results are equal, and a result cannot be changed."""
    assert Completed(0, "a") == Completed(0, "a")
    with pytest.raises(AttributeError):
        Completed(0).returncode = 1
