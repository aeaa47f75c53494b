"""From a body's blob back to the function, in this Python.

The blob (made by `hpcburst.bodies`) is plain data: definitions as text, the names they load, and
how each name's value is had. One namespace stands for each module the definitions came from, so
that they share globals as they did at home.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import linecache
import marshal
import pickle
import sys
import types
from typing import Any, Callable, Mapping

from . import syntax, values

Spec = Any  # a tuple: how a value is had, see `Rebuilt._value`
Put = Callable[[Any], None]


QUEUEING = ("submit", "map", "delay", "apply_async", "serve", "with_options", "with_needs")
"""What an engine's task can do beside being called, and its function in a body cannot."""


class UnknownError(Exception):
    """A value needs a definition that is still being made; it is set when that is done."""


class Rebuilt:
    """A body in this interpreter.

    Args:
        blob: What the driver wrote.
        stand_ins: What is put, by name, for objects that exist at the driver alone.

    Attributes:
        function: The body.
    """

    def __init__(self, blob: bytes, stand_ins: Mapping[str, Any]) -> None:
        told = pickle.loads(blob)
        self._items: list[dict[str, Any]] = told["items"]
        self._places: list[tuple[str, int, int]] = told["places"]
        self._stand_ins = stand_ins
        self._made: dict[int, Any] = {}
        self._making: set[int] = set()
        self._later: list[tuple[Put, Spec]] = []
        self._keys: dict[Any, tuple[str, str]] = {}
        self._named: dict[tuple[str, str], int] = {}
        self._spaces = [_module(name) for name in told["modules"]]
        for number, item in enumerate(self._items):
            self._named[(self._spaces[item["module"]].__name__, item["qualname"])] = number
        self.function = self._value(told["root"])
        self._settle()

    def key_of(self, thing: Any) -> tuple[str, str] | None:
        """Module and qualified name of a function or class made here, for `values.dumps`."""
        if isinstance(thing, (type, types.FunctionType)):
            return self._keys.get(thing)
        return None

    def resolve(self, *key: Any) -> Any:
        """What was made here, by item number or by module and qualified name.

        Raises:
            KeyError: Nothing was made here under that name.
        """
        thing = self._item(key[0] if len(key) == 1 else self._named[key])
        self._settle()
        return thing

    def _settle(self) -> None:
        while self._later and not self._making:
            put, spec = self._later.pop()
            put(self._value(spec))

    def _put(self, put: Put, spec: Spec) -> None:
        try:
            put(self._value(spec))
        except UnknownError:
            self._later.append((put, spec))

    def _value(self, spec: Spec) -> Any:
        """A value from how it is had; the kinds are those of `bodies.collect`."""
        kind, rest = spec[0], spec[1:]
        makers: dict[str, Callable[..., Any]] = {
            "item": self._item,
            "pickled": self._unpickled,
            "module": self._import,
            "stand-in": self._stand_ins.__getitem__,
            "named": values.find,
            "inner": _inside,
            "task": self._task,
            "tuple": self._tuple,
            "dict": self._dict,
        }
        return makers[kind](*rest)

    def _tuple(self, specs: Any) -> Any:
        return tuple(self._value(spec) for spec in specs) or None

    def _dict(self, specs: Any) -> Any:
        return {name: self._value(spec) for name, spec in specs.items()} or None

    def _task(self, spec: Spec, name: str) -> Any:
        """The function of an engine's task, which says why it cannot be queued from here."""
        function = self._value(spec)
        for verb in QUEUEING:
            setattr(function, verb, _Refusal(name, verb))
        function.fn = function
        return function

    def _unpickled(self, payload: bytes, what: str) -> Any:
        try:
            return values.loads(payload, resolve=self._resolve_inside)
        except (ImportError, AttributeError) as error:
            return _Absent(what, error)

    def _resolve_inside(self, *key: Any) -> Any:
        return self._item(key[0] if len(key) == 1 else self._named[key])

    def _import(self, name: str, stand_ins: Mapping[str, str]) -> Any:
        try:
            module: Any = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a module may fail in any way when imported
            module = _Absent("the module {!r}".format(name), error)
        if stand_ins:
            made = {attr: self._stand_ins[stand_in] for attr, stand_in in stand_ins.items()}
            return _Overlaid(name, module, made)
        return module

    # --- definitions -----------------------------------------------------------------------------

    def _item(self, number: int) -> Any:
        if number in self._made:
            return self._made[number]
        if number in self._making:
            raise UnknownError
        item = self._items[number]
        is_function = item["kind"] in ("function", "lambda", "code")
        make = self._function if is_function else self._definition
        self._making.add(number)
        try:
            return make(number, item)
        finally:
            self._making.discard(number)

    def _function(self, number: int, item: dict[str, Any]) -> Any:
        """A function first, then what it uses: it may use itself."""
        if item["kind"] == "code":
            made = self._from_code(item)
        else:
            made = self._executed(number, item, [None] * len(item["free"]))
        self._keep(number, item, made)
        self._fill(item)
        cells = dict(zip(made.__code__.co_freevars, made.__closure__ or ()))  # noqa: B905 - 3.8
        for name, spec in item["free"].items():
            if name in cells:
                self._put(_cell_setter(cells[name]), spec)
        self._put(_attribute_setter(made, "__defaults__"), item["defaults"])
        self._put(_attribute_setter(made, "__kwdefaults__"), item["kwdefaults"])
        return made

    def _definition(self, number: int, item: dict[str, Any]) -> Any:
        """A class or an assigned value: what it uses must be there before it is made."""
        self._fill(item)
        if item["kind"] == "decorated":
            made = self._value(item["inner"])
        else:
            made = self._executed(number, item, [self._value(s) for s in item["free"].values()])
        space = vars(self._spaces[item["module"]])
        for text in reversed(item["decorators"]):
            made = eval(text, space)(made)  # noqa: S307
        self._keep(number, item, made)
        return made

    def _from_code(self, item: dict[str, Any]) -> Any:
        """A function that came by value."""
        if item["magic"] != importlib.util.MAGIC_NUMBER:
            raise ImportError(
                "{} was defined at a prompt or by exec and travels as byte code, which only the "
                "Python that made it can run; define it in a file".format(item["qualname"])
            )
        code = marshal.loads(item["code"])  # noqa: S302 - the driver's own
        cells = tuple(types.CellType() for _ in code.co_freevars)
        space = vars(self._spaces[item["module"]])
        return types.FunctionType(code, space, code.co_name, None, cells)

    def _executed(self, number: int, item: dict[str, Any], free: list[Any]) -> Any:
        file, line, column = self._places[number]
        _remember_source(file, line, item["text"])
        node = syntax.parse(item["kind"], item["text"], line, column)
        space = vars(self._spaces[item["module"]])
        space["__file__"] = file
        made: dict[str, Any] = {}
        if item["kind"] == "class" and not item["free"]:
            exec(_compiled(syntax.plain(node), file), space, made)
            return made[node.name]
        exec(_compiled(syntax.wrapped(node, item["free"]), file), space, made)
        return made[syntax.OUTER](*free)

    def _fill(self, item: dict[str, Any]) -> None:
        space = vars(self._spaces[item["module"]])
        for name, spec in item["uses"].items():
            self._put(_setter(space, name), spec)

    def _keep(self, number: int, item: dict[str, Any], made: Any) -> None:
        self._made[number] = made
        home = self._spaces[item["module"]].__name__
        if not isinstance(made, (type, types.FunctionType)):
            return
        made.__module__, made.__qualname__ = home, item["qualname"]
        if "<" in item["qualname"]:
            return
        self._keys[made] = (home, item["qualname"])
        if "." not in item["qualname"] and _is_ours(home):
            setattr(sys.modules[home], item["qualname"], made)  # a body's child processes look here


class _Absent:
    """Stands for what the env lacks; says so when the body first touches it."""

    def __init__(self, what: str, error: BaseException) -> None:
        self.__dict__["_told"] = (what, error)

    def _complain(self, *_: Any, **__: Any) -> Any:
        what, error = self.__dict__["_told"]
        raise ModuleNotFoundError(
            "the body uses {}, and its env {} cannot load it: {}".format(what, sys.prefix, error),
            name=getattr(error, "name", None),
        ) from None

    __getattr__ = __call__ = __iter__ = __getitem__ = __len__ = __enter__ = _complain
    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __mro_entries__ = _complain


class _Refusal:
    """Stands for what only the engine can do."""

    def __init__(self, name: str, verb: str) -> None:
        self._name, self._verb = name, verb

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(
            "{0}.{1}(...) was called inside the body of a task. A body runs on a node, without the "
            "engine, and cannot queue tasks: call {0}(...) to run it right here, or submit it from "
            "the flow".format(self._name, self._verb)
        )


class _Space(types.ModuleType):
    """A namespace for definitions that came from a module of this name."""


class _Overlaid(types.ModuleType):
    """A module with some of its names replaced by stand-ins."""

    def __init__(self, name: str, module: Any, stand_ins: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(stand_ins)
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def _inside(module: str, qualname: str) -> Any:
    """The function inside a task that a library of the env defines."""
    return values.find(module, qualname).fn


def _module(name: str) -> types.ModuleType:
    """A fresh namespace under a module's name; importable too if no real module is in the way."""
    module = _Space(name)
    module.__dict__["__builtins__"] = builtins
    if name not in sys.modules and not _importable(name):
        sys.modules[name] = module
        while "." in name:  # importing a.b asks for a first
            name = name.rpartition(".")[0]
            sys.modules.setdefault(name, _Space(name))
    return module


def _is_ours(name: str) -> bool:
    """Whether nobody's real module is changed by putting names there."""
    return name == "__main__" or isinstance(sys.modules.get(name), _Space)


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.split(".", 1)[0]) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _compiled(tree: Any, file: str) -> Any:
    return compile(tree, file, "exec", syntax.LAZY_ANNOTATIONS, True)


def _setter(space: dict[str, Any], name: str) -> Put:
    def put(value: Any) -> None:
        space[name] = value

    return put


def _attribute_setter(thing: Any, name: str) -> Put:
    def put(value: Any) -> None:
        setattr(thing, name, value)

    return put


def _cell_setter(cell: Any) -> Put:
    def put(value: Any) -> None:
        cell.cell_contents = value

    return put


def _remember_source(file: str, line: int, text: str) -> None:
    """Tracebacks show this text, though the node may not see the file, or an edited one."""
    known = linecache.cache.get(file, (0, None, [], file))
    old: list[str] = known[2] if len(known) == 4 else []
    fresh = [row + "\n" for row in text.splitlines()]
    lines = list(old) + ["\n"] * (line - 1 + len(fresh) - len(old))
    lines[line - 1 : line - 1 + len(fresh)] = fresh
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
