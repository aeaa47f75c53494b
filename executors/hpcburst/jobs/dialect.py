"""The seam to batch systems: argv out, text in. Implementations are pure; `probe` runs them.

One file for each system. What all of them write is in `directives`, what all of them read in
`readings`; `known` lists them and finds out which one is here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from hpcburst.tasks import Shape


class JobState(StrEnum):
    """Where a job is in its life, in the words every batch system shares."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # well, badly or cancelled: it will not run again
    UNKNOWN = "unknown"  # the batch system does not know it (any more)


@dataclass(frozen=True, slots=True)
class JobNews:
    """What one look told of a job.

    Attributes:
        state: Where it is in its life.
        reason: Why it is there, in the batch system's own words; "" when it says nothing.
        host: The node it runs or ran on, by the name the batch system calls it; "" if none is told.
        held: Whether it waits for a person: it will never start by itself.
    """

    state: JobState
    reason: str = ""
    host: str = ""
    held: bool = False


NO_NEWS = JobNews(JobState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Gap:
    """Room in the schedule where a job starts now.

    Attributes:
        queue: The queue it is in.
        cores: Free cores, all on one node.
        memory_mb: Free memory of that node in MB (10^6 bytes).
        length_s: Seconds until something reserved begins there; infinite when nothing is.
    """

    queue: str
    cores: int
    memory_mb: int
    length_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit command.

    Attributes:
        argv: Program and arguments.
        stdin: What it reads; None is nothing.
    """

    argv: tuple[str, ...]
    stdin: str | None = None


class Dialect(Protocol):
    """How one batch system is spoken to: submit, look, cancel; and where it tells, gaps and limits.

    Attributes:
        name: Its name, and that of dask-jobqueue's config section and job class for it.
        job_id_variable: Environment variable in which a job finds its own id; "" if there is none.
        variables: What its commands find changed in their environment (None: unset), because a
            user's preferences would change what they take or print. A submit command finds only
            what is unset, since jobs inherit its environment.
        gone: A line that says: there is no such job (any more). Not a failure.
        trouble: A line that says: the batch system itself did not answer, whatever the exit status.
    """

    name: ClassVar[str]
    job_id_variable: ClassVar[str]
    variables: ClassVar[Mapping[str, str | None]]
    gone: ClassVar[re.Pattern[str]]
    trouble: ClassVar[re.Pattern[str]]

    def job_options(self, shape: Shape, logs: str, avoid: Sequence[str] = ()) -> dict[str, Any]:
        """Arguments for dask-jobqueue's job class that ask for a shape.

        Join them with the user's own section by `directives.with_section`.

        Args:
            shape: What the job asks for.
            logs: Folder for its log, which is then at `log_of(logs, job_id)`.
            avoid: Nodes it must not run on, by the names `JobNews.host` gave; ignored where the
                system cannot.

        Raises:
            RequestError: The queue's name is no name of a queue.
            SiteError: The folder's path cannot be written into a job script of this system.
        """

    def log_of(self, logs: str, job_id: str) -> str:
        """Path of a job's log (stdout and stderr)."""

    def submission(self, path: str, script: str) -> Submission:
        """The command that submits the script `script`, which is the text of the file `path`."""

    def read_submitted(self, text: str) -> str:
        """The job id in what that command printed.

        Raises:
            SubmitError: There is none.
        """

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """One command that asks for the states of all these jobs."""

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobNews]:
        """Its output, as news for every id asked (`UNKNOWN` where it says nothing).

        Raises:
            SiteError: The text is an error of the batch system, not an answer.
        """

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """One command that ends all these jobs, waiting or running."""

    def gaps_argv(self, queues: Sequence[str]) -> list[list[str]]:
        """Commands whose outputs tell the gaps in these queues; none where the system does not."""

    def read_gaps(self, texts: Sequence[str], now: float) -> list[Gap]:
        """Their outputs as gaps; `now` in seconds since the epoch."""

    def limit_argv(self, job_id: str) -> list[str]:
        """A command that tells when a running job will be ended; [] where none does."""

    def read_limit(self, text: str, now: float) -> float | None:
        """Its output as seconds since the epoch; None when it says nothing."""


class Terse:
    """What a dialect says when its system has no more to tell than jobs and their states."""

    variables: ClassVar[Mapping[str, str | None]] = {}

    def gaps_argv(self, queues: Sequence[str]) -> list[list[str]]:  # noqa: ARG002 - see Dialect
        """None: the system does not tell its plan."""
        return []

    def read_gaps(self, texts: Sequence[str], now: float) -> list[Gap]:  # noqa: ARG002 - see Dialect
        """No gaps."""
        return []

    def limit_argv(self, job_id: str) -> list[str]:  # noqa: ARG002 - see Dialect
        """None."""
        return []

    def read_limit(self, text: str, now: float) -> float | None:  # noqa: ARG002 - see Dialect
        """Nothing."""
        return None
