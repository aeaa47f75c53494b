"""A batch system made of commands on PATH, in every flavour, with faults on demand.

    with FakeScheduler("slurm", folder) as batch:
        monkeypatch.setenv("PATH", batch.path)
        batch.refuse(3)

Its jobs really run, as processes of the embedded queue. Its commands take exactly what our dialects
and dask-jobqueue send, and refuse anything else, as the real ones would (`fakebatch`).
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpcburst.jobs.local import LocalDialect
from support.fakebatch import engine
from support.fakebatch.commands import FLAVOURS
from support.processes import marked

RUN = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
    "from support.fakebatch.commands import main; sys.exit(main(sys.argv[1:]))"
)


@dataclass
class FakeScheduler:
    """A batch system of one user on this machine.

    Attributes:
        flavour: Which one: a key of `known.DIALECTS`, not "local".
        folder: Where its files go; made, and private to it.
    """

    flavour: str
    folder: Path

    def __post_init__(self):
        for name in ("bin", "spool", "started"):
            (self.folder / name).mkdir(parents=True)
        for command in FLAVOURS[self.flavour][0]:
            self._write_command(command)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def path(self):
        """PATH with its commands first."""
        return f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def which(self, command):
        """Where one of its commands is; None for what is no command of its."""
        found = self.folder / "bin" / command
        return str(found) if found.exists() else None

    # -- faults -----------------------------------------------------------------------------

    def refuse(self, times):
        """Refuse the next submissions."""
        self._fault(refuse=times)

    def be_silent(self, seconds):
        """Let every command wait for so long from now on, and then answer."""
        self._fault(silent_until=time.time() + seconds)

    def be_down(self, down=True):
        """Fail every command as when the daemon is away; jobs go on."""
        self._fault(down=down)

    def print_first(self, banner):
        """Print these lines before every answer."""
        self._fault(banner=banner)

    def hold(self):
        """Let jobs that are submitted from now on wait in the queue."""
        (self.folder / engine.HOLD).touch()

    def let_go(self):
        """Start all that waits."""
        (self.folder / engine.HOLD).unlink(missing_ok=True)

    # -- what happened ----------------------------------------------------------------------

    @property
    def calls(self):
        """Every command that was run so far, as argv."""
        log = self.folder / engine.CALLS
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def job_ids(self):
        """Numbers of all jobs there ever were."""
        return sorted((path.stem for path in (self.folder / "spool").glob("*.job")), key=int)

    @property
    def alive(self):
        """Numbers of the jobs that wait or run."""
        return [job for job in self.job_ids if engine.states(self.folder, [job])[job] != "E"]

    def close(self):
        """End all jobs and whatever they left behind. Idempotent."""
        argv = LocalDialect(self.folder / "spool").cancel_argv(self.job_ids)
        subprocess.run(argv, check=False, timeout=60, stdin=subprocess.DEVNULL)
        for pid in marked(f"{engine.MARK}={self.folder}"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _fault(self, **fields):
        engine.change_faults(self.folder, lambda faults: faults | fields)

    def _write_command(self, command):
        script = self.folder / "bin" / command
        words = [sys.executable, "-I", "-S", "-c", RUN, self.folder, self.flavour, command]
        quoted = " ".join(shlex.quote(str(word)) for word in words)
        script.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        script.chmod(0o755)
