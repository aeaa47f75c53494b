"""What went wrong is told apart, and what is stopped leaves nothing behind: with real signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from support.processes import wait_until
from support.workflows import DEADLINE_S, PILOT_OF_RULE, Workflow

FAILING = """
rule all:
    input: "status.txt", "killed.txt", "slow.txt", "silent.txt"
rule status:
    output: "status.txt"
    shell: "echo the disk is on fire >&2; touch {output}; exit 3"
rule killed:
    output: "killed.txt"
    shell: "kill -9 $$"
rule slow:
    output: "slow.txt"
    retries: 1
    resources: attempts=lambda wildcards, attempt: attempt
    shell: "echo {resources.attempts} > {output}; test {resources.attempts} -gt 1 || sleep 60"
rule silent:
    output: "silent.txt"
    shell: "true"
"""


@pytest.mark.parametrize("mode", ["direct", "zygote"])
def test_failures_are_told_apart(tmp_path: Path, mode: str):
    """A status, a kill, too long a runtime, a missing output: each is called what it is.

    The attempt after the one that took too long sees its number. What a failed rule wrote is
    removed, and each answer has the command, the node, the batch job's id and the log.
    """
    workflow = Workflow.at(tmp_path, FAILING)
    ran = workflow.run("--keep-going", "--hpcburst-default-runtime", "0.1", mode=mode)
    assert ran.returncode == 1
    answers = re.finditer(r"Rule (\w+) ran on.*?external_jobid: \S+", ran.stdout, re.DOTALL)
    told = {answer[1]: answer[0] for answer in answers}
    assert "It ended with status 3." in told["status"]
    assert "the disk is on fire" in told["status"]
    assert re.search(r"\[job \S+, host \S+, log \S+\]", told["status"])
    assert "echo the disk is on fire >&2; touch status.txt; exit 3" in told["status"]
    assert "killed outright (SIGKILL)" in told["killed"]
    assert "mem_mb" in told["killed"]
    assert "longer than the 6 s" in told["slow"]
    assert "runtime" in told["slow"]
    assert workflow.read("slow.txt") == "2\n"
    assert "silent.txt" in ran.stdout.partition("MissingOutputException")[2]
    assert not (workflow.folder / "status.txt").exists()


def test_a_rule_that_takes_its_pilots_along_is_given_up(tmp_path: Path):
    """A job is sent again when its pilot is lost, not for ever, and the end says so."""
    workflow = Workflow.at(
        tmp_path,
        'rule deadly:\n    output: "out.txt"\n'
        f'    shell: "echo >> sends; {PILOT_OF_RULE} kill -9 $p; sleep 60"\n',
    )
    ran = workflow.run()
    assert ran.returncode == 1
    assert workflow.read("sends") == "\n" * 3
    assert "'deadly' was handed to 3 pilots" in ran.stdout, ran.stdout
    assert "Each went away with it" in ran.stdout
    workflow.expect_nothing_left()


SLOW = """
rule all:
    input: "done.txt"
rule first:
    output: "first.txt"
    shell: "echo half > {output}; touch begun; while ! test -e go; do sleep 0.1; done;"
           "echo whole > {output}"
rule done:
    input: "first.txt"
    output: "done.txt"
    shell: "cp {input} {output}"
"""


def test_after_kill_9_of_everything_the_next_run_takes_up_the_work(tmp_path: Path):
    """Half a file is known as such, and --rerun-incomplete makes it anew."""
    workflow = Workflow.at(tmp_path, SLOW)
    with workflow.running():
        workflow.wait_for("begun")
        while left := workflow.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert workflow.read("first.txt") == "half\n"
    (workflow.folder / "go").touch()
    workflow.run("--unlock")
    refused = workflow.run()
    assert refused.returncode == 1
    assert "incomplete" in refused.stdout
    ran = workflow.run("--rerun-incomplete")
    assert ran.returncode == 0, ran.stdout
    assert workflow.read("done.txt") == "whole\n"
    workflow.expect_nothing_left()


def test_ctrl_c_twice_leaves_nothing_behind(tmp_path: Path):
    """Whoever is impatient and interrupts the clean-up still leaves no job and no process."""
    workflow = Workflow.at(tmp_path, SLOW)
    with workflow.running() as main:
        workflow.wait_for("begun")
        main.send_signal(signal.SIGINT)
        assert main.stdout is not None
        wait_until(
            lambda: "Terminating processes" in main.stdout.readline(),  # type: ignore[union-attr]
            "the answer to the first",
        )
        main.send_signal(signal.SIGINT)
        main.communicate(timeout=DEADLINE_S)
    assert main.returncode != 0
    workflow.expect_nothing_left()
    assert "incomplete" in workflow.run("--dry-run").stdout


def test_an_error_in_the_loop_that_reports_ends_the_run_and_all_jobs(tmp_path: Path):
    """If hpcburst itself stumbles, the workflow ends with the error and nothing stays behind."""
    workflow = Workflow.at(
        tmp_path,
        'rule all:\n    input: "a.txt", "b.txt"\n'
        'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'
        'rule b:\n    output: "b.txt"\n    shell: "sleep 600"\n',
    )
    stumbling = (
        "from snakemake_executor_plugin_hpcburst import answers\n"
        "def stumble(*_, **__): raise ArithmeticError('hpcburst stumbled')\n"
        "answers.of_future = stumble\n"
        "import sys; from snakemake import cli; cli.main(sys.argv[1:])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", stumbling, *workflow.argv()[3:]],
        check=False,
        cwd=workflow.folder,
        env=workflow.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ran.returncode == 1
    assert "hpcburst stumbled" in ran.stdout + ran.stderr
    workflow.expect_nothing_left()
