"""The seam to batch systems: argv out, text in. Implementations are pure; `probe` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from hpcburst.tasks import Shape


class JobState(StrEnum):
    """Where a job is in its life, in the words every batch system shares."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # well, badly or cancelled: it will not run again
    UNKNOWN = "unknown"  # the batch system does not know it (any more)


class Dialect(Protocol):
    """How one batch system is spoken to. Four verbs; `states` takes many ids at once."""

    def header(self, shape: Shape, log: str) -> list[str]:
        """Lines of the job script that ask for a shape; output goes to `log` ("%j": job id)."""

    def submit_argv(self) -> list[str]:
        """Command that submits the script whose path is appended; its output names the job id."""

    def states_argv(self, job_ids: Sequence[str]) -> list[str]:
        """One command that asks for the states of all these jobs."""

    def read_states(self, text: str, job_ids: Sequence[str]) -> dict[str, JobState]:
        """Its output, as a state for every id asked (`UNKNOWN` where it says nothing)."""

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """One command that ends all these jobs, waiting or running."""
