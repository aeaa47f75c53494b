"""Large data between pilot and guest, and what happens when memory runs out."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcburst.bodies import call_of
from hpcburst.bodies.snapshots import LARGE_BYTES as LARGE_COPY_BYTES
from hpcburst.bodies.snapshots import snapshot
from hpcburst.results import Fault
from hpcburst.workers import guest_memory, oom
from hpcburst.workers.guest import segments, values
from hpcburst.workers.guest.frames import LARGE_BYTES, Channel
from hpcburst.workers.guest.segments import Segment
from hpcburst.workers.guest_memory import Spares
from hpcburst.workers.guests import Guest, install_guest
from support.processes import wait_until
from support.pythons import PYTHONS

MB = 1 << 20


def meanwhile(send, receive):
    """Send from another thread: without shared memory a message is larger than a socket holds."""
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    got = receive()
    sender.join()
    return got


@contextmanager
def line():
    """Both ends of a line."""
    ends = [Channel(end) for end in socket.socketpair()]
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


@pytest.fixture(params=["sealed", "not sealed", "none"])
def kind(request, monkeypatch):
    """What the system offers as shared memory."""
    if request.param == "not sealed":
        monkeypatch.setattr(segments, "_seal", lambda _: None)
    if request.param == "none":
        monkeypatch.setattr(segments, "_anonymous_memory", lambda: -1)
    return request.param


SIZES = st.lists(st.sampled_from([0, 1, 100, LARGE_BYTES - 1, LARGE_BYTES, 100_001]), max_size=6)


@pytest.mark.usefixtures("kind")
@given(SIZES)
@settings(max_examples=30, deadline=None)
def test_parts_arrive_as_they_were_sent(sizes):
    """Any mixture of small and large parts comes in order, whatever memory the system offers."""
    parts = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    with line() as (one, other):
        message, got = meanwhile(lambda: one.send({"n": 1}, parts), other.recv)
        assert message == {"n": 1}
        assert [bytes(part) for part in got] == parts
        message, back = meanwhile(lambda: other.send_back({"n": 2}, got), one.recv)
        assert message["n"] == 2
        assert [bytes(part) for part in back] == parts


def test_messages_that_come_together_are_told_apart():
    """Two messages that arrive in one piece are two, and the second one is not slept over."""
    with line() as (one, other):
        one.send({"n": 1})
        one.send({"n": 2}, [b"x" * LARGE_BYTES, b"y"])
        assert other.recv() == ({"n": 1}, [])
        assert other.pending
        message, parts = other.recv()
        assert (message, [len(part) for part in parts]) == ({"n": 2}, [LARGE_BYTES, 1])
        assert not other.pending


def test_a_result_that_is_the_argument_is_not_copied(monkeypatch):
    """A view of what came goes back in the same memory, without a byte moved."""
    with line() as (one, other):
        one.send({}, [b"a" * MB])
        lent = one.lent
        _, parts = other.recv()
        parts[0][:3] = b"new"
        monkeypatch.setattr(Segment, "fill", lambda *_: pytest.fail("it was copied"))
        out = [parts[0][: MB // 2]]
        del parts
        other.send_back({}, out)
        message, back = one.recv()
        assert message["free"]
        assert one.held is lent
        assert bytes(back[0]) == b"new" + b"a" * (MB // 2 - 3)


def test_memory_that_is_still_looked_into_is_not_used_again():
    """What a body keeps of its arguments stays as it is; the pilot is told not to write there."""
    with line() as (one, other):
        one.send({}, [b"a" * MB])
        _, parts = other.recv()
        kept = parts[0][10:20]
        out = [parts.pop()]
        other.send_back({}, out)
        message, back = one.recv()
        assert not message["free"]
        back[0][:] = b"b" * MB
        assert bytes(kept) == b"a" * 10
        assert [segment.size for segment in one.returned(free=message["free"])] == [MB]


def test_a_segment_smaller_than_announced_is_refused():
    """Half a message is the end of the line, not a crash of the pilot."""
    with line() as (one, other):
        segment = Segment(os.memfd_create("small"), MB)
        segment.size, real = MB, 4096
        os.ftruncate(segment.descriptor, real)
        one.lent = segment
        one._post({}, [memoryview(b"x" * MB)], {0: 0}, 1)
        with pytest.raises(EOFError, match="smaller"):
            other.recv()


# --- kept for the next call ----------------------------------------------------------------------


def segment_of(size):
    segment = Segment.make(size)
    assert segment is not None
    return segment


def test_used_memory_serves_the_next_call():
    """A segment that fits and that nobody looks into is used again; any other is not."""
    spares = Spares()
    segment = segment_of(MB)
    spares.give([segment])
    view = segment.view(0, 10)
    assert spares.take([b"x" * MB]) is None
    del view
    assert spares.take([b"x" * 2 * MB]) is None
    assert spares.take([b"x" * LARGE_BYTES]) is None  # far too large for it
    assert spares.take([b"x"]) is None
    assert spares.take([b"x" * MB]) is segment
    assert spares.take([b"x" * MB]) is None
    spares.give([segment])
    spares.close()
    assert segment.descriptor == -1


def test_little_is_kept_where_memory_is_short(monkeypatch):
    """No more than an eighth of what is left to the job is kept; the oldest goes first."""
    monkeypatch.setattr(guest_memory, "memory_left_bytes", lambda: 8 * 20 * MB)
    spares = Spares()
    made = [segment_of(10 * MB) for _ in range(3)]
    for segment in made:
        spares.give([segment])
    assert [segment.descriptor >= 0 for segment in made] == [False, True, True]
    monkeypatch.setattr(guest_memory, "memory_left_bytes", lambda: 0)
    spares.give([])
    spares.give([segment_of(MB)])
    assert [segment.descriptor >= 0 for segment in made] == [False, False, True]
    spares.close()


def test_what_is_kept_is_given_back_in_time(monkeypatch):
    """Memory that no call used for a while goes back to the node."""
    spares = Spares()
    segment = segment_of(MB)
    spares.give([segment])
    monkeypatch.setattr(guest_memory, "KEPT_S", -1)
    assert spares.take([b"small"]) is None
    assert segment.descriptor == -1


@given(st.binary(max_size=100), st.integers(0, 3))
def test_a_snapshot_is_what_it_was(data, extra):
    """Changing a buffer after the call was made changes nothing of the call, however large."""
    source = bytearray(data * (1 + extra * LARGE_COPY_BYTES // max(len(data), 1)))
    copy = snapshot(memoryview(source))
    before = bytes(source)
    source[:] = b"\xff" * len(source)
    assert bytes(memoryview(copy)) == before


# --- with a real guest ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PYTHONS)
def python(request):
    return PYTHONS[request.param]


@pytest.fixture
def guest(python, tmp_path):
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    (tmp_path / "pilot").mkdir(mode=0o700)
    guest = Guest(python, environ=environ, home=install_guest(tmp_path / "pilot"))
    yield guest
    guest.close()


def value_of(guest, function, *args):
    reply = guest.call(call_of(function, args))
    assert reply.failure is None, reply.failure
    return values.loads(reply.payload, reply.buffers)


KEPT = []


def keep_and_tell(view=None):
    """One body for both calls: what it keeps, it keeps in its own module."""
    if view is None:
        return bytes(KEPT[0][:4])
    KEPT.append(view)
    return None


def child_keeps(view, path):
    """Leave a child that reads its argument after the call has ended."""
    go, aside = Path(path), Path(path + ".aside")
    if os.fork() == 0:
        while not go.exists():
            time.sleep(0.005)
        aside.write_bytes(view[:4])
        aside.rename(path + ".done")
        os._exit(0)


def test_what_a_body_keeps_is_its_own(guest):
    """An argument that a body remembers does not change when later calls bring other data."""
    value_of(guest, keep_and_tell, memoryview(b"one." * MB))
    for word in (b"two.", b"more", b"last"):
        value_of(guest, bytes, memoryview(word * MB))
    assert value_of(guest, keep_and_tell) == b"one."


def test_what_a_child_of_a_body_reads_later_is_its_own(guest, tmp_path):
    """A process that a body leaves behind sees the argument it was started with."""
    path = tmp_path / "go"
    value_of(guest, child_keeps, memoryview(b"one." * MB), str(path))
    for word in (b"two.", b"more"):
        value_of(guest, len, memoryview(word * MB))
    path.touch()
    done = tmp_path / "go.done"
    wait_until(done.exists, "the child's answer")
    assert done.read_bytes() == b"one."


def test_a_result_stays_while_later_calls_come(guest):
    """Results that are still looked at are not overwritten by the next calls."""
    blocks = [value_of(guest, bytearray, memoryview(bytes([i]) * MB)) for i in range(1, 6)]
    views = [value_of(guest, memoryview, block) for block in blocks]
    assert [set(view) for view in views] == [{i} for i in range(1, 6)]


def fails_at_length(words):
    raise ValueError(words)


def test_large_values_and_errors_can_travel_on(guest):
    """However large a payload or an exception, what comes back can be sent to the driver."""
    reply = guest.call(call_of(bytes, (5 * MB,)))
    assert pickle.loads(pickle.dumps(reply.payload)) == reply.payload
    assert values.loads(reply.payload, reply.buffers) == bytes(5 * MB)
    failure = guest.call(call_of(fails_at_length, ("x" * MB,))).failure
    assert pickle.loads(pickle.dumps(failure)) == failure
    assert values.loads(failure.pickled).args == ("x" * MB,)


def test_large_arguments_leave_the_driver_without_another_copy():
    """A call pickles small; its large buffers go beside it, and arrive as they were."""
    data = os.urandom(3 * MB)
    call = call_of(len, (memoryview(data),))
    beside = []
    payload = pickle.dumps(call, 5, buffer_callback=beside.append)
    assert len(payload) < 10_000
    there = pickle.loads(payload, buffers=[bytes(buffer.raw()) for buffer in beside])
    (args, _) = values.loads(there.payload, there.buffers)
    assert args[0] == data
    assert pickle.loads(pickle.dumps(call)).body == call.body


# --- when memory runs out ------------------------------------------------------------------------

HUNGRY = """
def eats():
    print("eating", flush=True)
    held = []
    while True:
        held.append(bytearray(10_000_000))


def feeds_a_child():
    import os, signal
    pid = os.fork()
    if pid == 0:
        open("/proc/self/oom_score_adj", "w").write("1000")
        eats()
    _, status = os.waitpid(pid, 0)
    raise RuntimeError("the child got signal %d" % (status & 127))
"""

PILOT = """
import json, os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
sys.path.insert(0, sys.argv[2])
import hungry
from hpcburst.bodies import call_of
from hpcburst.workers.guests import GuestPool, install_guest
Path(sys.argv[2], "pilot").mkdir(mode=0o700)
pool = GuestPool(home=install_guest(Path(sys.argv[2], "pilot")), environ=dict(os.environ))
told = []
for body in (hungry.eats, hungry.feeds_a_child):
    with pool.lease(None) as guest:
        failure = guest.call(call_of(body)).failure
        told.append([failure.fault, failure.kind, failure.message, failure.traceback])
with pool.lease(None) as guest:
    failure = guest.call(call_of(os._exit, (9,))).failure
    told.append([failure.fault, failure.kind, failure.message, failure.traceback])
pool.close()
print(json.dumps(told))
"""


@pytest.fixture
def small_group():
    """A control group of our own with 150 MB, below the one that this process is in."""
    for parent in oom._groups():
        group = parent / f"hpcburst-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            limits = [group / "memory.limit_in_bytes", group / "memory.max"]
            if any(limit.exists() for limit in limits):
                next(filter(Path.exists, limits)).write_text("150000000")
                break
            group.rmdir()
    else:
        pytest.skip("no control group for memory can be made here")
    yield group
    wait_until(partial(_removed, group), "the end of the group")


def _removed(group):
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def test_a_kill_at_the_limit_of_a_real_group_is_told(small_group, tmp_path):
    """A body that eats too much is out of memory; what dies later is not blamed on that."""
    (tmp_path / "hungry.py").write_text(HUNGRY)
    (tmp_path / "pilot.py").write_text(PILOT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "pilot.py"), str(small_group), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    eaten, child, later = json.loads(done.stdout)
    assert eaten[:2] == [Fault.OUT_OF_MEMORY, "SIGKILL"]
    assert "the job's memory limit" in eaten[2]
    assert child[0] == Fault.RAISED
    assert "the child got signal 9" in child[2]
    assert "killed a process of this job at the job's memory limit" in child[3]
    assert later[:2] == [Fault.DIED, "exit 9"]


@pytest.mark.parametrize(
    ("told", "files", "kills", "left"),
    [
        (
            "0::/job\n",
            {
                "job/memory.events": "low 0\noom 4\noom_kill 3\n",
                "job/memory.max": "1000\n",
                "job/memory.current": "400\n",
            },
            3,
            600,
        ),
        (
            "9:cpu:/job\n4:memory:/job\n0::/\n",
            {
                "memory/job/memory.oom_control": "under_oom 0\noom_kill 2\n",
                "memory/job/memory.limit_in_bytes": "1000\n",
                "memory/job/memory.usage_in_bytes": "100\n",
            },
            2,
            900,
        ),
        ("0::/elsewhere\n", {"memory.events": "oom_kill 1\n", "memory.max": "max\n"}, 1, None),
        ("0::/elsewhere\n", {}, None, None),
    ],
    ids=["v2", "v1", "in a container", "none"],
)
def test_the_groups_of_both_kinds_are_read(tmp_path, monkeypatch, told, files, kills, left):
    """Counts and limits are found in cgroup v2, in v1, and where only the root is seen."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text(told)
    monkeypatch.setattr(oom, "ROOT", tmp_path)
    monkeypatch.setattr(oom, "OWN_GROUPS", tmp_path / "self")
    oom._counter.cache_clear()
    oom._groups.cache_clear()
    try:
        assert oom.oom_kills() == kills
        assert oom.memory_left_bytes() == (left or oom._available())
    finally:
        oom._counter.cache_clear()
        oom._groups.cache_clear()
