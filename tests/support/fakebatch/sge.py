"""The commands of Grid Engine."""

from __future__ import annotations

from pathlib import Path

from support.fakebatch.engine import Refused, all_jobs, cancel, start, states
from support.fakebatch.reading import NAME, PATH, check_queue, directives, expect, seconds

TROUBLE = "error: unable to contact qmaster using port 6444 on host fake"


def qsub(folder, args):
    (path,) = args
    script = Path(path).read_text()
    found = directives(
        script,
        "#$",
        f"-N {NAME}|-q (?P<queue>{NAME})|-P {NAME}",
        r"-l h_rt=(?P<time>\d+)|-l h_vmem=\d+M|-l gpu=\d+|-pe (smp|mpi) \d+|-l h=!\([\w.|-]+\)",
        rf"-ar {NAME}|-l (?!h_|gpu)\w+(=\w+)?",
        f"-cwd|-j y|-S /bin/bash|-r n|-w e|-o (?P<log>{PATH})",
    )
    check_queue(found)
    log = found["log"].replace("$JOB_ID", "%j")
    job = start(folder, script, seconds(found["time"]), log, "JOB_ID")
    print(f'Your job {job} ("hpcburst") has been submitted')


def qstat(folder, args):
    if expect(args, "-xml", "-u", "$user", "-s", "prsz"):
        raise Refused(f"invalid option argument: {args}")
    letters = {"P": ("qw", ""), "R": ("r", "short.q@n1"), "E": ("z", "")}
    print("<?xml version='1.0'?>\n<job_info>")
    for job, letter in states(folder, all_jobs(folder)).items():
        state, queue = letters[letter]
        print(f"<job_list><JB_job_number>{job}</JB_job_number><state>{state}</state>")
        print(f"<queue_name>{queue}</queue_name></job_list>")
    print("</job_info>")


def qdel(folder, args):
    return cancel(folder, args, ('denied: job "{}" does not exist', 1))


def qconf(_folder, args):
    raise Refused(f"nothing is configured here: {args}")


COMMANDS = {"qsub": qsub, "qstat": qstat, "qdel": qdel, "qconf": qconf}
