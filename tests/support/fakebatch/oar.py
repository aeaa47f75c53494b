"""The commands of OAR."""

from __future__ import annotations

import re

from support.fakebatch.engine import Refused, cancel, start, states
from support.fakebatch.reading import QUEUES, check_queue, expect, seconds

TROUBLE = "DB connection error, exiting."


def oarsub(folder, args):
    *options, body = args
    pairs = list(zip(options[::2], options[1::2], strict=True))
    allowed = {"-n", "-q", "--project", "-l", "-O", "-E", "-p", "--checkpoint", "--signal", "-t"}
    found = dict(pairs)
    if set(found) - allowed:
        raise Refused(f"unknown options: {options}")
    check_queue({"queue": found.get("-q", QUEUES[0])})
    asked = re.fullmatch(r"/nodes=\d+/(?:core|gpu)=\d+,walltime=([\d:]+)", found["-l"])
    if asked is None:
        raise Refused(f"-l {found['-l']}")
    log = found["-O"].replace("%jobid%", "%j")
    job = start(folder, body + "\n", seconds(asked[1]), log, "OAR_JOB_ID")
    print(f"[ADMISSION RULE] Modify resource description\nOAR_JOB_ID={job}")


def oarstat(folder, args):
    words = expect(args, "-f")
    words_of = {"P": "Waiting", "R": "Running", "E": "Terminated"}
    for job, letter in states(folder, words[1::2]).items():
        if letter in words_of:
            print(f"Job_Id: {job}\n    state = {words_of[letter]}\n    assigned_hostnames = n1")


def oardel(folder, args):
    return cancel(folder, args, ("Deleting the job = {} ...ERROR: the job does not exist", 6))


COMMANDS = {"oarsub": oarsub, "oarstat": oarstat, "oardel": oardel}
