"""What comes home from a pilot: one frozen `Outcome` a task, whatever happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Why a task's work did not end well, as the pilot saw it."""

    RAISED = "raised"  # the body raised; `Failure.pickled` may rebuild the exception
    DIED = "died"  # the process ended in the middle (crash, kill, exit)
    OUT_OF_MEMORY = "out-of-memory"  # it was killed at the memory limit
    TIMEOUT = "timeout"  # it ran longer than it may, and was stopped
    ARGUMENTS = "arguments"  # its arguments or body cannot be rebuilt in the env
    RESULT = "result"  # its value cannot be pickled
    ENV = "env"  # the env's interpreter does not start
    NONZERO = "nonzero"  # a command ended with a status other than 0
    CANCELLED = "cancelled"  # it was withdrawn


MEMORY_ERRORS = frozenset({"MemoryError", "_ArrayMemoryError"})
"""Types of exception that say so: Python's own, and numpy's."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line a body wrote.

    Attributes:
        text: The line, without its end.
        level: "stdout", "stderr", or a level name of `logging` ("INFO", ...).
        at: Seconds since the epoch.
    """

    text: str
    level: str = "stdout"
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with a task's work.

    Attributes:
        fault: The kind.
        kind: Type name of the exception, or the signal's or status' name.
        message: One sentence.
        traceback: Traceback text of the env, or the last output.
        pickled: The exception itself, pickled in the env, when it can be.
        child_out_of_memory: Whether the kernel killed a process beside it at the memory limit.
    """

    fault: Fault
    kind: str
    message: str
    traceback: str = ""
    pickled: bytes | None = None
    child_out_of_memory: bool = False

    @property
    def short_of_memory(self) -> bool:
        """Whether the same work may end well with more memory."""
        raised = self.fault is Fault.RAISED and self.kind in MEMORY_ERRORS
        return raised or self.child_out_of_memory or self.fault is Fault.OUT_OF_MEMORY


@dataclass(frozen=True, slots=True)
class Usage:
    """What the work took.

    Attributes:
        started_at: Seconds since the epoch.
        wall_s: Elapsed seconds.
        cpu_s: CPU seconds (user and system) of the process that did the work, or 0.0 if unknown.
        max_rss_mb: Largest resident memory in MB (10^6 bytes), or 0.0 if unknown.
    """

    started_at: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    max_rss_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Where:
    """Where the work was done.

    Attributes:
        pilot: Name of the pilot.
        job_id: Id of its batch job.
        host: Its node.
        log: Path of the pilot's log.
        env_key: Key of the env.
    """

    pilot: str = ""
    job_id: str = ""
    host: str = ""
    log: str = ""
    env_key: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A value that was left on the shared file system.

    Attributes:
        path: The file.
        size_bytes: Its size.
        digest: Of what it holds: equal values have equal ones.
    """

    path: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes:
        payload: The pickled value (`workers.guest.values.loads` reads it); b"" if it failed.
        buffers: Its large buffers, out of band.
        stored: Where a large value was left instead of coming home.
        failure: What went wrong; None if it ended well.
        returncode: Exit status of a command; None for Python calls.
        lines: What it wrote, oldest first (bounded by the pilot).
        usage: What it took.
        where: Where it ran.
        sends: How often the task was handed to a pilot (1, unless pilots were lost).
    """

    payload: bytes = b""
    buffers: tuple[bytes, ...] = ()
    stored: Stored | None = None
    failure: Failure | None = None
    returncode: int | None = None
    lines: tuple[Line, ...] = ()
    usage: Usage = Usage()
    where: Where = Where()
    sends: int = 1

    @property
    def ok(self) -> bool:
        """Whether the work ended well."""
        return self.failure is None
