"""The `snakemake` command as a user runs it, on the local queue."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.processes import marked, wait_until

DEADLINE_S = 60.0
MARK = "HPCBURST_TEST_RUN"
"""An environment variable by which a test knows all processes of its run, wherever they went."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The user's environment with an empty home and a mark."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), MARK: str(tmp_path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the workflow."""
    folder = tmp_path / "workflow"
    folder.mkdir()
    return folder


def command(*options: str) -> list[str]:
    """An unmodified snakemake command."""
    chosen = ["--executor", "hpcburst", "--jobs", "10", "--hpcburst-max-jobs", "2"]
    return [sys.executable, "-m", "snakemake", *chosen, "--latency-wait", "2", *options]


def snakemake(
    folder: Path, environ: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    """Run snakemake in a folder; its output in one text."""
    return subprocess.run(
        command(*options),
        check=False,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S * 2,
    )


def expect_nothing_left(environ: dict[str, str]) -> None:
    """No process of the run lives on."""
    mark = f"{MARK}={environ[MARK]}"
    wait_until(lambda: not marked(mark), f"the end of {mark}", within_s=DEADLINE_S)


@pytest.mark.parametrize("mode", ["direct", "zygote", "spawn"])
def test_awkward_names_and_values_reach_the_rule_as_they_are(folder, environ, mode):
    """File names and config values with spaces, quotes, dollars and unicode change nothing."""
    (folder / "Snakefile").write_text(
        """
NAMES = glob_wildcards("in/{name}.txt").name
envvars: "TOKEN"
rule all:
    input: expand("out/{name}.txt", name=NAMES)
rule one:
    input: "in/{name}.txt"
    output: "out/{name}.txt"
    params: value=config["value"]
    shell:
        "printf '%s|%s|%s' {wildcards.name:q} {params.value:q} \\"$TOKEN\\" > {output:q};"
        "cat {input:q} >> {output:q}"
"""
    )
    names = ["a b", "it's", 'say "hi" twice', "$HOME", "grün-漢", "semi;colon&and"]
    names += ["back\\slash", "x=`y`", "*?[a]~!#", "{}"]
    (folder / "in").mkdir()
    for name in names:
        (folder / "in" / f"{name}.txt").write_text("!")
    value, token = """it's "$HOME" \\n 100% & more""", "v a$l'ue \\ `x`"
    ran = snakemake(
        folder, {**environ, "TOKEN": token}, "--hpcburst-mode", mode, "--config", f"value={value}"
    )
    assert ran.returncode == 0, ran.stdout
    written = {path.stem: path.read_text() for path in (folder / "out").iterdir()}
    assert written == {name: f"{name}|{value}|{token}!" for name in names}
    expect_nothing_left(environ)


def test_files_whose_names_begin_with_a_quote(folder, environ):
    """Even names that Snakemake takes for quoted text are waited for under their own name."""
    (folder / "Snakefile").write_text(
        """
rule all:
    input: "out.txt"
rule first:
    output: temp("'b' c")
    shell: "echo hello > {output:q}"
rule second:
    input: "'b' c"
    output: "out.txt"
    shell: "cp {input:q} {output:q}"
"""
    )
    ran = snakemake(folder, environ)
    assert ran.returncode == 0, ran.stdout
    assert (folder / "out.txt").read_text() == "hello\n"


def test_wildcards_that_snakemake_itself_cannot_carry_are_refused_clearly(folder, environ):
    """In a nested call, a comma or an outer quote in a wildcard fails with the reason."""
    (folder / "Snakefile").write_text(
        """
rule all:
    input: "a,b.txt", "'q'.txt", "fine.txt"
rule one:
    output: "{name}.txt"
    shell: "touch {output:q}"
"""
    )
    ran = snakemake(folder, environ, "--keep-going", "--hpcburst-mode", "zygote")
    assert ran.returncode == 1
    assert ran.stdout.count("is lost when Snakemake hands a job to a cluster") == 2
    assert "Traceback" not in ran.stdout
    assert (folder / "fine.txt").exists()


def test_a_failing_rule_says_why_where_and_others_finish(folder, environ):
    """The report has the rule's last words, job id, host and log; --keep-going runs the rest."""
    (folder / "Snakefile").write_text(
        """
rule all:
    input: "bad.txt", expand("good{i}.txt", i=range(3))
rule bad:
    output: "bad.txt"
    shell: "echo the disk is on fire >&2; exit 3"
rule good:
    output: "good{i}.txt"
    shell: "touch {output}"
"""
    )
    ran = snakemake(folder, environ, "--keep-going")
    assert ran.returncode == 1
    assert "the disk is on fire" in ran.stdout
    assert re.search(r"external_jobid: \S+", ran.stdout), ran.stdout
    assert re.search(r"\[job \S+, host \S+, log \S+\]", ran.stdout), ran.stdout
    assert sorted(path.name for path in folder.glob("good*")) == [f"good{i}.txt" for i in range(3)]
    logs = list((folder / ".snakemake" / "hpcburst_logs").rglob("*.log"))
    assert [log.parent.name for log in logs] == ["bad"]
    assert "the disk is on fire" in logs[0].read_text()
    expect_nothing_left(environ)


def test_retries_are_counted_by_snakemake_and_see_their_attempt(folder, environ):
    """--retries runs a failed job again, with the resources of its new attempt."""
    (folder / "Snakefile").write_text(
        """
rule flaky:
    output: "done.txt"
    resources: mem_mb=lambda wildcards, attempt: attempt * 100
    shell: "test {resources.mem_mb} -ge 200 && touch {output}"
"""
    )
    ran = snakemake(folder, environ, "--retries", "2")
    assert ran.returncode == 0, ran.stdout
    assert (folder / "done.txt").exists()


def test_too_much_memory_is_refused_clearly_and_other_jobs_finish(folder, environ):
    """A rule no queue can hold fails at once with the reason; it holds up nobody."""
    (folder / "Snakefile").write_text(
        """
rule all:
    input: "huge.txt", "small.txt"
rule huge:
    output: "huge.txt"
    resources: mem_mb=10**9
    shell: "touch {output}"
rule small:
    output: "small.txt"
    shell: "touch {output}"
"""
    )
    ran = snakemake(folder, environ, "--keep-going")
    assert ran.returncode == 1
    assert "1000000000 MB" in ran.stdout
    assert "Traceback" not in ran.stdout
    assert (folder / "small.txt").exists()
    expect_nothing_left(environ)


def test_a_runtime_is_kept(folder, environ):
    """A job that runs longer than it may is stopped, and the report says so."""
    (folder / "Snakefile").write_text(
        'rule slow:\n    output: "slow.txt"\n    shell: "sleep 60; touch {output}"\n'
    )
    begun = time.monotonic()
    ran = snakemake(folder, environ, "--hpcburst-default-runtime", "0.05")
    assert ran.returncode == 1
    assert "longer than the 3 s" in ran.stdout, ran.stdout
    assert time.monotonic() - begun < 45


@pytest.mark.parametrize("mode", ["direct", "zygote", "spawn"])
def test_ctrl_c_leaves_nothing_behind(folder, environ, mode):
    """After SIGINT no rule, no nested snakemake and no pilot is left."""
    (folder / "Snakefile").write_text(
        'rule all:\n    input: expand("{i}.txt", i=range(4))\n'
        'rule slow:\n    output: "{i}.txt"\n    shell: "touch begun; sleep 600; touch {output}"\n'
    )
    options = command("--hpcburst-mode", mode)
    with subprocess.Popen(
        options,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as main:
        wait_until((folder / "begun").exists, "the begin of a rule", within_s=DEADLINE_S)
        main.send_signal(signal.SIGINT)
        output = main.communicate(timeout=DEADLINE_S)[0]
    assert main.returncode != 0
    assert "Traceback" not in output, output
    expect_nothing_left(environ)


def test_sigterm_lets_running_jobs_finish_and_leaves_nothing(folder, environ):
    """Snakemake's promise for SIGTERM holds: what runs is finished, nothing new begins."""
    (folder / "Snakefile").write_text(
        'rule all:\n    input: "second.txt"\n'
        'rule first:\n    output: "first.txt"\n    shell: "touch begun; sleep 3; touch {output}"\n'
        'rule second:\n    input: "first.txt"\n    output: "second.txt"\n'
        '    shell: "touch {output}"\n'
    )
    with subprocess.Popen(
        command(), cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as main:
        wait_until((folder / "begun").exists, "the begin of the first rule", within_s=DEADLINE_S)
        main.terminate()
        main.communicate(timeout=DEADLINE_S)
    assert (folder / "first.txt").exists()
    assert not (folder / "second.txt").exists()
    expect_nothing_left(environ)


def test_a_group_uses_its_own_cores_and_no_more(folder, environ):
    """A group job runs on the cores of its group, however many the node has."""
    (folder / "Snakefile").write_text(
        """
rule all:
    input: "cores.txt"
rule one:
    output: "one.txt"
    group: "g"
    shell: "touch {output}"
rule two:
    input: "one.txt"
    output: "cores.txt"
    group: "g"
    shell: "touch {output}"
"""
    )
    ran = snakemake(folder, environ, "--hpcburst-keep-logs")
    assert ran.returncode == 0, ran.stdout
    (log,) = (folder / ".snakemake" / "hpcburst_logs").rglob("*.log")
    assert "Provided cores: 1 " in log.read_text()


def test_a_precommand_runs_before_each_job(folder, environ):
    """--precommand still holds: such jobs run in a new process behind it."""
    (folder / "Snakefile").write_text(
        'rule a:\n    output: "a.txt"\n    shell: "echo $GREETING > {output}"\n'
    )
    ran = snakemake(folder, environ, "--precommand", "export GREETING='hello there'")
    assert ran.returncode == 0, ran.stdout
    assert (folder / "a.txt").read_text() == "hello there\n"


@pytest.mark.channel
@pytest.mark.parametrize("mode", ["zygote", "spawn"])
def test_sdm_conda_works_without_any_conda(folder, environ, mode, channel_url):
    """A rule runs in its own conda env on a machine that has no conda command."""
    (folder / "env.yaml").write_text(f"channels: [{channel_url}]\ndependencies: [python]\n")
    (folder / "Snakefile").write_text(
        """
rule all:
    input: "a.txt", "b.txt"
rule one:
    output: "{name}.txt"
    conda: "env.yaml"
    shell: "python -c 'import sys; print(sys.prefix)' > {output}"
"""
    )
    ran = snakemake(
        folder, {**environ, "PATH": path_without_conda()}, "--sdm", "conda", "--hpcburst-mode", mode
    )
    assert ran.returncode == 0, ran.stdout
    prefixes = {(folder / f"{name}.txt").read_text() for name in "ab"}
    assert len(prefixes) == 1
    assert prefixes.pop().startswith(str(folder / ".snakemake" / "conda"))
    expect_nothing_left(environ)


def path_without_conda() -> str:
    """This PATH without the folders that hold a conda command."""
    entries = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if not (Path(entry) / "conda").exists())


def test_logs_of_successful_jobs_go_unless_kept(folder, environ):
    """Without --hpcburst-keep-logs a run that went well leaves no log."""
    (folder / "Snakefile").write_text('rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n')
    assert snakemake(folder, environ).returncode == 0
    assert not list((folder / ".snakemake" / "hpcburst_logs").rglob("*.log"))


def test_help_shows_the_settings(folder, environ):
    """`snakemake --help` lists every setting of the executor."""
    shown = snakemake(folder, environ, "--help").stdout
    for name in ("max-jobs", "mode", "shapes", "default-mem-mb", "default-runtime", "queue"):
        assert f"--hpcburst-{name}" in shown
    assert "--hpcburst-keep-logs" in shown
    assert "--hpcburst-log-dir" in shown
