"""A batch job of a task's own: no pilot, no Dask. What the job's script runs.

    python -m hpcburst.workers.own_job FOLDER ...

(dask-jobqueue, which writes the script, adds what a Dask worker would want to know.)
The folder is private and shared; `task.json` in it says what to run. The program runs in the batch
job's own environment (launchers of parallel programs read it), with the task's on top. How it
ended goes to `outcome.json`, written aside and then renamed. The driver touches `alive` in the
folder above: when it has not for a while, the driver is gone, and so is this job.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private
from hpcburst.tasks import Command
from hpcburst.workers.command_server import CommandServers
from hpcburst.workers.commands import CommandReply, run_command

TASK, OUTCOME, ALIVE = "task.json", "outcome.json", "alive"

HEARTBEAT_S = 20.0
"""How often the driver says that it is there."""

PATIENCE = 10
"""So many heartbeats may be missed: shared file systems show changes late."""


def main(argv: list[str]) -> int:
    """Run the task; returns its exit status, so that the batch system knows it too."""
    folder = Path(argv[0])
    task = json.loads((folder / TASK).read_bytes())
    stopped = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopped.set())
    watched = (folder.parent / ALIVE, float(task["heartbeat_s"]), stopped)
    threading.Thread(target=_watch, args=watched, daemon=True).start()
    reply = run_command(
        _command(task),
        servers=CommandServers(),
        timeout_s=task["timeout_s"],
        cancelled=stopped,
        on_line=lambda line: print(line.text, flush=True),  # noqa: T201 - the job's own log
    )
    _tell(folder, reply)
    return reply.returncode if 0 <= reply.returncode < 128 else 1


def _command(task: dict[str, Any]) -> Command:
    environ = {**os.environ, **task["environ"]}
    return Command(tuple(task["argv"]), cwd=task["cwd"], environ=environ, log=task["log"])


def _tell(folder: Path, reply: CommandReply) -> None:
    outcome = {
        "returncode": reply.returncode,
        "failure": None if reply.failure is None else asdict(reply.failure),
        "usage": asdict(reply.usage),
        "host": socket.gethostname(),
    }
    write_private(folder / OUTCOME, json.dumps(outcome).encode())


def _watch(alive: Path, heartbeat_s: float, stopped: threading.Event) -> None:
    """Stop the task when the driver has not been heard of for a while."""
    heard, last = time.monotonic(), -1.0
    while not stopped.wait(heartbeat_s / 2):
        try:
            beat = alive.stat().st_mtime
        except OSError:
            beat = last
        if beat != last:
            heard, last = time.monotonic(), beat
        elif time.monotonic() - heard > PATIENCE * heartbeat_s:
            stopped.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
