"""What all fake batch systems share: jobs (processes of the embedded queue) and faults."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

LOCALQUEUE = Path(__file__).parents[3] / "executors" / "hpcburst" / "jobs" / "localqueue.py"
_spec = spec_from_file_location("localqueue", LOCALQUEUE)
queue = module_from_spec(_spec)
_spec.loader.exec_module(queue)  # by its file: the package around it is not imported here
HOLD, CALLS, MARK = "hold", "calls.jsonl", "HPCBURST_FAKE_SCHEDULER"


class Refused(Exception):
    """The command line or the job was not accepted."""


def local(folder, verb, *words):
    """Run a verb of the embedded queue; its output."""
    argv = [sys.executable, "-I", "-S", str(LOCALQUEUE), verb, str(folder / "spool"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def states(folder, numbers):
    """Letters of these jobs: P(ending), R(unning), E(nded), and U(nknown)."""
    told = {job: queue.state_of(folder / "spool", job) for job in numbers}
    letters = {"running": "R", "ended": "E", "unknown": "U"}
    started = {path.name for path in (folder / "started").iterdir()}
    return {
        job: "P" if state == "running" and job not in started else letters[state]
        for job, state in told.items()
    }


def all_jobs(folder):
    """Numbers of all jobs there ever were."""
    return sorted((path.stem for path in (folder / "spool").glob("*.job")), key=int)


def start(folder, script, walltime_s, log, variable, job_id="$PPID"):
    """Submit a script to the embedded queue; the job's number."""
    head = [
        "#!/bin/sh",
        f"#LOCALQ walltime={walltime_s}",
        f"#LOCALQ output={json.dumps(log)}",
        f"export {MARK}={shlex.quote(str(folder))}",
        f"export {variable}={job_id}" if variable else ":",
        f"while [ -e {shlex.quote(str(folder / HOLD))} ]; do sleep 0.05; done",
        f": >{shlex.quote(str(folder / 'started'))}/$PPID",  # our parent is the job's shepherd
    ]
    path = folder / f"submit-{os.getpid()}.sh"
    path.write_text("\n".join(head) + "\n" + script)
    try:
        return re.search(r"\d+", local(folder, "submit", str(path)))[0]
    finally:
        path.unlink()


def cancel(folder, numbers, gone):
    """End jobs; `gone` is what to say of one that is not there, and with which status."""
    known = states(folder, numbers)
    local(folder, "cancel", *(job for job in numbers if known[job] in "PR"))
    words, status = gone
    absent = [job for job in numbers if known[job] not in "PR"]
    for job in absent:
        print(words.format(job))
    return status if absent and words else 0


def change_faults(folder, change):
    """Replace the faults by what `change` makes of them; what they were before."""
    with (folder / "faults.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        old = json.loads(file.read() or "{}")
        file.truncate(0)
        file.write(json.dumps(change(old)))
    return old


def suffer(folder, command, trouble):
    """What the test asked to go wrong."""
    submits = command in ("sbatch", "qsub", "bsub", "condor_submit", "oarsub")

    def one_refusal_less(faults):
        left = faults.get("refuse", 0)
        return faults | {"refuse": max(0, left - submits)}

    faults = change_faults(folder, one_refusal_less)
    time.sleep(max(0.0, faults.get("silent_until", 0.0) - time.time()))
    print(faults.get("banner", ""), end="\n" if faults.get("banner") else "")
    if faults.get("down"):
        raise Refused(trouble)
    if submits and faults.get("refuse", 0):
        raise Refused("job submission failed: the queue is closed for a moment")
