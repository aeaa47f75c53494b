"""The commands of HTCondor."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from support.fakebatch.engine import Refused, cancel, start, states
from support.fakebatch.reading import expect

TROUBLE = "-- Failed to fetch ads from: <127.0.0.1:9618> : fake"


def condor_submit(folder, args):
    (path,) = args
    lines = Path(path).read_text().splitlines()
    pairs = [line.split(" = ", 1) for line in lines if line and not line.startswith("#")]
    if pairs.pop() != ["Queue"] or any(len(pair) != 2 for pair in pairs):
        raise Refused("the submit file cannot be read")
    found = {name.lower(): value for name, value in pairs}
    quoted = found["arguments"]
    if not (quoted.startswith("\"-c '") and quoted.endswith("'\"") and found["executable"]):
        raise Refused(f"Arguments = {quoted}")
    command = quoted[5:-2].replace('""', '"').replace("''", "'")
    walltime_s = re.search(r"EnteredCurrentStatus > (\d+)", found["periodic_remove"])[1]
    script = f"exec {found['executable']} -c {shlex.quote(command)}\n"
    log = found["output"].replace("$(ClusterId)", "%j")
    job = start(folder, script, int(walltime_s), log, "")
    print(f"Submitting job(s).\n1 job(s) submitted to cluster {job}.")


def condor_q(folder, args):
    numbers = [job.split(".")[0] for job in args[:-5]]
    expect(args[-5:], "-af:t", "ClusterId", "JobStatus", "RemoteHost", "HoldReason")
    rows = {"P": ("1", "undefined"), "R": ("2", "slot1_1@n1")}
    for job, letter in states(folder, numbers).items():
        if letter in rows:
            print(job, *rows[letter], "undefined", sep="\t")


def condor_rm(folder, args):
    return cancel(folder, [job.split(".")[0] for job in args], ("Job {}.0 not found", 1))


COMMANDS = {"condor_submit": condor_submit, "condor_q": condor_q, "condor_rm": condor_rm}
