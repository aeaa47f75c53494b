"""The commands of LSF."""

from __future__ import annotations

import sys

from support.fakebatch.engine import Refused, cancel, start, states
from support.fakebatch.reading import NAME, PATH, QUEUES, check_queue, directives, expect, seconds

TROUBLE = "LSF is down. Please wait ..."


def bsub(folder, args):
    if args:
        raise Refused(f"{args}: a script comes on standard input")
    script = sys.stdin.read()
    found = directives(
        script,
        "#BSUB",
        f'-J {NAME}|-q (?P<queue>{NAME})|-P "{NAME}"',
        r'-n \d+|-M \d+|-W (?P<time>\d\d+:\d\d)|-gpu "num=\d+(:gmodel=\w+)?"|-R "span\[hosts=1\]"',
        rf"-rn|-o (?P<log>{PATH})|-wa USR1 -wt \d+",
        r'-R "(select|rusage|span)\[[^"\]]*\]"',
        rf"-sla {NAME}|-U {NAME}",
    )
    check_queue(found)
    walltime_s = seconds(found["time"]) * 60
    job = start(folder, script, walltime_s, found["log"].replace("%J", "%j"), "LSB_JOBID")
    print(f"Job <{job}> is submitted to queue <{found.get('queue', QUEUES[0])}>.")


def bjobs(folder, args):
    if args[:3] == ["-noheader", "-o", "time_left"]:
        print("0:01 L")
        return 0
    form = "jobid stat exec_host pend_reason delimiter='|'"
    numbers = expect(args, "-a", "-noheader", "-o", form)
    rows = {"P": "PEND|-|Job slot limit reached;", "R": "RUN|n1|-", "E": "DONE|n1|-"}
    told = states(folder, numbers)
    for job, letter in told.items():
        if letter == "U":
            print(f"Job <{job}> is not found", file=sys.stderr)
        else:
            print(f"{job}|{rows[letter]}")
    return 255 if "U" in told.values() else 0


def bkill(folder, args):
    return cancel(folder, args, ("Job <{}>: No matching job found", 255))


COMMANDS = {"bsub": bsub, "bjobs": bjobs, "bkill": bkill}
