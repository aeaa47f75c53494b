"""The embedded queue: a batch system in one file. Its jobs are processes on this machine.

    localqueue.py submit SPOOL SCRIPT     prints "Submitted local job ID"
    localqueue.py states SPOOL ID...      prints "ID running|ended|unknown" for each
    localqueue.py cancel SPOOL ID...      ends them; waits until they are gone

It does for a job what a real one does: the job outlives the command that submitted it, its output
goes to a file, its walltime is kept (SIGTERM, `KILL_WAIT_S` later SIGKILL), and when it ends
nothing of it is left, whatever sessions or groups its processes made. That last is the work of the
job's *shepherd*: a process that adopts every orphan of the job (Linux "child subreaper") and ends
them all.

Jobs start at once: how many run together is the planner's decision, which knows the machine.
The file is a program, run by `python -I -S`; it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

KILL_WAIT_S = 5.0
"""Seconds between SIGTERM and SIGKILL, as in Slurm's default KillWait made shorter: our pilots
need one second to leave."""

CANCEL_WAIT_S = KILL_WAIT_S + 5.0

PR_SET_CHILD_SUBREAPER = 36

DIRECTIVE = re.compile(r"^#LOCALQ (walltime|output)=(.+)$", re.MULTILINE)


def main(argv: list[str]) -> int:
    """Run one verb; returns the exit status."""
    verbs = {"submit": submit, "states": states, "cancel": cancel}
    if len(argv) < 2 or argv[0] not in verbs:
        print(__doc__, file=sys.stderr)
        return 2
    return verbs[argv[0]](Path(argv[1]), argv[2:])


def submit(spool: Path, names: list[str]) -> int:
    """Start the shepherd of a new job, detached from us, and print the job's id."""
    (script,) = names
    text = Path(script).read_text()
    directives = dict(DIRECTIVE.findall(text))
    hear, tell = os.pipe()
    if os.fork() == 0:
        os.close(hear)
        os.setsid()
        if os.fork() != 0:  # the shepherd is nobody's child but init's: no zombie, no terminal
            os._exit(0)
        shepherd(spool, text, directives, tell)
    os.close(tell)
    with os.fdopen(hear) as pipe:
        job_id = pipe.read().strip()
    if not job_id:
        print("the job's shepherd did not start", file=sys.stderr)
        return 1
    print(f"Submitted local job {job_id}")
    return 0


def states(spool: Path, job_ids: list[str]) -> int:
    """Print the state of each job."""
    for job_id in job_ids:
        print(job_id, state_of(spool, job_id))
    return 0


def cancel(spool: Path, job_ids: list[str]) -> int:
    """End jobs and wait until they are gone."""
    for job_id in job_ids:
        if state_of(spool, job_id) == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job_id), signal.SIGTERM)
    deadline = time.monotonic() + CANCEL_WAIT_S
    while any(state_of(spool, job_id) == "running" for job_id in job_ids):
        if time.monotonic() > deadline:
            print("some jobs do not end", file=sys.stderr)
            return 1
        time.sleep(0.02)
    return 0


def state_of(spool: Path, job_id: str) -> str:
    """The state of a job: "running", "ended" or "unknown"."""
    try:
        record = json.loads((spool / f"{int(job_id)}.job").read_text())
    except (OSError, ValueError):
        return "unknown"
    alive = record["ended"] is None and started_at(int(job_id)) == record["started"]
    return "running" if alive else "ended"


def started_at(pid: int) -> str:
    """Start time of a live process in ticks since boot; "" if there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def shepherd(spool: Path, text: str, directives: dict[str, str], tell: int) -> NoReturn:
    """Be the job: run the script, keep its walltime, leave nothing behind. Never returns."""
    job_id = os.getpid()
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        detach_output(log_path(directives, job_id))
        script = write_record(spool, job_id, ended=None).with_suffix(".sh")
        script.write_text(text)
        script.chmod(0o700)
        os.write(tell, str(job_id).encode())
        os.close(tell)
        status = tend(script, float(directives.get("walltime", "inf")), watched)
        script.unlink(missing_ok=True)
        write_record(spool, job_id, ended=status)
    except OSError as error:
        print(f"job {job_id}: {error}", file=sys.stderr)  # who submits it reads this
    finally:
        os._exit(status & 0xFF)


def tend(script: Path, walltime_s: float, watched: set[signal.Signals]) -> int:
    """Run the script to its end, its walltime or a cancel; returns its exit status."""
    first = os.fork()
    if first == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
        os.setsid()
        os.execv("/bin/sh", ["/bin/sh", str(script)])  # noqa: S606 - a job script is a shell script
    deadline = time.monotonic() + walltime_s
    while True:
        left_s = min(deadline - time.monotonic(), 3600.0)
        told = signal.sigtimedwait(watched, max(left_s, 0.0))
        status = reap(first)
        if status is not None:
            break
        if told is None and time.monotonic() < deadline:
            continue
        if told is None or told.si_signo != signal.SIGCHLD:
            status = 143 if told else 140
            break
    end_all(first)
    return status


def reap(first: int) -> int | None:
    """Collect every child that ended; the exit status of `first` if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found if found is not None else 0
        if pid == 0:
            return found
        if pid == first:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def end_all(first: int) -> None:
    """SIGTERM to all that is left of the job, SIGKILL to what stays; until none is left."""
    kill_at = time.monotonic() + KILL_WAIT_S
    told: set[int] = set()
    while left := descendants(os.getpid()):
        late = time.monotonic() > kill_at
        for pid in left if late else left - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told |= left
        time.sleep(0.02)
        reap(first)
    reap(first)


def descendants(root: int) -> set[int]:
    """Pids of all processes below `root`, zombies left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def log_path(directives: dict[str, str], job_id: int) -> str:
    """Where a job's output goes; "%j" in the file's name, not in its folder's, is the job id."""
    stated = Path(json.loads(directives.get("output", json.dumps(os.devnull))))
    return str(stated.with_name(stated.name.replace("%j", str(job_id))))


def detach_output(log: str) -> None:
    """Point stdin at nothing, stdout and stderr at the job's log."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)


def write_record(spool: Path, job_id: int, *, ended: int | None) -> Path:
    """Write the job's record, aside first; returns its path."""
    record = spool / f"{job_id}.job"
    aside = spool / f".{job_id}.{secrets.token_hex(3)}"
    aside.write_text(json.dumps({"started": started_at(job_id), "ended": ended}))
    aside.replace(record)
    return record


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
