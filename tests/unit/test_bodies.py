"""What a function may expect of being made into data."""

from __future__ import annotations

import functools
import importlib.util
import json
import linecache
import operator
import pickle
import sys
import threading
from pathlib import Path

import pytest

from hpcburst.bodies import body_of, call_of
from hpcburst.bodies.collect import Collector
from hpcburst.bodies.sources import NoSourceError, definition_of
from hpcburst.errors import RequestError
from hpcburst.tasks import needs
from hpcburst.workers.guest import values
from hpcburst.workers.guest.rebuild import Rebuilt

FLOW = '''
import math
from functools import lru_cache, wraps

LIMIT = 10
LOCK = __import__("threading").Lock()


def mark(fn):
    fn.marked = True
    return fn


@mark
def area(r, scale=2):
    """Docs."""
    return math.pi * r * r * scale + LIMIT


class Base:
    def name(self):
        return helper(self)


class Derived(Base):
    limit: "Absent" = LIMIT

    def name(self):
        return "derived " + super().name()


def helper(thing):
    return type(thing).__name__


def make(kind=Derived):
    return kind().name()


@lru_cache(maxsize=4)
def cached(n):
    return n + LIMIT


def uses_cached(n):
    return cached(n)


def locked():
    with LOCK:
        return 1


def outer(base):
    def inner(x):
        nonlocal base
        base += x
        return base
    return inner


adders = [lambda x: x + 1, lambda x: x + 2]

def generate(n, /, *rest, key: "nothing" = (lambda v: v * 2), **more):
    return [key(i) for i in range(n)], rest, more
'''


@pytest.fixture
def load(tmp_path):
    """Import text as a flow file."""
    names = []

    def load(text, name="a_flow"):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        linecache.checkcache(str(path))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        names.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def flow(load):
    return load(FLOW)


def rebuilt(body, **stand_ins):
    """What the guest makes of it; the guest also tells its own tracebacks where the text is."""
    known = dict(linecache.cache)
    try:
        return Rebuilt(body.blob, stand_ins).function
    finally:
        linecache.cache.clear()
        linecache.cache.update(known)


# --- what comes out is the function ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("area", (0,), 10),
        ("make", (), "derived Derived"),
        ("uses_cached", (1,), 11),
        ("cached", (1,), 11),
        ("generate", (2,), ([0, 2], (), {})),
    ],
)
def test_a_function_is_rebuilt_with_what_it_uses(flow, name, args, value):
    """Defaults, globals, helpers, classes and library decorators go along."""
    assert rebuilt(body_of(getattr(flow, name)))(*args) == value


def test_it_is_rebuilt_from_text_and_not_from_this_process(flow):
    """The function that comes out is another one, with other globals."""
    again = rebuilt(body_of(flow.area))
    assert again is not flow.area
    assert again.__globals__ is not flow.area.__globals__
    assert again.__doc__ == "Docs."
    assert not hasattr(again, "marked")  # decorators are dropped


def test_a_closure_keeps_what_it_closed_over(flow):
    """A nested function starts with the values it has now."""
    inner = flow.outer(5)
    inner(1)
    assert rebuilt(body_of(inner))(10) == 16


def test_lambdas_are_told_apart(flow):
    """Two lambdas on one line are two bodies."""
    assert [rebuilt(body_of(f))(1) for f in flow.adders] == [2, 3]


def test_our_decorators_are_dropped(load):
    """`needs` and an engine's `task` do not reach the env, which has neither."""
    module = load(
        "from hpcburst import needs\n"
        "class Task:\n"
        "    def __init__(self, fn): self.fn = fn\n"
        "@Task\n@needs(cores=2)\ndef f(x):\n    return x + 1\n"
    )
    body = body_of(module.f)
    assert rebuilt(body)(1) == 2
    assert b"needs" not in body.blob
    assert body.name == "f"


def test_a_decorator_of_the_users_keeps_working(load):
    """A wrapper from the flow file goes along with what it wraps."""
    module = load(
        "import functools\n"
        "def loud(fn):\n"
        "    @functools.wraps(fn)\n"
        "    def wrapper(*args):\n"
        "        return fn(*args).upper()\n"
        "    return wrapper\n"
        "@loud\ndef hello(name):\n    return 'hello ' + name\n"
    )
    assert rebuilt(body_of(module.hello))("you") == "HELLO YOU"


def test_definitions_in_blocks_keep_their_indentation(load):
    """A function defined under an `if`, with tabs, is rebuilt as it is."""
    module = load("if True:\n\tdef f(x):\n\t\tif x:\n\t\t\treturn '''a\n\tb'''\n\t\treturn 0\n")
    assert rebuilt(body_of(module.f))(1) == "a\n\tb"


@pytest.mark.parametrize("function", [json.dumps, operator.add, len, Path.exists, int])
def test_what_a_library_defines_goes_by_name(function):
    """Builtins, C functions and library functions are imported in the env."""
    body = body_of(function)
    assert rebuilt(body) is function
    assert len(body.blob) < 300


def test_annotations_and_defaults_may_name_what_the_env_lacks(load):
    """Only what a body touches must be there."""
    module = load(
        "import operator as absent\n"
        "def f(x: absent.Thing = absent.add(1, 2)) -> absent.Other:\n    return x\n".replace(
            "absent.Thing", "'absent.Thing'"
        ).replace("absent.Other", "'absent.Other'")
    )
    body = body_of(module.f)
    assert rebuilt(body)() == 3
    assert b"operator" not in body.blob


def test_stand_ins_replace_objects_wherever_they_are_named(load):
    """By global name, by closure, in a default, and as an attribute of their module."""
    engine = load("def get_logger():\n    raise RuntimeError\n", "an_engine")
    module = load(
        "import an_engine\n"
        "from an_engine import get_logger as logger\n"
        "def by_name(): return logger()\n"
        "def by_module(): return an_engine.get_logger()\n"
        "def by_default(get=logger): return get()\n"
        "def closure(get):\n    return lambda: get()\n"
    )
    stand_ins = {engine.get_logger: "task_logger"}
    bodies = [module.by_name, module.by_module, module.by_default, module.closure(module.logger)]
    for function in bodies:
        body = body_of(function, stand_ins=stand_ins)
        assert rebuilt(body, task_logger=lambda: "stood in")() == "stood in"


def test_a_partial_takes_its_function_along(flow):
    """`functools.partial` over a function of the flow file works."""
    body = body_of(functools.partial(flow.area, scale=0))
    assert rebuilt(body)(3) == 10


def test_a_body_can_itself_be_pickled(flow):
    """Bodies travel to the pilot."""
    body = body_of(flow.area)
    assert pickle.loads(pickle.dumps(body)) == body


# --- the digest ----------------------------------------------------------------------------------


def test_equal_functions_have_equal_digests_wherever_they_stand(load):
    """Neither code above, nor another file, nor another module name changes the digest."""
    one = body_of(load(FLOW, "one").make)
    other = body_of(load("# a comment\nimport os\n" + FLOW, "other").make)
    assert one.digest == other.digest
    assert one.blob != other.blob


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return math.pi", "return 2 * math.pi"),
        ("LIMIT = 10", "LIMIT = 11"),
        ("scale=2", "scale=3"),
        ("import math", "import cmath as math"),
    ],
)
def test_a_change_of_what_a_function_does_changes_its_digest(load, old, new):
    """The text, a constant, a default or an import of another module make another body."""
    before = body_of(load(FLOW, "before").area).digest
    assert body_of(load(FLOW.replace(old, new), "after").area).digest != before


def test_a_change_in_a_helper_changes_the_digest(load):
    """A result is not taken from a cache that was filled with another helper."""
    before = body_of(load(FLOW, "before").make).digest
    changed = FLOW.replace("return type(thing).__name__", "return 'x'")
    assert body_of(load(changed, "after").make).digest != before


def test_a_changed_global_is_seen_at_once(flow):
    """Nothing of the globals is remembered between two calls."""
    before = body_of(flow.area)
    flow.LIMIT = 99
    after = body_of(flow.area)
    assert before.digest != after.digest
    assert rebuilt(after)(0) == 99


def test_an_edited_file_does_not_change_what_runs(load):
    """A file edited during a run: the text that was loaded runs, not the new one."""
    module = load("def f():\n    return 'old'\n\n\ndef g():\n    return f()\n")
    body_of(module.g)
    edited = load("def f():\n    return 'new'\n\n\ndef g():\n    return f(), f()\n")
    for _ in range(2):
        assert rebuilt(body_of(module.g))() == "old"
        assert rebuilt(body_of(edited.g))() == ("new", "new")


def test_a_reloaded_module_runs_its_new_text(load):
    """A file edited and loaded again: the new text runs."""
    first = load("def f():\n    return 'old'\n")
    assert rebuilt(body_of(first.f))() == "old"
    again = load("\n\ndef f():\n    return 'newer'\n")
    assert rebuilt(body_of(again.f))() == "newer"


# --- calls ---------------------------------------------------------------------------------------


def test_a_call_is_a_snapshot_of_its_arguments(flow):
    """What happens to an argument after the call was made does not reach the body."""
    data = bytearray(100_000)
    call = call_of(flow.helper, (memoryview(data),), {"more": [1]})
    data[0] = 1
    (args, kwargs) = values.loads(call.payload, call.buffers)
    assert args[0][0] == 0
    assert kwargs == {"more": [1]}


def test_classes_of_arguments_go_along(flow):
    """An instance of a class of the flow file is an argument like any other."""
    call = call_of(flow.helper, ([flow.Derived()],))
    made = Rebuilt(call.body.blob, {})
    (args, _) = values.loads(call.payload, call.buffers, resolve=made.resolve)
    assert args[0][0].name() == "derived Derived"
    assert type(args[0][0]) is not flow.Derived


def test_a_ready_body_can_be_called_again(flow):
    """A body made once serves many calls."""
    body = body_of(flow.area)
    assert call_of(body, (1,)).body is body


# --- what cannot travel --------------------------------------------------------------------------


def test_a_value_that_cannot_travel_is_named(flow):
    """A lock among the globals is named with its type, before anything is queued."""
    with pytest.raises(RequestError, match=r"locked uses the name 'LOCK'.*type lock"):
        body_of(flow.locked)


def test_an_argument_that_cannot_travel_is_named(flow):
    """Position or name of the argument and its type are said."""
    with pytest.raises(RequestError, match=r"argument number 2 of type lock"):
        call_of(flow.area, (1, threading.Lock()))
    with pytest.raises(RequestError, match=r"argument 'scale' of type lock"):
        call_of(flow.area, (1,), {"scale": threading.Lock()})
    with pytest.raises(RequestError, match=r"argument 'scale' of type lock"):
        call_of(body_of(flow.area), (1,), {"scale": threading.Lock()})


def test_a_function_without_text_travels_by_value_to_its_own_minor_only(monkeypatch):
    """What was defined at a prompt runs in a Python of the same minor; another one refuses it."""
    space = {"__name__": "__main__", "offset": 10}
    exec("def outer(k):\n def f(x, y=2): return x + y + k + offset\n return f", space)  # noqa: S102
    body = body_of(space["outer"](100))
    assert rebuilt(body)(1) == 113
    monkeypatch.setattr(importlib.util, "MAGIC_NUMBER", b"another")
    with pytest.raises(ImportError, match=r"prompt or by exec.*define it in a file"):
        rebuilt(body)


def test_a_helper_without_text_goes_along_by_value(flow):
    """A function from a file may use one that was redefined at a prompt."""
    exec("def helper(thing): return 'from the prompt'", vars(flow))  # noqa: S102 - that is the point
    assert rebuilt(body_of(flow.make))() == "derived from the prompt"


def test_a_file_that_changed_before_its_first_use_is_noticed(load, tmp_path):
    """A definition that is not where it was is not guessed."""
    module = load("def f():\n    return 1\n", "moved")
    (tmp_path / "moved.py").write_text("\n\n\n\nX = 1\n")
    with pytest.raises(RequestError, match="edited since"):
        body_of(module.f)


def test_a_thing_that_cannot_be_called_is_refused():
    """A body is something to call."""
    with pytest.raises(RequestError, match="cannot be called"):
        body_of(3)


def test_bodies_are_made_in_many_threads(flow):
    """Tasks submitted from many threads get the same body."""
    found, errors = set(), []

    def make():
        try:
            for _ in range(20):
                found.add(body_of(flow.make).digest)
                definition_of(flow.area)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 1


def test_needs_leave_the_function_as_it_is(flow):
    """A function marked with needs has the body it had without."""
    before = body_of(flow.area).digest
    assert body_of(needs(cores=2)(flow.area)).digest == before


def test_a_class_without_text_says_so():
    """A class made by `type` has no text."""
    made = type("Made", (), {"__module__": __name__})
    with pytest.raises(NoSourceError, match="no class of that name"):
        definition_of(made)


def test_what_goes_along_is_gathered_once(flow):
    """A helper that two functions use is one item."""
    collector = Collector(flow.make, {})
    collector.spec("make", flow.make)
    names = [item.qualname for item in collector.items]
    assert sorted(names) == ["Base", "Derived", "helper", "make"]
