"""The undertaker: ends the jobs of a driver that was killed and cannot do it itself.

    python -I -S undertaker.py COMMAND...

A driver keeps one beside it while it has jobs, and tells it through a pipe which: `+ID` is one
more, `-ID` one less. When the pipe ends and jobs are left, it runs `COMMAND... ID...`. What waits
in a queue would start later otherwise, in vain, and hold a place until then. The program is of the
standard library alone and starts in some milliseconds.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

PROGRAM = Path(__file__)

PAUSES_S = (5.0, 30.0, 120.0, 600.0)
"""Before it tries again, while the batch system does not take the command."""

COMMAND_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Undertaker:
    """The driver's side.

    Attributes:
        command: What ends jobs whose ids follow it.
        environ: The environment in which it does.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    _job_ids: set[str] = field(default_factory=set)
    _process: subprocess.Popen[str] | None = None

    def watch(self, job_id: str) -> None:
        """From now on this job must not outlive this process."""
        self._job_ids.add(job_id)
        if self._process is None:
            self._process = self._started()
        self._tell(f"+{job_id}")

    def forget(self, job_ids: Iterable[str]) -> None:
        """These jobs have ended; with the last one, the undertaker goes."""
        for job_id in self._job_ids.intersection(job_ids):
            self._job_ids.remove(job_id)
            self._tell(f"-{job_id}")
        if self._process is not None and not self._job_ids:
            process, self._process = self._process, None
            process.communicate()  # it has nothing to do, and ends at once

    def _started(self) -> subprocess.Popen[str] | None:
        with suppress(OSError):  # no more processes: jobs then find out by themselves
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM), *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd="/",
                env=dict(self.environ),
                start_new_session=True,  # what ends the driver must not end it
            )
        return None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # somebody ended it
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()


def main(command: Sequence[str], told: IO[str]) -> None:
    """Listen until the driver is gone; then end what it left."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    job_ids: dict[str, None] = {}
    for line in told:
        job_id = line[1:].strip()
        if line[0] == "+":
            job_ids[job_id] = None
        else:
            job_ids.pop(job_id, None)
    for pause_s in PAUSES_S if job_ids else ():
        if _ended([*command, *job_ids]):
            return
        time.sleep(pause_s)


def _ended(argv: Sequence[str]) -> bool:
    """Whether the batch system took it; a job that is gone already may be a failure to it."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(argv, timeout=COMMAND_TIMEOUT_S, check=False)
        return done.returncode == 0
    return False


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdin)
