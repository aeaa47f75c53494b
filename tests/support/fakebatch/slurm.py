"""The commands of Slurm."""

from __future__ import annotations

import time
from pathlib import Path

from support.fakebatch.engine import Refused, all_jobs, cancel, start, states
from support.fakebatch.reading import NAME, PATH, check_queue, directives, expect, seconds

TROUBLE = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


def sbatch(folder, args):
    (path,) = args
    script = Path(path).read_text()
    found = directives(
        script,
        "#SBATCH",
        f"-J {NAME}|-p (?P<queue>{NAME})|-A {NAME}",
        r"-n 1|--cpus-per-task=\d+|--mem=\d+M|-t (?P<time>\d+:\d\d:00)|--gres=gpu:\d+",
        rf"--no-requeue|-o (?P<log>{PATH})|--signal=B:USR1@\d+|--exclude=[\w.,-]+",
        rf"--nodes=\d+|--ntasks=\d+|--ntasks-per-node=\d+|--gres=gpu:{NAME}:\d+|--tmp=\d+M",
        rf"--(?:qos|reservation)={NAME}|--constraint=[\w&|]+",
    )
    check_queue(found)
    log = found["log"].replace("%J", "%j")
    job = start(folder, script, seconds(found["time"]), log, "SLURM_JOB_ID")
    print(f"Submitted batch job {job}")


def squeue(folder, args):
    if args[:3] == ["-h", "-t", "PD"]:
        expect(args, "-h", "-t", "PD", "--start", "-o", "%S|%Y")
        return
    if args[:2] == ["-h", "-j"]:
        expect(args[3:], "-o", "%e")
        print(int(time.time()) + 60)
        return
    words = ("-h", "--me", "-n", "hpcburst", "-t", "all", "-o", "%i|%T|%B|%r")
    if expect(args, *words):
        raise Refused(f"unrecognized: {args}")
    rows = {"P": "PENDING|n/a|Priority", "R": "RUNNING|n1|None", "E": "COMPLETED|n1|None"}
    for job, letter in states(folder, all_jobs(folder)).items():
        print(f"{job}|{rows[letter]}")


def sinfo(_folder, args):
    expect(args, "-h", "-N", "-p")


def scancel(folder, args):
    return cancel(folder, args, ("", 0))


COMMANDS = {"sbatch": sbatch, "squeue": squeue, "scancel": scancel, "sinfo": sinfo}
