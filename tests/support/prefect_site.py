"""A Prefect server of the test's own, workers that can be killed, and what users do with both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen
from uuid import UUID

from support.processes import wait_until

SECRET = "reader:a-password-no-job-script-may-hold"  # noqa: S105 - of these tests alone
START_S = 300.0
RUN_S = 90.0


def free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class PrefectSite:
    """A server on the loopback with authentication on, and a work pool of type hpcburst.

    Attributes:
        folder: Where all its files go; flows that are deployed lie in `folder / "flows"`.
        variables: Environment of its workers beside the usual.
        pool: Name of the work pool.
        url: Address of the server's API; a free port if none is given.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    pool: str = "sci"
    url: str = ""

    def __post_init__(self) -> None:
        self.url = self.url or f"http://127.0.0.1:{free_port()}/api"
        self.flows = self.folder / "flows"
        self.flows.mkdir(parents=True)
        self.shared_root = self.folder / "shared"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pools: list[PrefectSite] = []
        self._disk: tempfile.TemporaryDirectory[str] | None = None

    @property
    def page(self) -> str:
        """Address of its page."""
        return self.url.removesuffix("/api")

    # -- processes ---------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        """What a user's shell has."""
        return {
            **os.environ,
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": SECRET,
            "PREFECT_LOCAL_STORAGE_PATH": str(self.folder / "storage"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
            "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2",
            "DASK_HPCBURST__SHARED_ROOT": str(self.shared_root),
            **self.variables,
        }

    def start_server(self) -> None:
        """Start the server and wait for its first answer."""
        # In memory: making its tables takes a minute on a disk that others keep busy.
        self._disk = tempfile.TemporaryDirectory(dir="/dev/shm")
        database = f"sqlite+aiosqlite:///{self._disk.name}/prefect.db"
        variables = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_API_AUTH_STRING": SECRET,
            "PREFECT_SERVER_UI_API_URL": "/api",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        }
        port = self.url.split(":")[2].split("/")[0]
        words = ["server", "start", "--host", "127.0.0.1", "--port", port]
        self._start("server", words, {**self.environ, **variables})
        wait_until(self._answers, "an answer of the Prefect server", START_S)

    def start_worker(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a worker of the pool, in a session of its own."""
        argv = ["worker", "start", "--pool", self.pool, "--type", "hpcburst", *words]
        worker = self._start("worker", argv, self.environ)
        log = self.folder / "worker.log"
        seen = log.read_text().count("started!")
        wait_until(lambda: log.read_text().count("started!") > seen, "the worker's start", START_S)
        return worker

    def stop(self, process: subprocess.Popen[bytes], signum: int = signal.SIGTERM) -> None:
        """End a process of ours and see it gone."""
        if process.poll() is None:
            process.send_signal(signum)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    @property
    def worker(self) -> subprocess.Popen[bytes]:
        """The worker that was started last."""
        return self._processes[-1]

    def another_pool(self, name: str, variables: dict[str, str]) -> PrefectSite:
        """A pool at the same server, with workers of their own."""
        made = PrefectSite(self.folder / name, variables, name, self.url)
        self._pools.append(made)
        return made

    def close(self) -> None:
        for pool in self._pools:
            pool.close()
        for process in reversed(self._processes):
            with suppress(subprocess.TimeoutExpired):
                self.stop(process)
        if self._disk is not None:
            self._disk.cleanup()

    def _start(self, name: str, words: list[str], environ: dict[str, str]):
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *words],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        self._processes.append(process)
        return process

    def _answers(self) -> bool:
        assert self._processes[-1].poll() is None, (self.folder / "server.log").read_text()[-3000:]
        try:
            answer = urlopen(f"{self.url}/health", timeout=5)  # noqa: S310 - http, our own
            return answer.status == 200
        except (URLError, OSError):
            return False

    # -- what users do -----------------------------------------------------------------------

    @contextmanager
    def api(self) -> Iterator[Any]:
        """A client of its API."""
        from prefect import settings
        from prefect.client.orchestration import get_client

        with settings.temporary_settings(self._settings()), get_client(sync_client=True) as client:
            yield client

    def deploy(self, text: str, entry: str = "pipeline", **more: Any) -> UUID:
        """Write a flow file and deploy it to the pool; the deployment's id."""
        from prefect import flow, settings

        path = self.flows / f"{more.setdefault('name', entry)}.py"
        path.write_text(text)
        with settings.temporary_settings(self._settings()):
            found = flow.from_source(source=str(self.flows), entrypoint=f"{path.name}:{entry}")
            return found.deploy(work_pool_name=self.pool, print_next_steps=False, **more)

    def trigger(self, deployment: UUID, job_variables=None, **parameters: Any) -> UUID:
        """Ask for a run now; its id."""
        with self.api() as client:
            run = client.create_flow_run_from_deployment(
                deployment, parameters=parameters, job_variables=job_variables
            )
        return run.id

    def triggered(self, deployment: UUID) -> list[UUID]:
        """Runs of a deployment that a person asked for."""
        from prefect.client.schemas.filters import FlowRunFilter

        chosen = FlowRunFilter.model_validate({"deployment_id": {"any_": [deployment]}})
        with self.api() as client:
            runs = client.read_flow_runs(flow_run_filter=chosen)
        return [run.id for run in runs if not run.auto_scheduled]

    def read(self, run_id: UUID):
        """A flow run as the API has it."""
        with self.api() as client:
            return client.read_flow_run(run_id)

    def await_state(self, run_id: UUID, *names: str, within_s: float = RUN_S):
        """Wait until a run is in a state of one of these names; the run."""
        found: list[Any] = []

        def there() -> bool:
            run = self.read(run_id)
            found[:] = [run]
            over = run.state.is_final() and run.state.name not in names
            assert not over, f"{run.state.name}: {run.state.message}\n{self.log_of(run_id)}"
            return run.state.name in names

        wait_until(there, f"state {' or '.join(names)} of {run_id}", within_s)
        return found[0]

    def cancel(self, run_id: UUID) -> None:
        """What the UI's button does."""
        from prefect.states import Cancelling

        with self.api() as client:
            client.set_flow_run_state(run_id, Cancelling())

    def log_of(self, run_id: UUID) -> str:
        """All lines of a run's log."""
        from prefect.client.schemas.filters import LogFilter

        with self.api() as client:
            rows = client.read_logs(LogFilter.model_validate({"flow_run_id": {"any_": [run_id]}}))
        return "\n".join(row.message for row in rows)

    def folder_of(self, run_id: UUID) -> Path:
        """Where the files of a run's jobs lie."""
        return self.shared_root / "flow-runs" / str(run_id)

    def _settings(self) -> dict[Any, Any]:
        from prefect import settings

        return {
            settings.PREFECT_API_URL: self.url,
            settings.PREFECT_API_AUTH_STRING: SECRET,
            settings.PREFECT_HOME: self.folder / "home",
        }
