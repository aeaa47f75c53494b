"""What goes along with a body: the definitions and values that its names stand for."""

from __future__ import annotations

import functools
import marshal
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CellType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from hpcburst.bodies.sources import (
    Definition,
    NoSourceError,
    NoTextError,
    definition_of,
    names_in,
    names_in_code,
)
from hpcburst.errors import RequestError
from hpcburst.workers.guest import values

if TYPE_CHECKING:
    from collections.abc import Mapping

Spec = tuple[Any, ...]
"""How the guest gets a value: ("item", n), ("pickled", bytes, words), ("module", name, stand-ins),
("stand-in", name), ("named", module, qualified name), ("inner", module, qualified name) for the
function inside an engine's task, or ("task", how that function is had, name)."""

_MADE_THERE = frozenset(
    {"__name__", "__file__", "__builtins__", "__spec__", "__loader__", "__package__", "__doc__"}
)
_OURS = "hpcburst"


@dataclass(slots=True)
class Item:
    """One definition on its way, in the words of the guest's `rebuild`."""

    kind: str
    text: str
    qualname: str
    module: int
    place: tuple[str, int, int]
    uses: dict[str, Spec] = field(default_factory=dict)
    free: dict[str, Spec] = field(default_factory=dict)
    defaults: Spec = ("tuple", ())
    kwdefaults: Spec = ("dict", {})
    decorators: tuple[str, ...] = ()
    inner: Spec = ()
    code: bytes = b""
    magic: bytes = b""

    def told(self) -> dict[str, Any]:
        """All but the place."""
        names = [name for name in Item.__slots__ if name != "place"]
        return {name: getattr(self, name) for name in names}


class Collector:
    """Gathers a body and what it needs.

    Args:
        root: The function the body is.
        stand_ins: Objects of the driver, and the name of what the guest puts for them.

    Attributes:
        name: The body's qualified name.
        items: What was gathered.
        modules: Names of the modules the items come from.
    """

    def __init__(self, root: Any, stand_ins: Mapping[Any, str]) -> None:
        self.name = str(getattr(root, "__qualname__", type(root).__qualname__))
        self.items: list[Item] = []
        self.modules: list[str] = []
        self._homes = {"__main__", *_home(root)}
        self._stand_ins = {id(thing): (thing, name) for thing, name in stand_ins.items()}
        self._engines = {_OURS, *(_package(thing) for thing in stand_ins)}
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is given twice

    def key_of(self, thing: Any) -> tuple[int] | None:
        """Number of the item that a function or class of the user's is, for `values.dumps`."""
        if isinstance(thing, (FunctionType, type)) and self._at_home(thing):
            return (self._number(thing),)
        return None

    def spec(self, name: str, value: Any) -> Spec:
        """How the guest gets a value that the body knows by a name.

        Raises:
            RequestError: It cannot travel.
        """
        if id(value) in self._stand_ins:
            return ("stand-in", self._stand_ins[id(value)][1])
        if isinstance(value, ModuleType):
            return ("module", value.__name__, self._stand_ins_in(value))
        function = _inner_function(value)
        if function is not None:  # a task of an engine: inside a body it is its function
            self._engines.add(_package(type(value)))
            return ("task", self._task_function(name, function), name)
        if self._at_home(value) or self._is_wrapped(value):
            return ("item", self._number(value))
        return ("pickled", self._pickled(name, value), _words(name, value))

    def _task_function(self, name: str, function: FunctionType) -> Spec:
        if is_installed(function):
            return ("inner", function.__module__, function.__qualname__)
        # Its module imports the engine, which the env need not have: its definitions go as text.
        self._homes.add(function.__module__)
        return self.spec(name, function)

    def _pickled(self, name: str, value: Any) -> bytes:
        try:
            return values.dumps(value, key_of=self.key_of, in_band=True)[0]
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(
                f"The body {self.name} uses the name {name!r}",
                f"its value of type {type(value).__qualname__} cannot be pickled ({error})",
                "make it inside the function, or pass what it is made from as an argument",
            ) from error

    def _at_home(self, thing: Any) -> bool:
        return (
            isinstance(thing, (FunctionType, type))
            and thing.__module__ in self._homes
            and not _is_installed(getattr(getattr(thing, "__code__", None), "co_filename", ""))
        )

    def _is_wrapped(self, thing: Any) -> bool:
        """Whether a library's decorator (`lru_cache`) made it from a function of the user's."""
        inner = getattr(thing, "__wrapped__", None)
        return isinstance(inner, FunctionType) and self._at_home(inner)

    def _stand_ins_in(self, module: ModuleType) -> dict[str, str]:
        if not self._stand_ins or _package(module) not in self._engines:
            return {}
        named = {getattr(row[0], "__name__", ""): row for row in self._stand_ins.values()}
        return {
            name: stand_in
            for name, (thing, stand_in) in sorted(named.items())
            if name and getattr(module, name, None) is thing
        }

    # --- items -----------------------------------------------------------------------------------

    def _number(self, thing: Any) -> int:
        number = self._numbers.get(id(thing))
        if number is None:
            number = self._numbers[id(thing)] = len(self.items)
            self._kept.append(thing)
            if isinstance(thing, (FunctionType, type)) and self._at_home(thing):
                self._add(thing)
            else:
                self._add_wrapped(thing)
        return number

    def _add(self, thing: FunctionType | type) -> None:
        """A definition: first its place in the list, then what it uses, which may use it."""
        found = self._definition(thing)
        item = self._new_item(thing, found, found.kind)
        free = _closure(thing, found)
        space = _globals(thing)
        if found.kind == "code" and isinstance(thing, FunctionType):
            item.code, item.magic = marshal.dumps(thing.__code__, 2), MAGIC_NUMBER
            uses = names_in_code(thing.__code__)
        else:
            uses = set(found.names(tuple(free)))
        if isinstance(thing, FunctionType):
            item.defaults, item.kwdefaults = self._defaults(thing)
        else:
            item.decorators = self._decorators(found, space)
            uses |= {name for text in item.decorators for name in names_in(text)}
        item.free = {name: self.spec(name, value) for name, value in free.items()}
        self._use(item, uses, space)

    def _add_wrapped(self, thing: Any) -> None:
        """What a library's decorator made: the function, and its decorators to apply again."""
        inner: FunctionType = thing.__wrapped__
        found = self._definition(inner)
        item = self._new_item(inner, found, "decorated")
        item.text = ""
        item.decorators = self._decorators(found, inner.__globals__)
        if not item.decorators:
            raise RequestError(
                f"The body {self.name} uses {inner.__qualname__}",
                f"it was wrapped into a {type(thing).__qualname__}, but not by a decorator",
                "write the wrapper as a decorator above the function",
            )
        item.inner = ("item", self._number(inner))
        uses = {name for text in item.decorators for name in names_in(text)}
        self._use(item, uses, inner.__globals__)

    def _definition(self, thing: FunctionType | type) -> Definition:
        try:
            return definition_of(thing)
        except NoSourceError as error:
            if isinstance(error, NoTextError) and isinstance(thing, FunctionType):
                code = thing.__code__  # travels by value: the env's Python must be of this minor
                return Definition("code", "", code.co_filename, code.co_firstlineno, 0)
            name = thing.__qualname__
            asked = f"The body {self.name} is to run in another Python"
            if name != self.name:
                asked = f"The body {self.name} uses {name}, which is to go along to another Python"
            todo = "define it in a file that stays as it is during the run"
            raise RequestError(asked, str(error), todo) from error

    def _new_item(self, thing: FunctionType | type, found: Definition, kind: str) -> Item:
        if thing.__module__ not in self.modules:
            self.modules.append(thing.__module__)
        module = self.modules.index(thing.__module__)
        place = (found.file, found.line, found.column)
        item = Item(kind, found.text, thing.__qualname__, module, place)
        self.items.append(item)
        return item

    def _defaults(self, function: FunctionType) -> tuple[Spec, Spec]:
        positional = function.__defaults__ or ()
        names = function.__code__.co_varnames[: function.__code__.co_argcount][-len(positional) :]
        by_name = (function.__kwdefaults__ or {}).items()
        return (
            ("tuple", tuple(map(self.spec, names, positional))),
            ("dict", {name: self.spec(name, value) for name, value in by_name}),
        )

    def _decorators(self, found: Definition, space: Mapping[str, Any]) -> tuple[str, ...]:
        """Decorators to apply in the env: all but ours and the engine's."""
        return tuple(
            text
            for text in found.decorators
            if not any(_package(space.get(name)) in self._engines for name in names_in(text)[:1])
        )

    def _use(self, item: Item, names: set[str], space: Mapping[str, Any]) -> None:
        for name in sorted(names - _MADE_THERE):
            if name in space:
                item.uses[name] = self.spec(name, space[name])


def is_installed(function: Any) -> bool:
    """Whether a callable belongs to a library, so that an env imports it by name."""
    name = getattr(function, "__module__", None) or ""
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return _is_installed(file) or name.partition(".")[0] in sys.stdlib_module_names


@functools.cache
def _is_installed(file: str) -> bool:
    if not file or file.startswith("<"):
        return False
    path = Path(file).absolute()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    library = sysconfig.get_paths()
    return any(path.is_relative_to(library[name]) for name in ("stdlib", "platstdlib"))


def _home(root: Any) -> list[str]:
    """The module whose definitions go along: the one the user wrote the body in."""
    while isinstance(root, functools.partial):
        root = root.func
    module = getattr(root, "__module__", None)
    return [] if module is None or is_installed(root) else [module]


def _inner_function(value: Any) -> FunctionType | None:
    if isinstance(value, (type, FunctionType)):
        return None
    try:
        inner = getattr(value, "fn", None)
    except Exception:  # noqa: BLE001 - any object of the user's is asked, and may raise anything
        return None
    return inner if isinstance(inner, FunctionType) else None


def _package(thing: Any) -> str:
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    return str(name or "").partition(".")[0]


def _words(name: str, value: Any) -> str:
    module = getattr(value, "__module__", None) or type(value).__module__
    return f"{name!r} from the module {module!r}"


def _globals(thing: FunctionType | type) -> Mapping[str, Any]:
    if isinstance(thing, FunctionType):
        return thing.__globals__
    module = sys.modules.get(thing.__module__)
    return {} if module is None else vars(module)


def _closure(thing: FunctionType | type, found: Definition) -> dict[str, Any]:
    """Free names and their values; those not yet set are left out."""
    functions = [thing] if isinstance(thing, FunctionType) else _methods(thing, found)
    return {
        name: value
        for function in functions
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        )
        for value in _content(cell)
        if name != "__class__" or isinstance(thing, FunctionType)
    }


def _methods(kind: type, found: Definition) -> list[FunctionType]:
    """What the class's own text defines; `dataclass` and its like add theirs again in the env."""
    members = [getattr(member, "__func__", member) for member in vars(kind).values()]
    members = [getattr(member, "fget", member) for member in members]
    own = [member for member in members if isinstance(member, FunctionType)]
    return [method for method in own if found.holds(method.__code__)]


def _content(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # empty
        return []
