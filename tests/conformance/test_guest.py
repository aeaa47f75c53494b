"""What a body may expect of the interpreter it runs in, on every Python minor found here."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import faulthandler
import functools
import importlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from hpcburst.answers import value_of
from hpcburst.bodies import body_of, call_of
from hpcburst.errors import BodyDied, BodyError, RequestError, SiteError, WalltimeReached
from hpcburst.results import Fault, Outcome
from hpcburst.tasks import Env
from hpcburst.workers import guest_talk
from hpcburst.workers.guest import values
from hpcburst.workers.guests import Guest, GuestPool, install_guest
from support.pythons import PYTHONS

FACTOR = 3
LIMIT_S = 20.0


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pilot")
    folder.chmod(0o700)
    return install_guest(folder)


@pytest.fixture(scope="session")
def environ():
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}


@pytest.fixture(scope="module", params=PYTHONS)
def python(request):
    return PYTHONS[request.param]


@pytest.fixture(scope="module")
def any_guest(python, home, environ):
    """A guest that every test leaves warm."""
    guest = Guest(python, environ=environ, home=home)
    yield guest
    guest.close()


@pytest.fixture
def guest(python, home, environ):
    """A guest that the test may kill."""
    guest = Guest(python, environ=environ, home=home)
    yield guest
    guest.close()


class Told:
    """A reply, its value and its lines."""

    def __init__(self, guest, function, *args, stand_ins=None, **options):
        self.lines = []
        call = call_of(function, args, stand_ins=stand_ins or {})
        self.reply = guest.call(call, on_line=self.lines.append, **options)
        self.failure = self.reply.failure

    @property
    def value(self):
        assert self.failure is None, self.failure
        return values.loads(self.reply.payload, self.reply.buffers)

    def written(self, level):
        return [line.text for line in self.lines if line.level == level]


def wait_for(condition, what):
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, f"never happened: {what}"
        time.sleep(0.005)


# --- the user's flow file, so to speak ------------------------------------------------------------


@dataclass
class Point:
    x: float
    tags: list[str] = field(default_factory=list)

    def doubled(self):
        return Point(double(self.x), [*self.tags, "doubled"])


class Sub(Point):
    def doubled(self):
        return super().doubled()


class Colour(Enum):
    RED = 1
    BLUE = 2


Pair = collections.namedtuple("Pair", "left right")  # noqa: PYI024 - users write it


class OwnError(Exception):
    pass


class TwoArgumentsError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def double(x):
    return 2 * x


def doubled(point):
    return point.doubled()


def sub_doubled(x):
    return Sub(x).doubled()


def colour_of(name):
    return Colour[name]


def paired(a, b):
    return Pair(b, a)


def scaled(x, *, by=FACTOR):
    return x * by


def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)


def is_even(n):
    return True if n == 0 else is_odd(n - 1)


def is_odd(n):
    return False if n == 0 else is_even(n - 1)


@functools.lru_cache(maxsize=None)  # noqa: UP033 - Python 3.8
def remembered(n):
    return [n]


def remembers():
    return remembered(1) is remembered(1)


@contextlib.contextmanager
def bracketed(name):
    print("open", name)
    yield name.upper()
    print("close", name)


def in_brackets():
    with bracketed("a") as upper:
        return upper


def shouting(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args).upper()

    return wrapper


@shouting
def greeting(name):
    return "hello " + name


counter = 0


def counts():
    global counter  # noqa: PLW0603 - that is the point
    bump()
    counter += 1
    return counter


def bump():
    global counter  # noqa: PLW0603 - that is the point
    counter += 10


async def slowly(x):
    await asyncio.sleep(0)
    return x + 1


def hint(x: Missing, y: list[Missing] | None = None) -> Missing:  # noqa: F821
    inner: Missing = x  # noqa: F821
    return inner


def engine_logger():
    raise RuntimeError("there is no engine in the env")


def logs_as_engine():
    engine_logger().warning("careful")
    return "logged"


class Task:
    """What an engine's decorator makes of a function."""

    def __init__(self, fn):
        self.fn = fn

    def __call__(self, *_):
        raise RuntimeError("the engine is not here")


@Task
def engine_task(x):
    return double(x) + 1


def calls_a_task(x):
    return engine_task(x)


# --- functions -----------------------------------------------------------------------------------


def test_a_closure_brings_its_values(any_guest):
    """A nested function works with what it closed over, its defaults and its keywords."""
    offset, scale = 5, {"a": 2}

    def nested(x, y=4, *, z=1):
        return x * scale["a"] + offset + y + z

    assert Told(any_guest, nested, 10).value == 30


def test_nested_functions_find_each_other(any_guest):
    """A nested function may call itself and its siblings."""

    def down(n):
        return 0 if n == 0 else up(n - 1) + 1

    def up(n):
        return 0 if n == 0 else down(n - 1) + 1

    assert Told(any_guest, down, 7).value == 7


def test_lambdas_on_one_line_are_told_apart(any_guest):
    """The lambda that was given is the one that runs."""
    first, second, third = lambda x: x + 1, lambda x: x + 2, lambda x, k=7: max(y * k for y in (x,))
    assert [Told(any_guest, f, 1).value for f in (first, second, third)] == [2, 3, 7]


@pytest.mark.parametrize(
    ("function", "args", "value"),
    [
        (factorial, (5,), 120),
        (is_even, (10,), True),
        (scaled, (2,), 6),
        (sub_doubled, (2,), Point(4, ["doubled"])),
        (colour_of, ("BLUE",), Colour.BLUE),
        (paired, (1, 2), Pair(2, 1)),
        (remembers, (), True),
        (greeting, ("you",), "HELLO YOU"),
        (slowly, (1,), 2),
        (hint, (1,), 1),
        (calls_a_task, (3,), 7),
        (engine_task, (3,), 7),
        (math.hypot, (3, 4), 5.0),
        (json.dumps, ([1],), "[1]"),
        (functools.partial(scaled, by=5), (2,), 10),
        (Point(2).doubled, (), Point(4, ["doubled"])),
    ],
    ids=lambda thing: getattr(thing, "__name__", None) or getattr(thing, "__qualname__", None),
)
def test_what_a_file_defines_goes_along(any_guest, function, args, value):
    """Helpers, classes, decorators, recursion, tasks and library functions work as at home."""
    assert Told(any_guest, function, *args).value == value


def test_globals_are_shared_within_a_body(any_guest):
    """Functions of one file see each other's changes of a global, as at home."""
    assert Told(any_guest, counts).value == 11


def test_instances_of_own_classes_travel_both_ways(any_guest):
    """An argument of a class of the flow file arrives, and comes back as that class."""
    value = Told(any_guest, doubled, Point(2.5, ["a"])).value
    assert value == Point(5.0, ["a", "doubled"])
    assert type(value) is Point


def test_a_changed_global_is_seen(any_guest, monkeypatch):
    """A call made after a constant was changed works with the new one."""

    def times_factor(x):
        return x * FACTOR

    assert Told(any_guest, times_factor, 2).value == 6
    monkeypatch.setitem(globals(), "FACTOR", 10)
    assert Told(any_guest, times_factor, 2).value == 20


def test_a_module_that_the_env_lacks_hurts_only_when_touched(any_guest):
    """A body runs without a module it does not reach; reaching it says which module and env."""
    absent = pytest  # only the env of the tests has it

    def maybe(reach):
        return absent.raises if reach else "fine"

    assert Told(any_guest, maybe, False).value == "fine"
    if Told(any_guest, importlib.util.find_spec, "pytest").value is None:
        failure = Told(any_guest, maybe, True).failure
        assert failure.kind == "ModuleNotFoundError"
        assert "'pytest'" in failure.message
        assert "env" in failure.message


def test_syntax_that_the_env_does_not_know_is_said(any_guest, python, tmp_path):
    """A body written for a newer Python is refused with the version and the reason."""
    module = _module(
        tmp_path, "def f(x):\n    match x:\n        case 1:\n            return 'one'\n"
    )
    told = Told(any_guest, module.f, 1)
    if python in [PYTHONS.get("3.8"), PYTHONS.get("3.9")]:
        assert told.failure.fault is Fault.ARGUMENTS
        assert "SyntaxError" in told.failure.message
        assert "Python 3." in told.failure.message
    else:
        assert told.value == "one"


def _module(folder, text, name="a_flow_file"):
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def test_a_function_from_a_prompt_goes_by_value_between_equal_minors_only(any_guest, python):
    """Byte code runs where it was made; every other Python refuses it and says why."""
    space = {"__name__": "__main__", "k": 40}
    exec("def f(x, y=1): return x + y + k", space)  # noqa: S102 - that is the point
    told = Told(any_guest, space["f"], 1)
    if python == sys.executable:
        assert told.value == 42
    else:
        assert told.failure.fault is Fault.ARGUMENTS
        assert "defined at a prompt or by exec" in told.failure.message
        assert "define it in a file" in told.failure.message
    assert Told(any_guest, lambda: "warm").value == "warm"


def test_a_guest_does_not_remember_bodies_without_end(any_guest, monkeypatch):
    """Bodies that differ each time are forgotten in time, and all of them run."""
    monkeypatch.setattr(guest_talk, "MAX_BODIES", 3)

    def closing_over(i):
        return lambda: i

    assert [Told(any_guest, closing_over(i % 5)).value for i in range(20)] == [*range(5)] * 4
    assert len(any_guest.seen) <= 3


# --- data ----------------------------------------------------------------------------------------


def test_large_buffers_go_and_come_unharmed(any_guest):
    """64 MB in and out are the same bytes, and the body may change its argument in place."""
    data = bytearray(os.urandom(1 << 20) * 64)

    def stamped(view):
        view[:5] = b"guest"
        return view

    back = Told(any_guest, stamped, memoryview(data)).value
    assert bytes(back[:5]) == b"guest"
    assert back[5:] == memoryview(data)[5:]
    assert data[:5] != b"guest"


def test_arrays_go_to_envs_with_any_numpy_or_none(any_guest):
    """An array arrives as an array, or as a shaped memoryview where the env has no numpy."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(12000.0).reshape(100, 120)

    def described(a):
        return type(a).__name__, tuple(a.shape), float(a.tolist()[2][3])

    kind, shape, item = Told(any_guest, described, array).value
    assert (kind, shape, item) in [
        ("ndarray", (100, 120), 243.0),
        ("memoryview", (100, 120), 243.0),
    ]
    back = Told(any_guest, lambda a: a, array).value
    assert numpy.array_equal(numpy.asarray(back), array)
    numpy.asarray(back)[0, 0] = 1.0  # what comes back belongs to the flow


def test_an_array_nobody_can_show_names_numpy(any_guest):
    """Where an array cannot be shown without numpy, the failure says that numpy is missing."""
    numpy = pytest.importorskip("numpy")
    told = Told(any_guest, lambda a: a.shape[0], numpy.zeros(3, dtype="complex128"))
    if told.failure is not None:
        assert told.failure.fault is Fault.ARGUMENTS
        assert "no numpy" in told.failure.message
    else:
        assert told.value == 3


def test_paths_and_dates_come_home_from_any_python(any_guest):
    """What the standard library moved between versions still arrives."""
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    told = Told(any_guest, lambda day: [Path("/a/b"), day, range(3), {1: (2,)}], now)
    assert told.value == [Path("/a/b"), now, range(3), {1: (2,)}]


def test_a_value_that_cannot_be_pickled_is_named(any_guest):
    """A generator as result is refused with its type and what to return instead."""
    failure = Told(any_guest, lambda: (i for i in range(3))).failure
    assert failure.fault is Fault.RESULT
    assert "generator" in failure.message
    assert "list(...)" in failure.message
    assert Told(any_guest, lambda: "warm").value == "warm"


def test_an_argument_the_env_cannot_read_is_named(any_guest):
    """An argument of a class whose module the env lacks is refused with the module's name."""

    class Foreign:
        def __reduce__(self):
            return (_FromNowhere("gone"), ())

    Foreign.__module__ = "builtins"
    failure = Told(any_guest, lambda x: x, Foreign()).failure
    assert failure.fault is Fault.ARGUMENTS
    assert "no_such_module_here" in failure.message


class _FromNowhere:
    """Pickles as a function of a module that no env has."""

    __module__ = "builtins"

    def __init__(self, name):
        self.__qualname__ = name

    def __call__(self):
        raise AssertionError

    def __reduce__(self):
        return (importlib.import_module, ("no_such_module_here",))


# --- what it says --------------------------------------------------------------------------------


def test_output_is_complete_and_in_order(any_guest):
    """All lines of the body, its children and C code are there when the reply is."""

    def chatty():
        import ctypes

        for i in range(200):
            print("line", i)
        sys.stderr.write("to stderr\n")
        os.system("echo from a child")  # noqa: S605
        ctypes.CDLL(None).printf(b"from C\n")
        print("no newline at the end", end="")

    told = Told(any_guest, chatty)
    out = told.written("stdout")
    assert out[:201] == [f"line {i}" for i in range(200)] + ["from a child"]
    assert sorted(out[201:]) in (
        ["from C", "no newline at the end"],
        ["no newline at the endfrom C"],
    )
    assert told.written("stderr") == ["to stderr"]


def test_output_of_one_call_never_shows_in_the_next(any_guest):
    """What a call wrote is its own."""
    assert Told(any_guest, print, "one").written("stdout") == ["one"]
    assert Told(any_guest, print, "two").written("stdout") == ["two"]


def test_more_output_than_a_pipe_holds_does_not_block(any_guest):
    """A body may write megabytes."""
    told = Told(any_guest, lambda: [print("x" * 1000) for _ in range(3000)] and None)
    assert len(told.written("stdout")) == 3000


def test_log_records_keep_their_level(any_guest):
    """INFO and above of any logger arrives with its level, after what was printed before it."""

    def logs():
        print("first")
        logging.getLogger("mine").info("one %s", 1)
        logging.getLogger("other").error("two")
        logging.getLogger("other").debug("never")

    lines = Told(any_guest, logs).lines
    assert [(line.level, line.text) for line in lines] == [
        ("stdout", "first"),
        ("INFO", "one 1"),
        ("ERROR", "two"),
    ]


def test_prints_and_log_records_keep_their_order(any_guest):
    """stdout, stderr and log records come in the order in which the body spoke."""

    def speaks():
        for i in range(40):
            logging.getLogger().info("log %d", i)
            print("out", i)
            print("err", i, file=sys.stderr)
            print("again", i)

    expected = [
        (level, f"{word} {i}")
        for i in range(40)
        for level, word in [
            ("INFO", "log"),
            ("stdout", "out"),
            ("stderr", "err"),
            ("stdout", "again"),
        ]
    ]
    for _ in range(5):
        lines = Told(any_guest, speaks).lines
        assert [(line.level, line.text) for line in lines] == expected


def test_what_keeps_the_order_is_never_seen(any_guest, tmp_path):
    """Children, redirected streams and other threads see clean text, and nothing is lost."""
    path = str(tmp_path / "out")

    def speaks(path):
        import io
        from contextlib import redirect_stdout

        print("before")
        subprocess.run(["sh", "-c", "echo child; echo child >&2"], check=True)
        with redirect_stdout(io.StringIO()) as caught:
            print("caught")
            logging.getLogger().info("while caught")
        saved = os.dup(1)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), 1)
        print("to a file")
        sys.stderr.write("beside it\n")
        os.dup2(saved, 1)
        threads = [threading.Thread(target=logging.warning, args=(i,)) for i in range(20)]
        for thread in threads:
            thread.start()
            print("thread")
        for thread in threads:
            thread.join()
        return caught.getvalue(), sys.stdout.fileno(), sys.stdout.encoding, sys.stdout.isatty()

    told = Told(any_guest, speaks, path)
    assert told.value == ("caught\n", 1, "utf-8", False)
    assert Path(path).read_text() == "to a file\n"
    assert told.written("stdout") == ["before", "child", *["thread"] * 20]
    assert told.written("stderr") == ["child", "beside it"]
    assert sorted(map(int, told.written("WARNING"))) == list(range(20))
    assert told.written("INFO") == ["while caught"]


def test_lines_come_while_the_body_runs(any_guest):
    """A line that was written is told at once, not at the end of the call."""
    release = threading.Event()
    lines = []

    def on_line(line):
        lines.append(line.text)
        if line.text == "second":
            release.set()

    def waits():
        logging.getLogger().info("first")
        print("second")
        time.sleep(1000)

    reply = any_guest.call(call_of(waits), cancelled=release, on_line=on_line)
    assert reply.failure.fault is Fault.CANCELLED
    assert lines == ["first", "second"]


def test_an_engines_logger_has_a_stand_in(any_guest):
    """A body that asks the engine for a logger gets one in an env without the engine."""
    told = Told(any_guest, logs_as_engine, stand_ins={engine_logger: "task_logger"})
    assert told.value == "logged"
    assert [(line.level, line.text) for line in told.lines] == [("WARNING", "careful")]


def test_a_logger_is_stood_in_for_in_a_closure_and_a_module_too(any_guest):
    """It does not matter how the body names the engine's logger."""
    logger = engine_logger
    here = sys.modules[__name__]
    stand_ins = {engine_logger: "task_logger"}

    def by_closure():
        logger().info("closure")

    def by_module():
        here.engine_logger().info("module")

    assert Told(any_guest, by_closure, stand_ins=stand_ins).written("INFO") == ["closure"]
    assert Told(any_guest, by_module, stand_ins=stand_ins).written("INFO") == ["module"]


def test_forked_children_do_not_disturb_the_line(any_guest):
    """A body's worker processes may log and run the file's functions."""

    def parallel():
        import multiprocessing

        logging.getLogger().info("parent")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(double, [1, 2, 3])

    assert Told(any_guest, parallel).value == [2, 4, 6]


# --- how it fails --------------------------------------------------------------------------------


def test_an_exception_comes_home_as_itself(any_guest):
    """Its type, text and the user's own lines arrive, without frames of ours."""

    def fails():
        raise ValueError("bad input")

    failure = Told(any_guest, fails).failure
    assert (failure.fault, failure.kind, failure.message) == (
        Fault.RAISED,
        "ValueError",
        "bad input",
    )
    error = values.loads(failure.pickled)
    assert type(error) is ValueError
    assert 'raise ValueError("bad input")' in failure.traceback
    assert __file__ in failure.traceback
    line = fails.__code__.co_firstlineno + 1
    assert f"line {line}" in failure.traceback
    assert "hpcburst_guest" not in failure.traceback


def test_own_exception_types_come_home(any_guest):
    """An exception of the flow file's own type is that type in the flow."""

    def fails():
        raise OwnError("mine")

    error = values.loads(Told(any_guest, fails).failure.pickled)
    assert type(error) is OwnError
    assert error.args == ("mine",)


def test_an_exception_that_does_not_survive_is_told_in_words(any_guest):
    """One that cannot be rebuilt arrives as kind, message and traceback."""

    def fails():
        raise TwoArgumentsError(1, 2)

    failure = Told(any_guest, fails).failure
    assert (failure.kind, failure.message) == ("TwoArgumentsError", "1 and 2")
    assert failure.pickled is None


def test_exit_of_a_body_is_its_failure_only(any_guest):
    """`sys.exit` fails the call, cannot end the flow, and leaves the guest warm."""
    failure = Told(any_guest, lambda: sys.exit("goodbye")).failure
    assert (failure.fault, failure.kind, failure.message) == (
        Fault.RAISED,
        "SystemExit",
        "goodbye",
    )
    assert failure.pickled is None
    assert any_guest.alive


def test_a_crash_is_named_with_where_it_was(guest):
    """A segmentation fault names the signal, and the line that did it."""

    def crashes():
        print("before")
        faulthandler._sigsegv()

    told = Told(guest, crashes)
    assert (told.failure.fault, told.failure.kind) == (Fault.DIED, "SIGSEGV")
    assert "in crashes" in told.failure.traceback
    assert told.written("stdout") == ["before"]
    assert not guest.alive


def test_a_killed_process_is_named(guest):
    """SIGKILL and a bare exit name the signal and the status."""
    failure = Told(guest, lambda: os.kill(os.getpid(), signal.SIGKILL)).failure
    assert (failure.fault, failure.kind) == (Fault.DIED, "SIGKILL")
    assert "memory limit" in failure.message


def test_a_dead_guest_says_the_same_again(guest):
    """A call on a guest that is gone is a failure of its own, not a crash of the pilot."""
    Told(guest, lambda: os._exit(3))
    assert Told(guest, double, 2).failure.fault is Fault.CANCELLED


def test_a_bare_exit_is_named(guest):
    """`os._exit` names the status."""
    failure = Told(guest, lambda: os._exit(3)).failure
    assert (failure.fault, failure.kind) == (Fault.DIED, "exit 3")


def test_a_kill_at_the_memory_limit_says_so(guest, monkeypatch):
    """When the job's count of memory kills has gone up, the failure is out of memory."""
    monkeypatch.setattr(guest_talk, "oom_kills", lambda: guest.kills_before + 1)
    failure = Told(guest, lambda: os.kill(os.getpid(), signal.SIGKILL)).failure
    assert failure.fault is Fault.OUT_OF_MEMORY


def test_a_body_that_outlives_its_time_is_interrupted_and_the_guest_stays_warm(any_guest):
    """Python code stops at the limit, says where it was, and the next call is served."""

    def loops():
        while True:
            time.sleep(0.01)

    begun = time.monotonic()
    failure = Told(any_guest, loops, timeout_s=0.3).failure
    assert failure.fault is Fault.TIMEOUT
    assert "in loops" in failure.traceback
    assert time.monotonic() - begun < 2
    assert Told(any_guest, lambda: "warm").value == "warm"


def test_a_body_that_logs_without_end_is_interrupted_like_any_other(any_guest):
    """An interrupt in the middle of a record breaks neither the line nor the guest."""

    def floods():
        while True:
            logging.getLogger().info("x" * 3_000_000)

    for _ in range(5):
        begun = time.monotonic()
        assert Told(any_guest, floods, timeout_s=0.1).failure.fault is Fault.TIMEOUT
        assert time.monotonic() - begun < 2
        assert any_guest.alive
        assert Told(any_guest, lambda: "warm").value == "warm"


def test_a_body_that_prints_without_end_is_interrupted_like_any_other(any_guest):
    """Output that never ceases does not keep the time limit from being seen."""

    def floods():
        while True:
            sys.stdout.write("x" * 65_535 + "\n")

    begun = time.monotonic()
    assert Told(any_guest, floods, timeout_s=0.2).failure.fault is Fault.TIMEOUT
    assert time.monotonic() - begun < 2
    assert Told(any_guest, lambda: "warm").value == "warm"


def test_a_deaf_body_is_killed(guest, monkeypatch):
    """A body that ignores the interrupt is killed after the grace, with its children."""
    monkeypatch.setattr(guest_talk, "GRACE_S", 0.3)

    def deaf():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "1000"])
        print(child.pid)
        time.sleep(1000)

    told = Told(guest, deaf, timeout_s=0.5)
    assert told.failure.fault is Fault.TIMEOUT
    assert not guest.alive
    child = int(told.written("stdout")[0])
    wait_for(lambda: _gone(child), "the end of the body's child")


def test_a_cancelled_body_stops_soon(any_guest):
    """Withdrawing a task interrupts its body."""
    cancelled = threading.Event()
    lines = []

    def on_line(line):
        lines.append(line)
        cancelled.set()

    def waits():
        print("started")
        time.sleep(1000)

    begun = time.monotonic()
    reply = any_guest.call(call_of(waits), cancelled=cancelled, on_line=on_line)
    assert reply.failure.fault is Fault.CANCELLED
    assert time.monotonic() - begun < 2
    assert Told(any_guest, lambda: "warm").value == "warm"


def test_a_task_cancelled_before_it_began_never_runs(any_guest, tmp_path):
    """A body withdrawn before its call leaves no trace."""
    cancelled = threading.Event()
    cancelled.set()
    mark = tmp_path / "mark"
    told = Told(any_guest, os.mkdir, str(mark), cancelled=cancelled)
    assert told.failure.fault is Fault.CANCELLED
    assert not mark.exists()


def _crashes():
    faulthandler._sigsegv()


def _fails():
    raise OwnError("mine")


ENDS = {
    "a crash": (BodyDied, "SIGSEGV", _crashes),
    "a kill": (BodyDied, "SIGKILL", lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "a bare exit": (BodyDied, "status 3", lambda: os._exit(3)),
    "sys.exit": (BodyError, "SystemExit", lambda: sys.exit("enough")),
    "a time-out": (WalltimeReached, "longer than 0.2 s", lambda: time.sleep(1000)),
    "no value": (RequestError, "return a list", lambda: (i for i in range(3))),
    "own error": (OwnError, "mine", _fails),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_an_error_of_its_own(guest, end):
    """How a body ends decides the type of the error in the flow; its text tells what and where."""
    kind, words, body = ENDS[end]
    reply = Told(guest, body, timeout_s=0.2 if end == "a time-out" else None).reply
    with pytest.raises(kind, match=words) as caught:
        value_of(Outcome(failure=reply.failure), "fit")
    assert type(caught.value) is kind
    if end not in ("a kill", "a bare exit", "no value"):  # there the process had no time to say
        told = "".join(traceback.format_exception(caught.value))
        first = body.__code__.co_firstlineno
        places = [f'{__file__}", line {line} in' for line in (first, first + 1)]
        assert any(place in told.replace(", in", " in") for place in places), told


# --- where it runs -------------------------------------------------------------------------------


def test_a_call_runs_in_its_folder_and_imports_from_it(any_guest, tmp_path):
    """The flow's folder is the working directory, and its modules can be imported."""
    (tmp_path / "beside_the_flow.py").write_text("ANSWER = 42\n")

    def reads():
        import beside_the_flow

        return beside_the_flow.ANSWER, str(Path.cwd())

    told = Told(any_guest, reads, cwd=str(tmp_path), paths=[str(tmp_path)])
    assert told.value == (42, str(tmp_path))
    assert str(tmp_path) not in Told(any_guest, lambda: [*sys.path, str(Path.cwd())]).value


def test_a_folder_that_is_not_there_is_named(any_guest, tmp_path):
    """A call in a folder that the node does not have is refused with its name."""
    failure = Told(any_guest, print, cwd=str(tmp_path / "gone")).failure
    assert failure.fault is Fault.ARGUMENTS
    assert "gone" in failure.message


def test_usage_is_measured(any_guest):
    """Elapsed time, CPU time and peak memory of the call come with the reply, children included."""

    def works():
        until = time.process_time() + 0.2
        block = bytearray(50_000_000)
        while time.process_time() < until:
            pass
        return len(block)

    usage = Told(any_guest, works).reply.usage
    assert usage.wall_s >= 0.19
    assert usage.cpu_s >= 0.19
    assert 50 < usage.max_rss_mb < 2000
    assert abs(usage.started_at - time.time()) < 60
    assert Told(any_guest, lambda: 1).reply.usage.max_rss_mb < usage.max_rss_mb


def test_the_guest_sees_nothing_of_hpcburst(any_guest):
    """The env's interpreter has no module of ours but the guest's."""
    names = Told(any_guest, lambda: [n for n in sys.modules if "hpcburst" in n]).value
    assert all(name.startswith("hpcburst_guest") for name in names)


def test_nothing_piles_up(any_guest):
    """Fifty large calls leave no descriptor behind, here or there."""

    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    block = memoryview(bytearray(1 << 20))
    Told(any_guest, lambda b: b, block)
    before = descriptors(), Told(any_guest, descriptors).value
    for _ in range(50):
        Told(any_guest, lambda b: b, block)
    assert (descriptors(), Told(any_guest, descriptors).value) == before


PARENT = """
import os, sys, threading
from pathlib import Path
from hpcburst.bodies import call_of
from hpcburst.workers.guests import Guest
import a_parents_body
guest = Guest(sys.argv[1], environ=dict(os.environ), home=Path(sys.argv[2]))
guest.call(call_of(a_parents_body.hold), on_line=lambda line: print(line.text, flush=True))
"""

HELD = """
import os, re, time
def hold():
    print(os.getpid())
    re.match("(a+)+$", "a" * 60 + "b")  # holds the interpreter for ages
"""


def test_a_guest_ends_with_its_pilot(python, home, environ, tmp_path):
    """When the pilot is killed, its guest goes too, even one that holds the interpreter in C."""
    (tmp_path / "a_parents_body.py").write_text(HELD)
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    argv = [sys.executable, str(script), python, str(home)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ, text=True) as parent:
        guest = int(parent.stdout.readline())
        assert not _gone(guest)
        parent.kill()
    wait_for(lambda: _gone(guest), "the end of the guest")


def _gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


# --- starting, keeping, ending -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("not a program", "Exec format"),
        ("#!/bin/sh\necho no library >&2\nexit 9\n", "status 9"),
    ],
)
def test_an_interpreter_that_does_not_start_is_the_envs_fault(home, environ, tmp_path, text, words):
    """A missing, foreign or broken interpreter is told with its path and its last words."""
    python = tmp_path / "python"
    if text is not None:
        python.write_text(text)
        python.chmod(0o700)
    guest = Guest(str(python), environ=environ, home=home)
    told = Told(guest, print)
    assert told.failure.fault is Fault.ENV
    assert str(python) in told.failure.message
    assert words in told.failure.message
    if "status" in words:
        assert told.failure.traceback == "no library"
    assert not guest.alive


@pytest.fixture
def pool(home, environ):
    pool = GuestPool(home=home, environ={**environ, "PYTHONPATH": "/nowhere"}, max_idle=1)
    yield pool
    pool.close()


def _env(prefix, key="k", **activation):
    (prefix / "bin").mkdir(parents=True)
    script = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
    (prefix / "bin" / "python").write_text(script)
    (prefix / "bin" / "python").chmod(0o700)
    return Env(key, str(prefix), activation)


def test_a_pool_keeps_guests_warm(pool):
    """The next task of an env gets the interpreter that the last one left."""
    with pool.lease(None) as guest:
        first = Told(guest, os.getpid).value
    with pool.lease(None) as guest:
        assert Told(guest, os.getpid).value == first


def test_two_tasks_at_once_get_two_guests(pool):
    """One guest runs one task at a time; no more than agreed are kept."""
    with pool.lease(None) as one, pool.lease(None) as other:
        assert Told(one, os.getpid).value != Told(other, os.getpid).value
    assert [one.alive, other.alive].count(True) == 1


def test_a_dead_guest_is_not_given_again(pool):
    """After a crash the next task gets a fresh interpreter."""
    with pool.lease(None) as guest:
        Told(guest, lambda: os._exit(1))
    with pool.lease(None) as guest:
        assert Told(guest, lambda: "fresh").value == "fresh"


def test_an_env_gets_its_activation_and_nothing_of_another_python(pool, tmp_path):
    """Activation sets and unsets; PYTHONPATH and user packages do not leak into an env."""
    env = _env(tmp_path / "env", GREETING="hello", HOME=None)
    with pool.lease(env) as guest:
        got = Told(guest, lambda: dict(os.environ)).value
    assert got["GREETING"] == "hello"
    assert got["PYTHONNOUSERSITE"] == "1"
    assert "HOME" not in got
    assert "PYTHONPATH" not in got


def test_warming_starts_a_guest_ahead(pool):
    """A warmed env has its interpreter up before the first task."""
    pool.warm(None)
    pool.warm(None)
    with pool.lease(None) as guest:
        assert guest.pid
        assert Told(guest, os.getpid).value == guest.pid


def test_closing_a_pool_ends_running_bodies(pool):
    """A pool that closes leaves no process, and a task that ran is told as withdrawn."""
    started = threading.Event()
    told = []

    def run(guest):
        call = call_of(lambda: print("started") or time.sleep(1000))
        told.append(guest.call(call, on_line=lambda _: started.set()))

    with pool.lease(None) as guest:
        thread = threading.Thread(target=run, args=(guest,))
        thread.start()
        assert started.wait(LIMIT_S)
        pool.close()
        thread.join(LIMIT_S)
    assert told[0].failure.fault is Fault.CANCELLED
    assert _gone(guest.pid)
    with pytest.raises(SiteError, match="ending"), pool.lease(None):
        pass
    pool.close()


def test_a_guest_is_closed_twice_without_harm(guest):
    """Closing is idempotent and ends the process."""
    assert Told(guest, double, 2).value == 4
    guest.close()
    guest.close()
    assert _gone(guest.pid)


def test_the_guest_is_installed_into_private_folders_only(tmp_path):
    """A folder that others may enter is refused; installing twice is the same as once."""
    (tmp_path / "own").mkdir(mode=0o700)
    home = install_guest(tmp_path / "own")
    assert install_guest(tmp_path / "own") == home
    assert home.stat().st_mode & 0o077 == 0
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(SiteError, match="private"):
        install_guest(tmp_path / "open")


def test_a_body_sent_again_need_not_be_sent_whole(any_guest):
    """Equal bodies have one digest, and calling twice gives the same."""
    assert body_of(double).digest == body_of(double).digest
    assert [Told(any_guest, double, i).value for i in range(3)] == [0, 2, 4]
