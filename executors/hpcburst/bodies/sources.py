"""Where a function or class is defined: its exact text, and the names that text loads.

Text is remembered per file, because files are edited while a run goes on: the text that fits the
function's byte code counts, not the newest.
"""

from __future__ import annotations

import ast
import dis
import functools
import linecache
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from hpcburst.workers.guest import syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARSE_TRIES = 20
"""A clash of two parsers is rare; twenty in a row are something else."""

MAX_TEXTS = 4
"""Texts remembered of one file: each time it is edited and loaded again, there is one more."""

_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"})


class NoSourceError(Exception):
    """The text of a definition cannot be had; the message says why."""


class NoTextError(NoSourceError):
    """It was defined at a prompt or by exec: there never was a file."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The text of one definition.

    Attributes:
        kind: "function", "lambda", "class" or "expression", as `guest.syntax.parse` takes it.
        text: Full lines of a function or class without decorators; the bare text of the others.
        file: The file it is in.
        line: Line of its first character, from 1.
        column: Column of it, from 0.
        decorators: Text of its decorators, outermost first.
    """

    kind: str
    text: str
    file: str
    line: int
    column: int
    decorators: tuple[str, ...] = ()

    def names(self, free: tuple[str, ...]) -> tuple[str, ...]:
        """Global names it loads, nested functions included; `free` come from its closure."""
        return _names(self, free)

    def holds(self, code: CodeType) -> bool:
        """Whether code is of this text: classes get methods from elsewhere too."""
        last = self.line + self.text.count("\n")
        return _shown(code.co_filename) == self.file and self.line <= code.co_firstlineno <= last


@functools.lru_cache(4096)
def _names(definition: Definition, free: tuple[str, ...]) -> tuple[str, ...]:
    where = (definition.line, definition.column)
    node = _parsed(syntax.parse, definition.kind, definition.text, *where)
    if definition.kind == "class" and not free:
        tree = syntax.plain(node)
    else:
        tree = syntax.wrapped(node, free)
    code = compile(tree, definition.file, "exec", syntax.LAZY_ANNOTATIONS, dont_inherit=True)
    return tuple(sorted(names_in_code(code)))


def definition_of(thing: FunctionType | type) -> Definition:
    """The definition of a function, lambda or class, or the assignment that made a class.

    Raises:
        NoSourceError: It has no text, or the text is not where it was.
    """
    return _class_definition(thing) if isinstance(thing, type) else _function_definition(thing)


@functools.lru_cache(4096)
def names_in(expression: str) -> tuple[str, ...]:
    """Names that an expression loads, in the order it loads them."""
    code = _parsed(compile, f"({expression})", "<decorator>", "eval")
    return tuple(s.argval for s in dis.get_instructions(code) if s.opname in _LOADS)


def names_in_code(code: CodeType) -> set[str]:
    """Global names that byte code loads, nested functions included."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in _LOADS}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= names_in_code(constant)
    return names


def _parsed(parse: Callable[..., Any], *args: Any) -> Any:
    """What a parser makes of its arguments; again when another thread parses at the same time.

    CPython up to 3.11 counts the depth of all its parsers in one place, and a parser that finds the
    count of another raises SystemError (python/cpython#106905). Nothing is wrong with the text.
    """
    for _ in range(PARSE_TRIES):
        with suppress(SystemError):
            return parse(*args)
    return parse(*args)


# --- files ---------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Source:
    """One file as it was when it was read."""

    file: str
    lines: list[str]
    tree: ast.Module
    codes: set[tuple[Any, ...]] = field(default_factory=set)
    functions: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    classes: list[tuple[str, ast.AST]] = field(default_factory=list)
    definitions: dict[ast.AST, Definition] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.classes = list(_qualified(self.tree, ""))
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                key = (getattr(node, "name", "<lambda>"), _first_line(node))
                self.functions.setdefault(key, []).append(node)

    def fits(self, code: CodeType) -> bool:
        """Whether this text compiles to exactly that function."""
        if not self.codes:
            module = compile(self.tree, self.file, "exec", dont_inherit=True)
            self.codes = {_fingerprint(each) for each in _all_codes(module)}
        return _fingerprint(code) in self.codes

    def definition(self, node: Any, kind: str) -> Definition:
        """The definition at a node."""
        if node not in self.definitions:
            self.definitions[node] = self._definition(node, kind)
        return self.definitions[node]

    def _definition(self, node: Any, kind: str) -> Definition:
        decorators = tuple(self._segment(each) for each in getattr(node, "decorator_list", ()))
        if kind in syntax.BARE:
            text = self._segment(node)
        else:
            text = "".join(self.lines[node.lineno - 1 : node.end_lineno])
        return Definition(kind, text, self.file, node.lineno, node.col_offset, decorators)

    def _segment(self, node: Any) -> str:
        return ast.get_source_segment("".join(self.lines), node) or ast.unparse(node)


_known: dict[str, list[_Source]] = {}  # newest first
_reading = threading.Lock()


def _sources(file: str) -> Iterator[_Source]:
    """The texts of a file: those remembered, newest first; then as it is now, if it is another."""
    tried = list(_known.get(file, ()))
    yield from tried
    with _reading:
        _refresh(file, _known.setdefault(file, []))
    yield from [source for source in _known[file] if source not in tried]


def _refresh(file: str, remembered: list[_Source]) -> None:
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    if not lines and not remembered:
        raise NoTextError("it was defined at a prompt or by exec, so its text cannot be had")
    if lines and all(source.lines != lines for source in remembered):
        remembered.insert(0, _read(file, list(lines)))
        del remembered[MAX_TEXTS:]


def _read(file: str, lines: list[str]) -> _Source:
    try:
        return _Source(_shown(file), lines, _parsed(ast.parse, "".join(lines)))
    except SyntaxError as error:
        raise NoSourceError(f"{file} is not Python any more (line {error.lineno})") from error


@functools.cache
def _shown(file: str) -> str:
    return str(Path(file).absolute()) if Path(file).exists() else file


def _fingerprint(code: CodeType) -> tuple[Any, ...]:
    """What tells a function's code from that of another text, nested functions included."""
    constants = tuple(
        _fingerprint(constant) if isinstance(constant, CodeType) else (type(constant), constant)
        for constant in code.co_consts
    )
    return (code.co_name, code.co_firstlineno, code.co_code, code.co_names, constants)


def _all_codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_codes(constant)


# --- functions -----------------------------------------------------------------------------------


def _function_definition(function: FunctionType) -> Definition:
    code = function.__code__
    source = _best_source(code)
    nodes = _nodes(source, code)
    if len(nodes) > 1:
        nodes = _by_column(nodes, code)
    if len(nodes) != 1:
        where = f"{source.file}, line {code.co_firstlineno}"
        raise NoSourceError(f"its text is not at {where}; was the file edited since it was loaded?")
    kind = "lambda" if isinstance(nodes[0], ast.Lambda) else "function"
    return source.definition(nodes[0], kind)


def _best_source(code: CodeType) -> _Source:
    """The text that compiles to this code; else one that has such a function in that place.

    Tools that rewrite code when it is loaded (coverage, pytest) make the second one common.
    """
    tried = []
    for source in _sources(code.co_filename):
        if source.fits(code):
            return source
        tried.append(source)
    return next((source for source in tried if _nodes(source, code)), tried[-1])


def _nodes(source: _Source, code: CodeType) -> list[Any]:
    """Functions that begin at the code's line, with its name and arguments."""
    return [
        node
        for node in source.functions.get((code.co_name, code.co_firstlineno), ())
        if _argument_count(node) == code.co_argcount + code.co_kwonlyargcount
    ]


def _first_line(node: Any) -> int:
    decorators = getattr(node, "decorator_list", ())
    return min([int(node.lineno), *(int(each.lineno) for each in decorators)])


def _argument_count(node: Any) -> int:
    arguments = node.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)


def _by_column(nodes: list[Any], code: CodeType) -> list[Any]:
    """The narrowest node that holds all of the code's positions: lambdas may share a line."""
    places = [place for place in code.co_positions() if None not in place and place[2:] != (0, 0)]
    starts = min((line, column) for line, _, column, _ in places)
    ends = max((line, column) for _, line, _, column in places)
    holding = [
        node
        for node in nodes
        if (node.body.lineno, node.body.col_offset) <= starts
        and ends <= (node.body.end_lineno, node.body.end_col_offset)
    ]
    return sorted(holding, key=lambda node: (node.lineno, node.col_offset))[-1:]


# --- classes -------------------------------------------------------------------------------------


def _class_definition(kind: type) -> Definition:
    file = _class_file(kind)
    for source in _sources(file):
        nodes = _class_nodes(source, kind)
        if nodes:
            which = "class" if isinstance(nodes[-1], ast.ClassDef) else "expression"
            return source.definition(nodes[-1], which)
    raise NoSourceError(f"there is no class of that name in {file}")


def _class_file(kind: type) -> str:
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file:
        return str(file)
    for member in vars(kind).values():  # a notebook's cells are files of their own
        code = getattr(getattr(member, "__func__", member), "__code__", None)
        if code is not None and not code.co_filename.startswith("<string"):
            return str(code.co_filename)
    raise NoSourceError("it was defined at a prompt or by exec, so its text cannot be had")


def _class_nodes(source: _Source, kind: type) -> list[Any]:
    """Definitions under the class's qualified name, or what such a name was assigned."""
    lines = {code.co_firstlineno for code in _codes_of(kind, source.file)}
    nodes = [node for name, node in source.classes if name == kind.__qualname__]
    defined = [node for node in nodes if isinstance(node, ast.ClassDef)]
    holding = [n for n in defined if any(n.lineno <= i <= (n.end_lineno or 0) for i in lines)]
    return holding or defined or nodes


def _codes_of(kind: type, file: str) -> list[CodeType]:
    members = [getattr(member, "__func__", member) for member in vars(kind).values()]
    codes = [member.__code__ for member in members if isinstance(member, FunctionType)]
    return [code for code in codes if _shown(code.co_filename) == file]


def _qualified(parent: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """Classes and assigned values with their qualified names."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _qualified(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _qualified(node, f"{prefix}{node.name}.<locals>.")
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield prefix + node.targets[0].id, node.value
        elif isinstance(node, ast.stmt):
            yield from _qualified(node, prefix)
