"""What scenarios share: a Prefect API for the session, a cluster for each module, a small disk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from support.processes import wait_until

if TYPE_CHECKING:
    from hpcburst import BurstCluster


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prefect API with a database of its own; results are kept in a private folder."""
    from prefect import settings
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    updates = {
        settings.PREFECT_HOME: home,
        settings.PREFECT_LOCAL_STORAGE_PATH: home / "storage",
        settings.PREFECT_LOGGING_TO_API_BATCH_INTERVAL: 0.1,
        settings.PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with suppress(AttributeError):  # a thread that holds each flow for a second; older have none
        updates[settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
    with settings.temporary_settings(updates), prefect_test_harness(server_startup_timeout=120):
        yield str(settings.PREFECT_API_URL.value())


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BurstCluster]:
    """Up to two pilots that stay warm from test to test."""
    from hpcburst import BurstCluster

    root = tmp_path_factory.mktemp("shared")
    site = {"shared-root": str(root), "idle-timeout": "2m"}
    with BurstCluster(max_jobs=2, site=site) as cluster:
        yield cluster


@pytest.fixture
def burst(prefect_api: str, module_cluster: BurstCluster) -> Callable[..., Any]:
    """Runs a flow with its tasks on the module's pilots: `burst(flow, *args)`."""
    from prefect_hpcburst import BurstTaskRunner

    def run(flow: Any, *args: Any, **kwargs: Any) -> Any:
        runner = BurstTaskRunner(cluster=module_cluster)
        return flow.with_options(task_runner=runner)(*args, **kwargs)

    return run


@pytest.fixture
def task_log(prefect_api: str) -> Callable[[UUID, str], list[tuple[int, str]]]:
    """Level and text of the log lines the API has for a task run, once the one with `last` came."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter
    from prefect.client.schemas.sorting import LogSort

    def read(task_run_id: UUID) -> list[tuple[int, str]]:
        chosen = LogFilter.model_validate({"task_run_id": {"any_": [task_run_id]}})
        rows: list[tuple[int, str]] = []
        with get_client(sync_client=True) as client:
            while page := client.read_logs(
                chosen, limit=200, offset=len(rows), sort=LogSort.TIMESTAMP_ASC
            ):
                rows += [(row.level, row.message) for row in page]
        return rows

    def complete(task_run_id: UUID, last: str = "Finished in state") -> list[tuple[int, str]]:
        rows: list[tuple[int, str]] = []

        def came() -> bool:
            rows[:] = read(task_run_id)
            return any(last in text for _, text in rows)

        wait_until(came, f"the line {last!r} in the log of task run {task_run_id}")
        return rows

    return complete


@pytest.fixture
def state_names(prefect_api: str) -> Callable[[UUID, str], list[str]]:
    """Names of all states a task run went through in the API, once it is in the one given."""
    from prefect.client.orchestration import get_client

    def read(task_run_id: UUID) -> list[str]:
        with get_client(sync_client=True) as client:
            states = client.read_task_run_states(task_run_id)
        return [state.name for state in sorted(states, key=lambda state: state.timestamp)]

    def complete(task_run_id: UUID, last: str) -> list[str]:
        wait_until(lambda: last in read(task_run_id), f"state {last} of task run {task_run_id}")
        return read(task_run_id)

    return complete


@pytest.fixture
def script(tmp_path: Path, prefect_api: str) -> Callable[[str], Path]:
    """Writes a flow script of its own folder."""

    def write(text: str) -> Path:
        path = tmp_path / "pipeline.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    place = tmp_path / "small"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=0700", "tmpfs", str(place)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting a small file system is not permitted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)
