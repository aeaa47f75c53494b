"""The warm server alone over its socket: nested snakemake calls, plain commands, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import wait_until

SERVER = "snakemake_executor_plugin_hpcburst.zygote"
DEADLINE_S = 30.0

SNAKEFILE = """
import os
rule shell:
    output: "out/{name}.txt"
    threads: 2
    shell: "echo $OMP_NUM_THREADS $ASKED {wildcards.name:q} > {output:q}"
rule run:
    output: "run.txt"
    run:
        import helper, sys, threading
        late = threading.Timer(0.2, lambda: open("late.txt", "w").close())
        late.start()
        print(os.getcwd(), helper.NAME, os.getpgid(0) == os.getpid(), file=open(output[0], "w"))
rule sleep:
    output: "sleep.txt"
    shell: "echo $$ > sleeping; sleep 60; touch {output}"
rule fails:
    output: "never.txt"
    shell: "echo this is why >&2; exit 3"
rule killed:
    output: "neither.txt"
    shell: "kill -9 $$"
"""
FLAGS = ["--snakefile", "Snakefile", "--cores", "all", "--mode", "remote", "--force", "--nolock"]
FLAGS += ["--force-use-threads", "--scheduler", "greedy", "--ignore-incomplete", "--no-hooks"]


class Pilot:
    """The pilot's side of the protocol."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder, self.environ = folder, environ
        self.socket, theirs = socket.socketpair()
        argv = [sys.executable, "-m", SERVER, "--fd", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                argv, pass_fds=(theirs.fileno(),), cwd="/", env=environ, start_new_session=True
            )
        self.socket.settimeout(DEADLINE_S)
        self.lines = self.socket.makefile("r")
        self.ready = self.hear()

    def hear(self) -> dict[str, Any]:
        line = self.lines.readline()
        assert line, "the server hung up"
        return dict(json.loads(line))

    def say(self, **message: Any) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def start(self, number: int, *argv: str, **environ: str) -> int:
        """Send a command; returns its pid."""
        log = str(self.folder / f"{number}.log")
        environ = {**self.environ, **environ}
        self.say(id=number, argv=argv, cwd=str(self.folder), environ=environ, log=log)
        answer = self.hear()
        assert answer["id"] == number
        return int(answer["pid"])

    def nested(self, number: int, target: str, **environ: str) -> int:
        rule = target.split(":", maxsplit=1)[0]
        flags = ["--target-jobs", target, "--allowed-rules", rule, *FLAGS]
        return self.start(number, sys.executable, "-m", "snakemake", *flags, **environ)

    def log(self, number: int) -> str:
        path = self.folder / f"{number}.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> int:
        self.lines.close()
        self.socket.close()
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def pilot(tmp_path: Path) -> Iterator[Pilot]:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    library = tmp_path / "library"
    library.mkdir()
    (library / "helper.py").write_text("NAME = 'the one on PYTHONPATH'\n")
    pilot = Pilot(tmp_path, dict(os.environ))
    yield pilot
    pilot.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_nested_job_runs_with_its_own_environment_folder_and_log(pilot: Pilot):
    """A rule's command sees the request's environment and threads; its output is in its log."""
    pilot.nested(1, "shell:name=a b", ASKED="it's $HOME")
    ended = pilot.hear()
    assert ended["returncode"] == 0, pilot.log(1)
    assert (pilot.folder / "out" / "a b.txt").read_text() == "2 it's $HOME a b\n"
    assert "rule shell" in pilot.log(1)
    assert ended["cpu_s"] > 0
    assert 10 < ended["max_rss_mb"] < 2000


def test_a_run_rule_sees_what_a_new_process_would_see(pilot: Pilot):
    """Working directory, PYTHONPATH, own process group; threads it left are waited for."""
    pilot.nested(1, "run:", PYTHONPATH=str(pilot.folder / "library"))
    assert pilot.hear()["returncode"] == 0, pilot.log(1)
    assert (pilot.folder / "run.txt").read_text() == f"{pilot.folder} the one on PYTHONPATH True\n"
    assert (pilot.folder / "late.txt").exists()


def test_a_failing_rule_tells_its_status_and_why(pilot: Pilot):
    """A failed nested job ends with a status other than 0 and its stderr is in the log."""
    pilot.nested(1, "fails:")
    assert pilot.hear()["returncode"] == 1
    assert "this is why" in pilot.log(1)


def test_a_rule_that_was_killed_ends_like_a_killed_program(pilot: Pilot):
    """The pilot can tell a kill, such as for memory, from a mistake: the status is a shell's."""
    pilot.nested(1, "killed:")
    assert pilot.hear()["returncode"] == 128 + signal.SIGKILL, pilot.log(1)


def test_a_plain_command_runs_as_it_is(pilot: Pilot):
    """Anything but a nested snakemake of this Python is executed, arguments unread by a shell."""
    pilot.start(1, "sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "$HOME", "it's")
    assert pilot.hear()["returncode"] == 7
    assert pilot.log(1) == "a b|$HOME|it's|"


def test_a_command_that_is_not_there_says_so(pilot: Pilot):
    """A missing program ends with 127 and a word in the log, and the server lives on."""
    pilot.start(1, "no-such-program-here")
    assert pilot.hear()["returncode"] == 127
    assert "no-such-program-here" in pilot.log(1) or "No such file" in pilot.log(1)
    pilot.start(2, "true")
    assert pilot.hear()["returncode"] == 0


def test_many_jobs_run_at_once_and_are_answered_by_number(pilot: Pilot):
    """Answers come in the order of the ends, each with its number."""
    numbers = range(1, 9)
    for number in numbers:
        pilot.say(
            id=number,
            argv=["sh", "-c", f"exit {number}"],
            cwd=str(pilot.folder),
            environ=pilot.environ,
            log=None,
        )
    answers = [pilot.hear() for _ in range(16)]
    ended = {answer["id"]: answer["returncode"] for answer in answers if "returncode" in answer}
    assert ended == {number: number for number in numbers}


def test_kill_ends_the_job_with_all_it_started(pilot: Pilot):
    """A killed nested job takes its shell and its programs along; others go on."""
    pilot.nested(1, "sleep:")
    sleeping = pilot.folder / "sleeping"
    wait_until(
        lambda: sleeping.exists() and sleeping.read_text(),
        "the begin of the rule",
        within_s=DEADLINE_S,
    )
    shell = int(sleeping.read_text())
    pilot.say(id=1, kill=True)
    assert pilot.hear()["returncode"] != 0
    wait_until(lambda: not is_alive(shell), "the end of the rule's shell", within_s=DEADLINE_S)
    pilot.start(2, "true")
    assert pilot.hear()["returncode"] == 0


def test_kill_does_not_take_no_for_an_answer(pilot: Pilot):
    """A program that ignores the polite signal is gone a little later."""
    pilot.start(1, "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
    wait_until(lambda: "deaf" in pilot.log(1), "the begin of the program", within_s=DEADLINE_S)
    pilot.say(id=1, kill=True)
    assert pilot.hear()["returncode"] == -signal.SIGKILL


def test_what_a_job_leaves_running_is_ended_with_it(pilot: Pilot):
    """A background program does not outlive its job on a node that others use next."""
    pilot.start(1, "sh", "-c", "sleep 60 & echo $!")
    assert pilot.hear()["returncode"] == 0
    left = int(pilot.log(1))
    wait_until(lambda: not is_alive(left), "the end of the background program", within_s=DEADLINE_S)


def test_when_the_pilot_hangs_up_nothing_is_left(pilot: Pilot):
    """A closed socket ends every job with all it started, and the server."""
    pilot.nested(1, "sleep:")
    sleeping = pilot.folder / "sleeping"
    wait_until(
        lambda: sleeping.exists() and sleeping.read_text(),
        "the begin of the rule",
        within_s=DEADLINE_S,
    )
    shell = int(sleeping.read_text())
    assert pilot.close() == 0
    wait_until(lambda: not is_alive(shell), "the end of the rule's shell", within_s=DEADLINE_S)


def test_when_the_server_is_killed_its_jobs_go_too(pilot: Pilot):
    """Even a server that dies without a word leaves no nested job and no shell behind."""
    nested = pilot.nested(1, "sleep:")
    sleeping = pilot.folder / "sleeping"
    wait_until(
        lambda: sleeping.exists() and sleeping.read_text(),
        "the begin of the rule",
        within_s=DEADLINE_S,
    )
    shell = int(sleeping.read_text())
    pilot.process.kill()
    wait_until(
        lambda: not is_alive(nested) and not is_alive(shell),
        "the end of job and shell",
        within_s=DEADLINE_S,
    )


CONDA = """#!/bin/sh
echo "$*" >> "$COUNT"
case "$*" in
  "info --json") echo '{"conda_prefix": "'"$BASE"'", "platform": "linux-64"}' ;;
  "--version") echo "conda 25.1.0" ;;
  "config --get"*) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""


def test_conda_is_asked_about_itself_once_a_pilot(pilot: Pilot):
    """Jobs after the first do not call conda to learn its version and settings again."""
    tools, count = pilot.folder / "tools", pilot.folder / "count"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin" / "conda").write_text(CONDA)
    (tools / "bin" / "conda").chmod(0o755)
    (pilot.folder / "env.yaml").write_text("dependencies: []\n")
    probe = (
        f"from snakemake.deployment.conda import Conda; Conda(prefix_path='{tools}', check=True)"
    )
    snakefile = (
        f'rule asks:\n    output: "asked.txt"\n    run:\n        {probe}; open(output[0], "w")\n'
    )
    (pilot.folder / "Snakefile").write_text(snakefile)
    environ = {"PATH": f"{tools}/bin:{os.environ['PATH']}", "COUNT": str(count), "BASE": str(tools)}
    target = ["--target-jobs", "asks:", *FLAGS, "--conda-base-path", str(tools)]
    argv = [sys.executable, "-m", "snakemake", *target, "--deployment-method", "conda"]
    pilot.start(1, *argv, **environ)
    assert pilot.hear()["returncode"] == 0, pilot.log(1)
    wait_until(
        lambda: count.read_text().count("config --get") == 2,
        "asking of job and server",
        within_s=DEADLINE_S,
    )
    # The server keeps what it learnt when its learner has ended, which any later end makes it see.
    for number in (2, 3):
        pilot.start(number, "true", **environ)
        pilot.hear()
    asked = count.read_text()
    pilot.start(4, *argv, **environ)
    assert pilot.hear()["returncode"] == 0, pilot.log(4)
    assert count.read_text() == asked
    pilot.start(5, *argv, **{**environ, "CONDA_SOMETHING": "else"})
    assert pilot.hear()["returncode"] == 0, pilot.log(5)
    assert count.read_text() != asked
