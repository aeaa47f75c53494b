"""A real browser (the Debian package, headless), a real Prefect server, a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.processes import wait_until

pytest.importorskip("playwright.sync_api", reason="pip install 'hpcburst[dev]'")

CHROMIUM = shutil.which("chromium")

UP_S = 180.0

PICTURES = os.environ.get("HPCBURST_PICTURES", "")
"""Folder to keep pictures of the pages in; "" keeps none."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server with its pages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    environ = {
        **os.environ,
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
    }
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*argv, "--port", str(port)], env=environ, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: _answers(port), "the Prefect server's answer", within_s=UP_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    with suppress(OSError):
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health").status == 200)
    return False


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless=new", "--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which no script of the data's may speak up."""
    page = browser.new_page(viewport={"width": 1100, "height": 1200})
    page.set_default_timeout(UP_S * 1000)
    spoken: list[str] = []

    def speak(dialog: Any) -> None:
        if dialog.type == "beforeunload":  # JupyterLab asks whether to leave
            dialog.accept()
            return
        spoken.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", speak)
    yield page
    page.close()
    assert spoken == []


@pytest.fixture
def picture(page: Any) -> Callable[[str], None]:
    """Keeps a picture of the page, when pictures are wanted."""

    def take(name: str) -> None:
        if PICTURES:
            page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))

    return take


class Place:
    """A home with a flow in it."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder, self.server = folder, server
        self.environ = {
            **os.environ,
            "PREFECT_API_URL": f"{server}/api",
            "DASK_HPCBURST__SHARED_ROOT": str(folder / "shared"),
            "DASK_HPCBURST__SCHEDULER": "local",
        }
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a program here."""
        process = subprocess.Popen(
            argv, cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def flow(self, text: str) -> subprocess.Popen[str]:
        """Start a flow."""
        (self.folder / "pipeline.py").write_text(text)
        return self.start(sys.executable, "pipeline.py")

    def hpcburst(self, *words: str) -> subprocess.Popen[str]:
        """Start `hpcburst checkpoint ...`."""
        return self.start(sys.executable, "-m", "hpcburst.cli.main", "checkpoint", *words)

    def waiting(self) -> dict[str, Any]:
        """The checkpoint that waits, once there is one, its page drawn."""
        rows: list[dict[str, Any]] = []

        def there() -> bool:
            out, _ = self.hpcburst("list", "--json").communicate()
            rows[:] = json.loads(out)
            return bool(rows) and Path(rows[0]["folder"], "preview.html").exists()

        wait_until(there, "the checkpoint", within_s=UP_S)
        return rows[0]

    def open(self, name: str) -> str:
        """Open a session; returns the address."""
        told = self.hpcburst("open", name, "--no-browser", "--json").stdout.readline()
        return str(json.loads(told)["url"])

    def close(self) -> None:
        """End what was started here."""
        with suppress(Exception):
            self.hpcburst("close", "review-fit").wait(60)
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def place(tmp_path: Path, server: str) -> Iterator[Place]:
    """A home of the test's own."""
    place = Place(tmp_path, server)
    yield place
    place.close()
