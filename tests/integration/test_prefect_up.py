"""`hpcburst prefect up`, `status` and `down`: a server and a worker in one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from support.processes import wait_until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user who has nothing yet."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **kept,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


@pytest.fixture
def hpcburst(environ: dict[str, str]) -> Iterator:
    """Runs `hpcburst prefect ...`; ends at last whatever it started."""

    def run(*words: str, status: int = 0) -> str:
        argv = [sys.executable, "-m", "hpcburst.cli.main", "prefect", *words]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    try:
        yield run
    finally:
        run("down")


def answer(url: str) -> int:
    """The status that a stranger gets."""
    try:
        return urlopen(Request(url), timeout=10).status  # noqa: S310 - http, our own
    except HTTPError as error:
        return error.code


def test_a_server_and_a_worker_come_and_go(hpcburst, environ, tmp_path):
    """One command starts both, behind a secret; saying it again starts nothing; `down` ends both;
    a shell that sources the file speaks to the server; nothing shows the secret."""
    assert "listening on 127.0.0.1" in hpcburst("up", "--pool", "sci", "--dry-run")
    hpcburst("status", status=1)
    said = hpcburst("up", "--pool", "sci")
    told = json.loads(hpcburst("status", "--json"))
    assert told["server"]
    assert told["worker"]
    assert told["address"] == "127.0.0.1"
    secret = Path(told["secret_file"]).read_text().strip()
    assert secret not in said + json.dumps(told)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret.encode() not in path.read_bytes()
        except OSError:
            continue
    assert answer(f"{told['url']}/health") == 200
    assert answer(f"{told['url']}/admin/version") == 401
    note = Path(told["folder"]) / "running.json"
    before = note.read_text()
    hpcburst("up", "--pool", "sci")
    assert note.read_text() == before
    script = f". {told['shell_file']} && exec {sys.executable} -m prefect work-pool inspect sci"
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environ, capture_output=True, text=True, check=False
    )
    assert "hpcburst" in done.stdout, done.stderr
    assert told["url"] in hpcburst("down")
    assert "nothing runs" in hpcburst("down")
    pids = [row["pid"] for row in (json.loads(before)["server"], json.loads(before)["worker"])]
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids),
        "the end of both processes, and that init has heard of it",
    )
    assert (tmp_path / "data" / "hpcburst" / "prefect" / "prefect.db").exists()
