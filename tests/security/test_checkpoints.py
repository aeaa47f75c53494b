"""A decision is its owner's: nobody else reads what it is about, takes it or forges it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, Field

from hpcburst_recipes.checkpoints.answering import (
    ANSWERS,
    AlreadyAnswered,
    Changed,
    Checkpoint,
    InvalidAnswer,
    NotOurs,
)
from hpcburst_recipes.checkpoints.bundle import make_bundle
from hpcburst_recipes.checkpoints.decision import take
from hpcburst_recipes.checkpoints.notebook import write_notebook
from hpcburst_recipes.checkpoints.preview import render_preview
from hpcburst_recipes.checkpoints.question import question
from hpcburst_recipes.jupyter.kernels import KERNEL, home_of
from support.processes import below, listening, wait_until
from support.stranger import UID, Stranger

pytestmark = [pytest.mark.usefixtures("careless"), pytest.mark.timeout(300)]

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"


class Choice(BaseModel):
    """Which threshold should the next stage use?"""

    threshold: float = Field(0.5, ge=0, le=1)


ASKED = question("look", Choice)


@pytest.fixture
def bundle(street: Path, request: pytest.FixtureRequest) -> Checkpoint:
    """A checkpoint that waits."""
    root = street / "home" / "roots" / request.node.name.partition("[")[0]
    root.parent.mkdir(mode=0o755, exist_ok=True)
    shown = {"scores": np.arange(5), "samples": {"patient 7": 1}}
    return make_bundle(root, ASKED, shown)


def _forged(bundle: Checkpoint, **changed: object) -> dict[str, object]:
    answer = {"checkpoint": bundle.id, "round": 1, "action": "approve", "values": {}, "at": 1.0}
    return {**answer, "values": {"threshold": 0.9}, "who": "you", "via": "notebook", **changed}


def test_a_bundle_is_closed(bundle: Checkpoint, stranger: Stranger, tally):
    """A stranger lists, reads and changes nothing of what is shown, asked and answered."""
    bundle.decide("approve")
    folder = Path(bundle.folder)
    brought = stranger.tries("search", folder.parent.parent)
    for verb, paths in brought.items():
        tally.note("checkpoints", f"{verb} of a bundle", paths)
    files = [path for path in folder.rglob("*") if path.is_file()]
    by_name = stranger.tries("read", *files)
    for path in files:
        tally.note(
            "checkpoints", path.name, [v for v, paths in by_name.items() if str(path) in paths]
        )


def test_an_answer_that_somebody_else_wrote_is_none(bundle: Checkpoint, tally):
    """An answer counts only if its owner wrote it: a file of a stranger's, a link to one, a folder
    and a pipe in its place are not taken, nor waited for."""
    place = Path(bundle.folder) / ANSWERS / "1.json"
    outside = Path(bundle.folder).parent / "outside.json"
    outside.write_text(json.dumps(_forged(bundle)))

    def theirs() -> None:
        place.write_text(json.dumps(_forged(bundle)))
        os.chown(place, UID, UID)

    traps: dict[str, Callable[[], object]] = {
        "a link": lambda: place.symlink_to(outside),
        "a folder": place.mkdir,
    }
    if os.getuid() == 0:
        traps["a file of a stranger's"] = theirs
    for what, set_trap in traps.items():
        set_trap()
        try:
            taken = take(bundle, ASKED)
        except (NotOurs, OSError):
            taken = None
        tally.note("checkpoints", f"an answer that is {what}", taken or bundle.outcome())
        place.rmdir() if what == "a folder" else place.unlink()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_bundle_that_others_can_write_to_is_not_opened(bundle: Checkpoint, tally, mode):
    """When others can write to a bundle, no answer in it is believed."""
    Path(bundle.folder).chmod(mode)
    with pytest.raises(NotOurs):
        Checkpoint(bundle.folder)
    tally.note("checkpoints", f"a bundle of mode {mode:o}", brought=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoint": "another"},
        {"action": "run"},
        {"values": {"threshold": 7}},
        {"values": {"threshold": "__import__('os').system('id')"}},
        {"values": {"threshold": 0.5, "more": 1}},
        {"values": [1]},
        {"values": {"threshold": 10**400}},
    ],
)
def test_an_answer_that_does_not_fit_is_asked_again(bundle: Checkpoint, tally, changed):
    """An answer to another checkpoint, of an unknown action, or out of range decides nothing."""
    bundle.keep(f"{ANSWERS}/1.json", _forged(bundle, **changed))
    assert take(bundle, ASKED) is None
    tally.note("checkpoints", f"an answer with {changed}", bundle.outcome())
    assert bundle.round() == 2


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "7", "\0", '{"checkpoint"', "[" * 100_000])
def test_a_broken_answer_decides_nothing(bundle: Checkpoint, tally, text):
    """Half an answer, or none, is an error or is asked again; it never is a decision."""
    path = Path(bundle.folder) / ANSWERS / "1.json"
    path.write_text(text)
    try:
        taken = take(bundle, ASKED)
    except (ValueError, OSError, RecursionError):
        taken = None
    tally.note("checkpoints", f"the answer {text[:20]!r}", taken or bundle.outcome())


def test_of_many_answers_at_once_one_counts(bundle: Checkpoint, tally):
    """Sixteen people answer in the same moment: one answer stands, all others are told whose."""
    gate = threading.Barrier(16)
    kept: list[float] = []
    refused: list[float] = []

    def answer(number: int) -> None:
        value = number / 100
        gate.wait()
        try:
            bundle.decide("approve", {"threshold": value})
            kept.append(value)
        except AlreadyAnswered as error:
            refused.append(error.answer["values"]["threshold"])

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.note("checkpoints", "sixteen answers at once", len(kept) != 1 and kept)
    assert set(refused) == set(kept)
    decision = take(bundle, ASKED)
    assert decision is not None
    assert decision.values["threshold"] == kept[0]


def test_a_decision_is_never_replaced(bundle: Checkpoint, tally):
    """A second answer, however it comes, changes neither the first nor what follows from it."""
    bundle.decide("approve", {"threshold": 0.25})
    first = take(bundle, ASKED)
    with pytest.raises(AlreadyAnswered):
        bundle.decide("reject")
    bundle.keep(f"{ANSWERS}/1.json", _forged(bundle, values={"threshold": 0.75}))
    bundle.keep("outcome.json", _forged(bundle, values={"threshold": 0.75}))
    tally.note("checkpoints", "a second answer", take(bundle, ASKED) != first)


def test_data_that_changed_are_not_shown(bundle: Checkpoint, tally):
    """What was edited after the checkpoint was written is told, not loaded."""
    path = Path(bundle.folder) / "data" / "samples.json"
    path.write_text('{"patient 7": 2}')
    with pytest.raises(Changed):
        bundle.load("samples")
    tally.note("checkpoints", "data changed afterwards", brought=False)


def test_data_are_never_unpickled(bundle: Checkpoint, street: Path, tally):
    """Even data with the right digest are read as data: an array of objects is refused."""
    canary = street / "home" / "unpickled"

    class Touch:
        def __reduce__(self):
            return Path.touch, (canary,)

    import hashlib

    path = Path(bundle.folder) / "data" / "scores.npy"
    with path.open("wb") as file:
        np.save(file, np.array([Touch()], dtype=object), allow_pickle=True)
    bundle.question["data"]["scores"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="pickle"):
        bundle.load("scores")
    tally.note("checkpoints", "a pickle among the data", canary.exists())


def test_texts_are_texts_on_the_page(street: Path, tally):
    """Names of samples, the question and a note with HTML in them are shown, not run."""
    pytest.importorskip("nbconvert")
    asked = question("look", Choice, text=SCRIPT)
    one = make_bundle(street / "home" / "page", asked, {"samples": {SCRIPT: SCRIPT}, "s": SCRIPT})
    write_notebook(one)
    text = render_preview(one, home_of(None, street / "home" / "page")).read_text()
    tally.note("checkpoints", "a script in a text", SCRIPT in text or "<img src=x" in text)


# -- the session ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(street: Path, careless: None) -> Iterator:
    """JupyterLab on a bundle, with a kernel; its user has settings that would open it."""
    pytest.importorskip("jupyterlab")
    from hpcburst_recipes.jupyter.server import Server

    root = street / "home" / "session"
    one = make_bundle(root, ASKED, {"samples": {"patient 7": 1}})
    hostile = street / "home" / ".jupyter"
    hostile.mkdir()
    wide_open = {"ServerApp": {"ip": "0.0.0.0", "token": "", "allow_origin": "*"}}  # noqa: S104 - it must be ignored
    (hostile / "jupyter_server_config.json").write_text(json.dumps(wide_open))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(street / "home"))
        patch.setenv("JUPYTER_CONFIG_DIR", str(hostile))
        patch.setenv("JUPYTER_TOKEN", "known-to-others")
        server = Server.start(Path(one.folder), home_of(None, root))
        try:
            server.wait_up()
            status, _ = server.call("POST", "/api/kernels", {"name": KERNEL})
            assert status == 201
            wait_until(
                lambda: len(_sockets(server.folder)) > 1 or listening(below(server.process.pid)),
                "the kernel's sockets",
                within_s=60,
            )
            yield server
        finally:
            server.stop()


GREETING = (b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)).hex()
"""How ZeroMQ begins to speak."""

SUBSCRIBE = (b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB\x00\x01\x01").hex()
"""As a subscriber to all that a kernel prints."""


def _sockets(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_socket()]


def test_a_session_cannot_be_reached(session, stranger: Stranger, tally):
    """No stranger can connect to the session's socket or those of its kernel, whatever the user's
    own settings say. There is no port but one of ipykernel's on the loopback, at which a kernel
    takes the output of its own forked children: it says nothing to who connects."""
    sockets = _sockets(session.folder)
    assert session.socket in sockets
    for path in sockets:
        tally.note(
            "Jupyter", f"connect to {path.name}", stranger.tries("connect", path)["connected"]
        )
    ports = sorted(listening(below(session.process.pid)))
    tally.note("Jupyter", "ports", [port for port in ports if port[0] != "127.0.0.1"] or ports[1:])
    for host, port in ports:
        told = stranger.tries("say", host, port, GREETING, SUBSCRIBE)
        heard = bytes.fromhex(told["answer"])
        tally.note("Jupyter", "what a port says", b"stream" in heard or b"SUB" in heard)


def test_a_sessions_secrets_are_closed(session, stranger: Stranger, tally):
    """Token, cookie secret, runtime files and log are its user's alone; no argument has the token,
    and the log has not either."""
    brought = stranger.tries("search", session.folder)
    files = [path for path in session.folder.rglob("*") if path.is_file()]
    by_name = stranger.tries("read", *files)
    for found in (brought, by_name):
        for verb, paths in found.items():
            tally.note("Jupyter", f"{verb} its files", paths)
    shown = stranger.tries("processes", *below(session.process.pid))
    tally.note("Jupyter", "arguments", [argv for argv in shown["argv"] if session.token in argv])
    tally.note("Jupyter", "its processes", shown["open"])
    tally.note("Jupyter", "its log", session.token in (session.folder / "log").read_text())


def test_without_the_token_a_session_says_nothing(session, tally):
    """Also who reaches the socket needs the token; one that others know is not accepted."""
    real = session.token
    for token in ("", "known-to-others", "0" * 64):
        session.token = token
        for path in ("/api/contents", "/api/kernels", "/api/terminals"):
            status, _ = session.call("GET", path)
            tally.note("Jupyter", f"{path} with {token[:8]!r}", 200 <= status < 300)
    session.token = real


def test_a_decision_with_a_name_that_is_none_is_refused(bundle: Checkpoint, tally):
    """Fields of an answer are those of the question; a name of another kind is refused."""
    for field in ("__class__", "../x", "threshold\n", "$(id)"):
        with pytest.raises(InvalidAnswer):
            bundle.decide("approve", {field: 1})
        tally.note("checkpoints", f"the field {field!r}", bundle.answer())
