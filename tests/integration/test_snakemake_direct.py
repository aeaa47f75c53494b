"""Plain shell rules run without a nested Snakemake, and nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.workflows import PILOT_OF_RULE, Workflow

NODES_OWN = {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}
SHELLS_OWN = {"_", "SHLVL", "PWD", "OLDPWD"}
MODES = ["direct", "zygote"]


def variables(text: str) -> dict[str, str]:
    """What `env -0` wrote."""
    pairs = dict(row.split("=", 1) for row in text.split("\0") if row)
    places = pairs["PATH"].split(":")  # the stand-in for conda is the executor's own offer
    pairs["PATH"] = ":".join(place for place in places if "conda-standin" not in place)
    return {name: value for name, value in pairs.items() if name not in SHELLS_OWN}


def test_a_rule_sees_what_it_sees_under_the_local_executor(tmp_path: Path):
    """Variables, working directory, shell options and the program's own name are the same."""
    workflow = Workflow.at(
        tmp_path,
        """
workdir: "elsewhere"
shell.prefix("set -eu; GREETING='it is'; ")
shell.suffix("; echo done >> ends")
rule all:
    input: "env", "seen.txt"
rule env:
    output: "env"
    shell: "env -0 > {output}"
rule seen:
    output: "seen.txt"
    threads: 2
    resources: shell_exec="bash", mem_mb=100
    shell: "echo $0 $- $PWD $OMP_NUM_THREADS {threads} {resources.mem_mb} $GREETING > {output}"
""",
    )
    seen = {}
    for mode in ("local", "direct"):
        ran = workflow.run("--forceall", "--hpcburst-keep-logs", mode=mode)
        assert ran.returncode == 0, ran.stdout
        seen[mode] = [
            variables(workflow.read("elsewhere/env")),
            workflow.read("elsewhere/seen.txt"),
        ]
    nodes = {name: seen["direct"][0].pop(name) for name in NODES_OWN}
    assert len(set(nodes.values())) == 1, "every name for the folder of temporary files is one"
    for name in NODES_OWN:
        assert seen["local"][0].pop(name)
    differing = set(seen["direct"][0].items()) ^ set(seen["local"][0].items())
    assert not differing
    assert seen["direct"] == seen["local"]
    (log,) = (path for path in tmp_path.rglob("*.log") if path.parent.name == "seen")
    assert log.read_text() == "", "no nested Snakemake wrote"


NEEDS_SNAKEMAKE = """
WORD = "of the main file"
conda_env = "a global that the rule hides"
NAMES = "plain quoted bench shadow tmpdir own hidden run script nested long module"

rule all:
    input: expand("{i}.txt", i=NAMES.split())

module other:
    snakefile: "other.smk"

use rule * from other as other_*

rule plain:
    output: "plain.txt"
    params: f=lambda wildcards: "a parameter"
    shell: "echo {params.f} {WORD} {rule} > {output}"
rule quoted:
    output: "quoted.txt"
    params: f=["it's", "{{}}"]
    shell: "echo {params.f:q} {{}} > {output:q}"
rule bench:
    output: "bench.txt"
    benchmark: "bench.tsv"
    shell: "echo > {output}"
rule shadow:
    output: "shadow.txt"
    shadow: "minimal"
    shell: "touch rubbish; echo > {output}"
rule tmpdir:
    output: "tmpdir.txt"
    shell: "test -d {resources.tmpdir}; test {resources.tmpdir} = $TMPDIR; echo > {output}"
rule own:
    output: "own.txt"
    resources: tmpdir="own/folder"
    shell: "test -d own/folder; echo $TMPDIR > {output}"
rule hidden:
    output: "hidden.txt"
    shell: "echo {conda_env} > {output}"
rule run:
    output: "run.txt"
    run:
        shell("echo > {output}")
rule script:
    output: "script.txt"
    script: "make.sh"
rule nested:
    output: "nested.txt"
    params: width=5
    shell: "echo {output:{params.width}} > {output}"
rule long:
    output: "long.txt"
    params: words="x" * 70000
    shell: "echo {params.words} > {output}"
"""
PLAIN = {"plain", "quoted"}


def test_rules_for_which_it_is_not_exact_run_in_a_nested_snakemake(tmp_path: Path):
    """Every rule that the shell command alone would change gets all it is used to."""
    workflow = Workflow.at(tmp_path, NEEDS_SNAKEMAKE)
    (workflow.folder / "make.sh").write_text('touch "${snakemake_output[0]}"\n')
    (workflow.folder / "other.smk").write_text(
        'WORD = "of the module"\n'
        'rule word:\n    output: "module.txt"\n    shell: "echo {WORD} > {output}"\n'
    )
    ran = workflow.run("--hpcburst-keep-logs", "--verbose", mode="direct")
    assert ran.returncode == 0, ran.stdout
    assert "shadow runs in a nested Snakemake: it has a shadow folder." in ran.stdout
    nested = {name.partition("/")[0] for name, log in workflow.logs().items() if "rule " in log}
    assert PLAIN.isdisjoint(nested)
    assert nested | PLAIN == {name.partition("/")[0] for name in workflow.logs()}
    assert workflow.read("plain.txt") == "a parameter of the main file plain\n"
    assert workflow.read("quoted.txt") == "it's {{}} {}\n"
    assert workflow.read("module.txt") == "of the module\n"
    assert workflow.read("hidden.txt") == "None\n"
    assert workflow.read("own.txt") == "own/folder\n"


@pytest.mark.parametrize("mode", MODES)
def test_a_job_lost_with_its_pilot_begins_anew_and_costs_no_retry(tmp_path: Path, mode: str):
    """The second try finds no half-written output of the first, and is still attempt 1."""
    workflow = Workflow.at(
        tmp_path,
        'rule once:\n    output: "out.txt", directory("folder")\n    log: "log.txt"\n'
        "    resources: attempts=lambda wildcards, attempt: attempt\n"
        '    shell: "echo {resources.attempts} >> {output[0]}; echo >> {log};'
        " mkdir {output[1]}; echo >> {output[1]}/file;"
        " test -e lost || {{ touch lost; " + PILOT_OF_RULE + 'kill -9 $p; sleep 60; }}"\n',
    )
    ran = workflow.run(mode=mode)
    assert ran.returncode == 0, ran.stdout
    assert (workflow.folder / "lost").exists()
    assert workflow.read("out.txt") == "1\n"
    assert workflow.read("log.txt") == "\n"
    assert workflow.read("folder/file") == "\n"
    assert "Trying to restart" not in ran.stdout
