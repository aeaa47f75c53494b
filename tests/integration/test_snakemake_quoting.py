"""Names that a stranger chose are data: in commands, job scripts, logs and what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.workflows import Workflow

NAMES = [
    "a$(touch pwned)",
    "b`touch pwned`",
    "c;touch pwned;",
    "d\ntouch pwned\n#",
    "-e --flag",
    'it\'s "both" of them',
    "f' || touch pwned || ' f",
    "g%j&x>pwned",
    "h {} *?[a]~!",
    "\\n \\",
]
ONLY_WITHOUT_NESTING = ["'outer'", 'it is "both"', "a,b=c"]
"""Snakemake's own command line loses these; a nested call refuses them (`test_commands`)."""

SNAKEFILE = """
names = glob_wildcards("in/{name,[^/]+}.txt").name
wildcard_constraints: name="[^/]+"
rule all:
    input: expand("out/{name}.txt", name=names)
rule one:
    input: "in/{name}.txt"
    output: "out/{name}.txt"
    log: "log/{name}.log"
    params: again=lambda wildcards: wildcards.name
    resources: note=lambda wildcards: wildcards.name
    shell: "printf '%s' {params.again:q} > {output:q}; cat {input:q} >> {output:q}; date > {log:q}"
"""


@pytest.mark.parametrize("mode", ["direct", "zygote"])
def test_no_name_of_a_file_is_ever_run(tmp_path: Path, mode: str):
    """Commands, quotes, line ends and dashes in the names of files are nothing but names."""
    names = NAMES + (ONLY_WITHOUT_NESTING if mode == "direct" else [])
    workflow = Workflow.at(tmp_path, SNAKEFILE)
    (workflow.folder / "in").mkdir()
    for name in names:
        (workflow.folder / "in" / f"{name}.txt").write_text("!")
    ran = workflow.run("--hpcburst-keep-logs", mode=mode)
    assert ran.returncode == 0, ran.stdout
    made = {path.name: path.read_text() for path in (workflow.folder / "out").iterdir()}
    assert made == {f"{name}.txt": f"{name}!" for name in names}
    assert [path for path in tmp_path.rglob("*") if path.name == "pwned"] == []
    assert len(workflow.logs()) == len(names)
