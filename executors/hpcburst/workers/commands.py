"""Run a program for a task on the pilot: in a session of its own, measured, and stoppable."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcburst.results import Failure, Fault, Line, Usage
from hpcburst.tasks import Command
from hpcburst.workers.command_server import CommandServers, Ended
from hpcburst.workers.oom import oom_kills

KILL_WAIT_S = 2.0
"""Seconds a program has between SIGTERM and SIGKILL when its task is stopped."""

SLICE_S = 0.1
"""How often a wait looks up to see whether the task was cancelled or its time is over."""

LOG_TAIL_BYTES = 4096

LINE_BYTES = 2**20
"""A longer line comes in pieces of so many bytes: a pilot must not hold what never ends."""

NOT_STARTED = 127
"""The status of a program that could not be started, as shells have it."""


@dataclass(frozen=True, slots=True)
class CommandReply:
    """How a program ended."""

    returncode: int
    failure: Failure | None
    usage: Usage


def run_command(
    command: Command,
    *,
    servers: CommandServers,
    timeout_s: float | None,
    cancelled: threading.Event,
    on_line: Callable[[Line], None],
) -> CommandReply:
    """Run a program to its end, its time-out or its cancellation.

    Args:
        command: What to run.
        servers: The pilot's warm servers, used when the command names one.
        timeout_s: Seconds it may run; None is no limit.
        cancelled: Set by another thread to stop it.
        on_line: Gets its output line by line when `command.log` is None; called from two threads.
    """
    started_at, begun = time.time(), time.monotonic()
    kills_before = oom_kills()
    why: Fault | None = None
    try:
        with _started(command, servers, on_line) as process:
            why = _wait(process, timeout_s, cancelled)
            ended = process.ended()
    except OSError as error:
        not_run = Failure(Fault.DIED, type(error).__name__, _not_started(command, error))
        return CommandReply(NOT_STARTED, not_run, Usage(started_at=started_at))
    wall_s = time.monotonic() - begun
    usage = Usage(started_at, wall_s, ended.cpu_s, ended.max_rss_mb)
    if why is None and _was_killed(ended.returncode) and oom_kills() != kills_before:
        why = Fault.OUT_OF_MEMORY
    failure = _failure(command, ended.returncode, why, timeout_s)
    return CommandReply(ended.returncode, failure, usage)


class _Process:
    """A program started by us directly."""

    def __init__(self, command: Command, on_line: Callable[[Line], None]) -> None:
        self._log = _open_log(command.log)
        try:
            self._popen = subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env=dict(command.environ),
                stdin=subprocess.DEVNULL,
                stdout=self._log or subprocess.PIPE,
                stderr=subprocess.STDOUT if self._log else subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            if self._log is not None:
                self._log.close()
            raise
        self._readers = self._read_lines(on_line)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._ended: Ended | None = None

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting at most so long."""
        return bool(select.select([self._pidfd], [], [], timeout_s)[0])

    def kill(self, signum: int) -> None:
        """Signal its whole session."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signum)

    def ended(self) -> Ended:
        """Collect its status and what it used."""
        if self._ended is None:
            _, status, used = os.wait4(self._popen.pid, 0)
            self._popen.returncode = code = os.waitstatus_to_exitcode(status)
            self._ended = Ended(code, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)
            # What it left behind may hold its output open for ever.
            until = time.monotonic() + KILL_WAIT_S
            for reader in self._readers:
                reader.join(timeout=max(0.0, until - time.monotonic()))
        return self._ended

    def close(self) -> None:
        """End it if it still runs, and what is left of its session."""
        self.kill(signal.SIGKILL)
        self.ended()
        os.close(self._pidfd)
        if self._log is not None:
            self._log.close()

    def _read_lines(self, on_line: Callable[[Line], None]) -> list[threading.Thread]:
        pipes = {"stdout": self._popen.stdout, "stderr": self._popen.stderr}
        readers = [
            threading.Thread(
                target=_read_pipe, args=(pipe, level, on_line), name="hpcburst-output", daemon=True
            )
            for level, pipe in pipes.items()
            if pipe is not None
        ]
        for reader in readers:
            reader.start()
        return readers


def _read_pipe(pipe: IO[bytes], level: str, on_line: Callable[[Line], None]) -> None:
    with pipe:
        while raw := pipe.readline(LINE_BYTES):
            on_line(Line(raw.decode(errors="replace").rstrip("\n"), level, time.time()))


@contextmanager
def _started(
    command: Command, servers: CommandServers, on_line: Callable[[Line], None]
) -> Iterator[_Process]:
    process = servers.start(command) if command.server else _Process(command, on_line)
    try:
        yield process  # type: ignore[misc]  # a server's process has the same four verbs
    finally:
        process.close()


def _wait(process: _Process, timeout_s: float | None, cancelled: threading.Event) -> Fault | None:
    """Wait for the end; None if it came by itself, else why we brought it about."""
    deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
    while not process.wait(SLICE_S):
        if cancelled.is_set():
            _stop(process)
            return Fault.CANCELLED
        if time.monotonic() > deadline:
            _stop(process)
            return Fault.TIMEOUT
    return None


def _stop(process: _Process) -> None:
    process.kill(signal.SIGTERM)
    if not process.wait(KILL_WAIT_S):
        process.kill(signal.SIGKILL)
        process.wait(KILL_WAIT_S)


def _failure(
    command: Command, returncode: int, why: Fault | None, timeout_s: float | None
) -> Failure | None:
    tail = _tail(command.log)
    if why is Fault.TIMEOUT:
        return Failure(why, "timeout", f"It ran longer than the {timeout_s:g} s it may.", tail)
    if why is Fault.CANCELLED:
        return Failure(why, "cancelled", "It was withdrawn.", tail)
    if why is Fault.OUT_OF_MEMORY:
        return Failure(why, "out of memory", "It was killed at the job's memory limit.", tail)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return Failure(Fault.DIED, name, f"It was killed by {name}.", tail)
    if returncode > 0:
        return Failure(Fault.NONZERO, str(returncode), f"It ended with status {returncode}.", tail)
    return None


def _was_killed(returncode: int) -> bool:
    """Whether it was killed outright, itself or (a shell tells so) the program it ran."""
    return returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)


def _not_started(command: Command, error: OSError) -> str:
    program = command.argv[0]
    if error.filename == command.cwd:
        return f"{program} did not start: its working directory {command.cwd} is not there."
    if not isinstance(error, FileNotFoundError):
        return f"{program} did not start: {error.strerror or error}."
    path = command.environ.get("PATH", os.defpath)
    place = os.path.join(command.cwd, program) if "/" in program else program  # noqa: PTH118
    if shutil.which(place, path=path):
        return f"{program} did not start: the interpreter in its first line is not there."
    where = "" if "/" in program else f" on the PATH of its env ({path})"
    return f"There is no program {program!r}{where}."


def _open_log(log: str | None) -> IO[bytes] | None:
    if log is None:
        return None
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    return Path(log).open("ab")


def _tail(log: str | None) -> str:
    if log is None:
        return ""
    with suppress(OSError), Path(log).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""
