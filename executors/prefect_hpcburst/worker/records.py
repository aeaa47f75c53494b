"""What is kept on disk of each flow run's job, so that a worker that starts later can adopt it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from hpcburst.comms.staging import (
    check_private,
    private_folder,
    process_started_at,
    write_private,
)

RECORD = "job.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """The worker process that watches a job; its start time tells it from a later one."""

    host: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Self:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, process_started_at(pid))

    def is_gone(self) -> bool:
        """Whether it is known to be dead, or cannot be seen from here."""
        if self.host != socket.gethostname():
            return True  # two that watch the same job do no harm: both only ask and report
        return process_started_at(self.pid) != self.started


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job of one flow run.

    Attributes:
        flow_run_id: The flow run.
        pool: Its work pool.
        scheduler: The batch system.
        host: Where the job was submitted.
        folder: The flow run's folder.
        ticket: File with the job's variables; the job that takes it runs the flow.
        walltime_s: Seconds the job may last.
        on_early_end: What a job that ends before its flow run leads to: "crash" or "reschedule".
        max_jobs: Jobs that one flow run may have in all.
        owner: The worker process that watches it.
        job_id: The job's id; "" while it is being submitted.
    """

    flow_run_id: str
    pool: str
    scheduler: str
    host: str
    folder: str
    ticket: str
    walltime_s: float
    on_early_end: str
    max_jobs: int
    owner: Owner
    job_id: str = ""

    @property
    def identifier(self) -> str:
        """What Prefect keeps as the flow run's `infrastructure_pid`."""
        return f"{self.scheduler}:{self.host}:{self.job_id}"

    def save(self) -> None:
        """Write it into the flow run's folder."""
        write_private(Path(self.folder) / RECORD, json.dumps(asdict(self)).encode())

    def forget(self) -> None:
        """Leave nothing to adopt; the log stays."""
        Path(self.folder, RECORD).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class FlowRunFolders:
    """The folders of all flow runs, below one private folder that every node sees.

    Attributes:
        root: That folder.
    """

    root: Path

    @classmethod
    def below(cls, shared_root: Path) -> Self:
        """Made if need be.

        Raises:
            hpcburst.errors.SiteError: A name is taken by something that is not ours alone.
        """
        root = shared_root.resolve()  # home folders of centres are often links
        if root.exists():
            check_private(root)  # others may read the envs in it, if its owner lets them
        else:
            private_folder(root)
        return cls(private_folder(root / "flow-runs"))

    @property
    def spool(self) -> Path:
        """The embedded queue's own folder: jobs outlive the worker, so all workers share it."""
        return private_folder(self.root / "queue")

    def of(self, flow_run_id: str) -> Path:
        """The folder of one flow run, with `logs` and `secret` in it."""
        folder = private_folder(self.root / flow_run_id)
        private_folder(folder / "logs")
        private_folder(folder / "secret")
        return folder

    def orphans(self, pool: str) -> Iterator[JobRecord]:
        """Jobs of a pool whose worker is gone; they are ours from now on."""
        for path in sorted(self.root.glob(f"*/{RECORD}")):
            record = _read(path)
            if record is not None and record.pool == pool and record.owner.is_gone():
                adopted = replace(record, owner=Owner.here())
                adopted.save()
                yield adopted

    def sweep(self, keep_days: float) -> None:
        """Remove folders of flow runs that are over and whose logs were last written long ago."""
        oldest = time.time() - keep_days * 86400
        for folder in self.root.iterdir():
            over = folder != self.root / "queue" and not (folder / RECORD).exists()
            if over and _last_written(folder) < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> JobRecord | None:
    try:
        fields = json.loads(path.read_text())
        return JobRecord(**{**fields, "owner": Owner(**fields["owner"])})
    except (OSError, ValueError, KeyError, TypeError):  # of another version, or just taken away
        return None


def _last_written(folder: Path) -> float:
    times = [0.0]
    for path in (folder, *folder.rglob("*")):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)
