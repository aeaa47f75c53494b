"""What every test gets: a home of its own, no user config, the suite's channel and cluster."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.places import CACHE

if TYPE_CHECKING:
    from hpcburst import BurstCluster

# How fast examples are drawn is the machine's affair: two cores, and others on them.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A shell that runs the suite in the background has it ignore SIGINT, and every program it starts:
# what Ctrl-C does could not be seen.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Prefect makes its home when it is imported, which may be before any fixture runs.
EARLY_HOME = tempfile.mkdtemp(prefix="prefect-")
os.environ["PREFECT_HOME"] = EARLY_HOME


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home folder: no test reads or writes the one of the person who runs it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
        patch.setenv("DASK_CONFIG", str(folder / "dask"))
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        yield folder
    shutil.rmtree(EARLY_HOME, ignore_errors=True)


@pytest.fixture
def shared_root(tmp_path: Path) -> Path:
    """A shared root of the test's own."""
    return tmp_path / "shared"


@pytest.fixture(scope="session")
def channel_url() -> str:
    """The suite's local conda channel, built once from this machine's Pythons."""
    from support.testchannel import build_test_channel

    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "channel.lock").open("w") as lock:  # the suite runs in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build_test_channel(CACHE / "channel")


@pytest.fixture
def cluster(shared_root: Path) -> Iterator[BurstCluster]:
    """Up to two pilots on the local queue."""
    from hpcburst import BurstCluster

    with BurstCluster(max_jobs=2, site={"shared-root": str(shared_root)}) as cluster:
        yield cluster
