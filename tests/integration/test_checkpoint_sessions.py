"""A session: a notebook that is warm when it opens, reached by nobody else, gone when it ends."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dask.config
import numpy as np
import pytest
from pydantic import BaseModel, Field

from hpcburst.policy.load import load_site
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.bundle import Origin, make_bundle
from hpcburst_recipes.checkpoints.decision import take
from hpcburst_recipes.checkpoints.notebook import write_notebook
from hpcburst_recipes.checkpoints.preview import render_preview
from hpcburst_recipes.checkpoints.question import question
from hpcburst_recipes.jupyter.access import (
    PROGRAM,
    Tunnel,
    address,
    laptop_command,
    read_token,
    relay_argv,
    write_opener,
)
from hpcburst_recipes.jupyter.job import Desk
from hpcburst_recipes.jupyter.kernels import home_of
from hpcburst_recipes.jupyter.session import Phase, Session, read_session
from support.processes import wait_until

pytest.importorskip("jupyterlab")
pytest.importorskip("nbclient")

pytestmark = pytest.mark.timeout(300)

UP_S = 120.0


class Choice(BaseModel):
    """Which threshold should the next stage use?"""

    threshold: float = Field(0.5, ge=0, le=1)


ASKED = question("look", Choice)


def made(root: Path) -> Checkpoint:
    origin = Origin(session={"walltime": "30m", "cores": 1})
    one = make_bundle(root, ASKED, {"scores": np.arange(7), "n": 1}, origin=origin)
    write_notebook(one)
    return one


def ended(desk: Desk) -> Session | None:
    session = read_session(desk.folder)
    return session if session is not None and session.phase is Phase.ENDED else None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A shared root of the module's own."""
    root = tmp_path_factory.mktemp("shared")
    root.chmod(0o700)
    with dask.config.set({"hpcburst.shared-root": str(root), "hpcburst.scheduler": "local"}):
        yield root


@pytest.fixture(scope="module")
def desk(root: Path) -> Iterator[Desk]:
    """A checkpoint with a session on it, in a job of the local queue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_KEY", "a-secret-of-the-user")
        patch.setenv("JUPYTER_TOKEN", "known-to-others")
        desk = Desk(made(root), load_site())
        desk.submit()
        desk.wait_ready(print)
        yield desk
        desk.cancel()


def ask(desk: Desk, path: str, **headers: str) -> tuple[int, bytes]:
    session = read_session(desk.folder)
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(session.socket)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def authorized(desk: Desk) -> dict[str, str]:
    return {"Authorization": f"token {read_token(desk.folder)}"}


def test_the_notebook_is_warm(desk: Desk) -> None:
    """Who opens it finds results drawn by the kernel that the page talks to."""
    cells = json.loads((desk.folder / "review.ipynb").read_text())["cells"]
    shown = [cell for cell in cells if "checkpoint-show" in cell["metadata"]["tags"]]
    assert "array([0, 1, 2, 3, 4, 5, 6])" in str(shown[0]["outputs"])
    panel = cells[-1]["outputs"]
    assert any("widget-view" in kind for out in panel for kind in out.get("data", {}))
    status, sessions = ask(desk, "/api/sessions", **authorized(desk))
    (one,) = json.loads(sessions)
    assert (status, one["path"]) == (200, "review.ipynb")


def test_nobody_else_reaches_it(desk: Desk) -> None:
    """The socket is private twice over, and without the token it still says no."""
    place = Path(read_session(desk.folder).socket)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert ask(desk, "/api/kernels")[0] == 403
    assert ask(desk, "/api/kernels", Authorization="token known-to-others")[0] == 403
    assert ask(desk, "/api/kernels", **authorized(desk))[0] == 200
    evil = {**authorized(desk), "Host": "evil.example.com"}
    assert ask(desk, "/api/kernels", **evil)[0] == 403


def test_the_token_is_in_private_files_alone(desk: Desk) -> None:
    """No command line and no log shows it, and every file that has it is 0600."""
    token = read_token(desk.folder).encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert token not in entry.read_bytes()
        except OSError:
            continue
    places = [desk.folder, Path(read_session(desk.folder).socket).parent]
    having = [
        file
        for place in places
        for file in place.rglob("*")
        if file.is_file() and token in file.read_bytes()
    ]
    assert having
    assert {stat.S_IMODE(file.stat().st_mode) for file in having} == {0o600}
    assert not [file for file in having if file.name == "log" or file.suffix == ".log"]


def test_kernels_speak_over_private_sockets_and_hold_no_secret(desk: Desk) -> None:
    """What the kernel prints is read by nobody else; the user's keys are not in it."""
    runtime = Path(read_session(desk.folder).socket).parent / "runtime"
    (connection,) = runtime.glob("kernel-*.json")
    assert json.loads(connection.read_text())["transport"] == "ipc"
    kernels = [
        entry.parent
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if connection.name.encode() in _read(entry)
    ]
    assert kernels
    for kernel in kernels:
        assert b"a-secret-of-the-user" not in _read(kernel / "environ")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("relayed", [False, True])
def test_a_local_port_leads_to_it_with_and_without_a_relay(desk: Desk, relayed: bool) -> None:
    """Where ssh forwards nothing, a relay over standard input and output does as well."""
    place = read_session(desk.folder).socket
    argv = [sys.executable, "-I", "-S", str(PROGRAM), place] if relayed else []
    with Tunnel(place, argv) as tunnel:
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", tunnel.port, timeout=30)
            connection.request("GET", "/api/status", headers=authorized(desk))
            assert connection.getresponse().status == 200
            connection.close()


def test_the_page_that_opens_a_browser_is_private(desk: Desk) -> None:
    """The address with the token reaches the browser by a file, not by its command line."""
    page = write_opener(desk.folder, address(1234, "t"))
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "http://127.0.0.1:1234/doc/tree/review.ipynb?token=t" in page.read_text()


def test_a_live_session_is_used_again(desk: Desk) -> None:
    """Opening twice asks for one job."""
    assert desk.live() == read_session(desk.folder)


def test_the_way_from_elsewhere_is_srun_or_ssh_and_quotes_everything() -> None:
    """A node's relay runs inside the job on Slurm, else by the user's own ssh."""
    there = Session(Phase.RUNNING, "n", "n017", "/tmp/a b/s")
    assert relay_argv(there, "slurm", "12")[:3] == ["srun", "--jobid=12", "--overlap"]
    by_ssh = relay_argv(there, "pbs", "12")
    assert by_ssh[-2] == "n017"
    assert by_ssh[-1].endswith("'/tmp/a b/s'")
    assert relay_argv(replace(there, host=socket.gethostname()), "pbs", "12") == []
    command = laptop_command(there, "login3.example.org")
    assert command == "ssh -N -L '127.0.0.1:8888:/tmp/a b/s' -J login3.example.org n017"


@pytest.mark.long
def test_a_session_that_its_job_ends_leaves_nothing_and_opens_again(root: Path) -> None:
    """Walltime kill in the middle: the checkpoint waits, what was saved is there, it reopens."""
    desk = Desk(made(root), load_site())
    desk.submit()
    first = desk.wait_ready(print)
    notebook = json.loads((desk.folder / "review.ipynb").read_text())
    notebook["cells"][-2]["source"] = "mine = 7"
    (desk.folder / "review.ipynb").write_text(json.dumps(notebook))
    desk.cancel()
    assert not Path(first.socket).parent.exists()
    assert not (desk.folder / "session.token").exists()
    assert desk.live() is None
    assert desk.checkpoint.answer() is None

    desk.submit()
    second = desk.wait_ready(print)
    assert second.name != first.name
    assert "mine = 7" in (desk.folder / "review.ipynb").read_text()
    desk.checkpoint.decide("approve", {"threshold": 0.7})
    assert take(desk.checkpoint, ASKED).value.threshold == 0.7
    wait_until(lambda: ended(desk), "the end after the decision", within_s=60)
    assert ended(desk).why == "it was decided"
    assert (desk.folder / "record" / "review.html").is_file()


def test_an_env_without_a_kernel_is_told_or_helped(root: Path, tmp_path: Path) -> None:
    """A bare Python gets ipykernel from outside, last on its path."""
    from hpcburst.tasks import Env

    bare = tmp_path / "bare"
    (bare / "bin").mkdir(parents=True)
    program = bare / "bin" / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o700)
    home = home_of(Env("key", str(bare), {"MARK": "of the env", "HOME": None}), root)
    assert home.overlay == ""
    one = make_bundle(root, ASKED, {})
    path = write_notebook(one)
    notebook = json.loads(path.read_text())
    notebook["cells"][-2]["source"] = "import os; print(os.environ['MARK'], 'HOME' in os.environ)"
    path.write_text(json.dumps(notebook))
    page = render_preview(one, home).read_text()
    assert "of the env False" in page
    assert stat.S_IMODE(Path(one.folder, "preview.html").stat().st_mode) == 0o600
