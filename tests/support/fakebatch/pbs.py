"""The commands of PBS, and Torque, which differs in little."""

from __future__ import annotations

import sys
from pathlib import Path

from support.fakebatch.engine import Refused, cancel, start, states
from support.fakebatch.reading import NAME, PATH, check_queue, directives, expect, seconds

TROUBLE = "qstat: cannot connect to server fake (errno=15010)"


def qsub(folder, args):
    (path,) = args
    script = Path(path).read_text()
    found = directives(
        script,
        "#PBS",
        f"-N {NAME}|-q (?P<queue>{NAME})|-A {NAME}",
        r"-l walltime=(?P<time>[\d:]+)|-r n|-j oe|-S /bin/bash",
        f"-o (?P<log>{PATH})/",
        r"-l select=\d+:ncpus=\d+:mem=\d+mb(:ngpus=\d+)?(:mpiprocs=\d+)?(:\w+=\w+)*",
        r"-l nodes=\d+:ppn=\d+(:gpus=\d+)?(:\w+)*,mem=\d+mb(,\w+=\d+mb)?",
        rf"-l (?:qos|advres)={NAME}",
    )
    check_queue(found)
    log = f"{found['log']}/%j.OU"
    print(start(folder, script, seconds(found["time"]), log, "PBS_JOBID", "$PPID.fake") + ".fake")


def qstat(folder, args):
    if args == ["--version"]:
        print("pbs_version = 23.06.06")
        return 0
    numbers = [job.split(".")[0] for job in expect(args, "-f") if job != "-x"]
    letters = {"P": "Q", "R": "R", "E": "F"}
    told = states(folder, numbers)
    for job, letter in told.items():
        if letter == "U":
            print(f"qstat: Unknown Job Id {job}.fake", file=sys.stderr)
            continue
        print(f"Job Id: {job}.fake\n    Job_Name = hpcburst\n    job_state = {letters[letter]}")
        print("    comment = Not Running: Insufficient amount of resource" * (letter == "P"))
    return 153 if "U" in told.values() else 0


def torque_qstat(folder, args):
    if args == ["--version"]:
        print("Version: 6.1.3", file=sys.stderr)
        return 0
    if "-x" in args:
        raise Refused("-x is XML here")
    return qstat(folder, args)


def qdel(folder, args):
    numbers = [job.split(".")[0] for job in args]
    return cancel(folder, numbers, ("qdel: Unknown Job Id {}.fake", 153))


COMMANDS = {"qsub": qsub, "qstat": qstat, "qdel": qdel}
TORQUE_COMMANDS = {"qsub": qsub, "qstat": torque_qstat, "qdel": qdel}
