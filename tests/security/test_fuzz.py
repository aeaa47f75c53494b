"""Whatever comes from outside is read or refused: no crash, no hang, an error of ours."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.comms.staging import OWNER_FILE, driver_of
from hpcburst.envs.specs.reading import read_spec
from hpcburst.errors import BurstError
from hpcburst.jobs.hostlists import nodes_of
from hpcburst.jobs.known import DIALECTS
from hpcburst.jobs.local import LocalDialect
from hpcburst.policy.discovery.systems import SYSTEMS
from hpcburst.policy.load import load_site
from hpcburst.tasks import read_modules, read_needs
from hpcburst.templates import read_words
from hpcburst.workers.guest.frames import Channel
from hpcburst_recipes.checkpoints.answering import ANSWERS, complaints_of
from hpcburst_recipes.checkpoints.bundle import make_bundle
from hpcburst_recipes.checkpoints.decision import take
from hpcburst_recipes.checkpoints.question import question
from hpcburst_recipes.prefect_server.place import Place

GOLDEN = Path(__file__).parents[1] / "golden"

EXAMPLES = 2000 if os.environ.get("LONG") else 40

pytestmark = pytest.mark.timeout(1800 if os.environ.get("LONG") else 180)

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def _texts(folder: Path) -> list[str]:
    """Real answers, to be damaged."""
    found = [path.read_text(errors="replace") for path in sorted(folder.rglob("*.txt"))]
    return [text[:4000] for text in found] or [""]


@st.composite
def damaged(draw: st.DrawFn, originals: list[str]) -> str:
    """A real text with pieces cut out, doubled or replaced by noise; or noise alone."""
    text = draw(st.sampled_from(["", *originals]))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 200)))
        noise = draw(st.text(max_size=20) | st.sampled_from(["9" * 400, "|", "\t", "\n\n", "-1"]))
        text = text[:begin] + noise + text[draw(st.sampled_from([begin, end])) :]
    return text


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=True)
    | st.text(max_size=12),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below),
    max_leaves=8,
)


def _dialect(name: str):
    return LocalDialect(Path("/spool")) if name == "local" else DIALECTS[name]()


@pytest.mark.parametrize("name", ["local", *DIALECTS])
def test_answers_of_a_batch_system(name, tally):
    """Any text that a scheduler's command prints gives news of every job asked about, or an error
    of ours: garbage, halves of answers, messages of the day, numbers of a thousand digits."""
    dialect = _dialect(name)
    originals = _texts(GOLDEN / "jobs" / name)

    @fuzzed
    @given(damaged(originals), damaged(originals))
    def reads(one: str, two: str) -> None:
        with suppress(BurstError):
            assert set(dialect.read_states(one, ["1", "2.server"])) == {"1", "2.server"}
        with suppress(BurstError):
            assert dialect.read_submitted(one)
        with suppress(BurstError):
            dialect.read_gaps([one, two], 0.0)
        assert isinstance(dialect.read_limit(one, 0.0), float | None)

    reads()
    tally.note("fuzz", f"answers of {name}", brought=False)


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_a_batch_system_says_of_itself(name, tally):
    """Any answers to the questions of `site discover` give queues or an error of ours."""
    system = SYSTEMS[name]
    originals = _texts(GOLDEN / "site" / name)
    answers = st.fixed_dictionaries({key: damaged(originals) for key in system.first})

    @fuzzed
    @given(answers)
    def reads(told: dict[str, str]) -> None:
        with suppress(BurstError):
            system.then(told)
            for row in system.read(told).queues:
                assert row.queue.max_cores >= 1

    reads()
    tally.note("fuzz", f"queues of {name}", brought=False)


SPECS = {
    "environment.yml": """\
channels: [conda-forge]
dependencies:
- python=3.12
- pip: [requests]
""",
    "a.txt": """\
@EXPLICIT
https://conda.anaconda.org/conda-forge/linux-64/a-1-0.conda#00000000000000000000000000000000
""",
    "conda-lock.yml": """\
version: 1
metadata:
  platforms: [linux-64]
package:
- {name: a, version: "1", manager: conda, platform: linux-64, url: "https://x/a.conda", hash: {}}
""",
    "pixi.lock": """\
version: 6
environments:
  default: {channels: [], packages: {linux-64: []}}
packages: []
""",
    "pixi.toml": """\
[workspace]
channels = ["conda-forge"]
platforms = ["linux-64"]
[dependencies]
python = "*"
""",
}


@pytest.mark.parametrize("name", SPECS)
def test_specs_and_locks(tmp_path, name, tally):
    """Any file in the place of a spec or a lock is read or refused, with its name in the error."""
    path = tmp_path / name

    @fuzzed
    @given(damaged(list(SPECS.values())) | st.binary(max_size=200))
    def reads(content: str | bytes) -> None:
        raw = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
        path.write_bytes(raw)
        try:
            read_spec(path)
        except BurstError as error:
            told = str(error)
            assert name in told

    reads()
    tally.note("fuzz", f"specs called {name}", brought=False)


def test_site_files(tally):
    """Any value of any key of the site is taken or refused by an error of ours."""
    from hpcburst.policy.sources import default_section

    keys = st.sampled_from(sorted(default_section())) | st.text(max_size=8)

    @fuzzed
    @given(st.dictionaries(keys, plain, max_size=3))
    def reads(section: dict[str, Any]) -> None:
        with suppress(BurstError):
            load_site({"scheduler": "local", **section})

    reads()
    tally.note("fuzz", "site files", brought=False)


def test_what_a_task_asks_for(tally):
    """Any value of any field of @needs is taken or refused by an error of ours."""
    fields = ("env", "modules", "cores", "memory", "gpus", "walltime", "queue", "command", "ok")

    @fuzzed
    @given(st.dictionaries(st.sampled_from(fields), plain, max_size=3), st.text())
    def reads(stated: dict[str, Any], text: str) -> None:
        with suppress(BurstError):
            read_needs(stated)
        for read in (read_memory_mb, read_walltime_s, read_modules, read_words):
            with suppress(BurstError):
                read(text)
        nodes_of(text)

    reads()
    tally.note("fuzz", "fields of @needs", brought=False)


class Choice(BaseModel):
    """Which threshold should the next stage use?"""

    threshold: float = Field(0.5, ge=0, le=1)
    names: list[str] = []


def test_files_of_decisions(tmp_path, tally):
    """Any JSON in the place of an answer is a decision that fits the question, or is refused."""
    asked = question("look", Choice)
    known = {"checkpoint": st.just("a"), "action": st.sampled_from(["approve", "reject", "x"])}
    close = st.fixed_dictionaries(known, optional={"values": plain, "at": plain, "who": plain})
    numbers = iter(range(10**9))

    @fuzzed
    @given(close | st.dictionaries(st.text(max_size=6), plain))
    def reads(answer: dict[str, Any]) -> None:
        one = make_bundle(tmp_path / "root", asked, {}, name=f"a{next(numbers)}")
        if answer.get("checkpoint") == "a":
            answer["checkpoint"] = one.id
        one.keep(f"{ANSWERS}/1.json", answer)
        decision = take(one, asked)
        if decision is not None and decision.action == "approve":
            assert 0 <= decision.value.threshold <= 1

    reads()
    tally.note("fuzz", "decisions", brought=False)


def test_values_against_a_schema(tally):
    """Any value is compared with any question without a crash."""
    asked = question("look", Choice).schema

    @fuzzed
    @given(plain)
    def compares(value: Any) -> None:
        assert isinstance(complaints_of(value, dict(asked), dict(asked)), list)

    compares()
    tally.note("fuzz", "values of answers", brought=False)


def test_messages_between_pilot_and_guest(tally):
    """Any bytes on the line to a guest are a message, or the end of the line: nobody waits for
    what does not come, and nothing is unpickled."""
    real: list[bytes] = []
    ours, theirs = socket.socketpair()
    Channel(ours).send({"reply": "ok", "n": 1}, [b"x" * 40, b"", b"abc"])
    real.append(theirs.recv(65536))
    theirs.close()

    @fuzzed
    @given(st.binary(max_size=120), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255))))
    def reads(noise: bytes, changes: list[tuple[int, int]]) -> None:
        data = bytearray(real[0])
        for place, byte in changes[:6]:
            data[place % len(data)] = byte
        for raw in (noise, bytes(data), bytes(data) + noise):
            _hears(raw)

    reads()
    tally.note("fuzz", "messages of guests", brought=False)


def _hears(raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(raw)
    theirs.close()
    channel = Channel(ours)
    ours.settimeout(10)
    try:
        for _ in range(3):
            message, parts = channel.recv()
            assert isinstance(message, dict)
            assert isinstance(parts, list)
    except TimeoutError as error:
        raise AssertionError("it waits for what does not come") from error
    except (EOFError, OSError, ValueError):
        pass
    finally:
        channel.close()


def test_calls_to_warm_servers(tally):
    """A warm server that answers garbage has died, for the pilot: what runs on it is over."""
    from hpcburst.workers.command_server import _Served, _Server

    @fuzzed
    @given(st.lists(plain.map(json.dumps) | st.text(max_size=20), max_size=4))
    def hears(lines: list[str]) -> None:
        ours, theirs = socket.socketpair()
        server = object.__new__(_Server)
        server._socket = ours
        server._lines = ours.makefile("r", encoding="utf-8", errors="replace")
        server._lock, server._running = threading.Lock(), {}
        served = server._running[1] = _Served(server, 1)
        theirs.sendall("".join(f"{line}\n" for line in lines).encode(errors="replace"))
        theirs.close()
        server._listen()
        server._lines.close()
        ours.close()
        assert served.done.is_set()

    hears()
    tally.note("fuzz", "answers of warm servers", brought=False)


def test_notes_of_other_processes(tally):
    """Any text where a driver or a server noted itself is a note, or no note."""

    @fuzzed
    @given(plain.map(json.dumps) | st.text(max_size=40))
    def reads(text: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            raw = text.encode(errors="replace")
            (folder / OWNER_FILE).write_bytes(raw)
            (folder / "running.json").write_bytes(raw)
            driver_of(folder)
            assert Place(folder).read() is None

    reads()
    tally.note("fuzz", "notes of processes", brought=False)
