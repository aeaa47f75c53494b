"""Definitions as text: parsed where they stood, so that tracebacks keep the user's file and lines.

Shared by both ends: the driver compiles a definition to learn which names it loads, the guest to
make the function.
"""

from __future__ import annotations
import __future__

import ast
from typing import Any, Iterable

OUTER = "_hpcburst_outer"
"""Name of the function that gives a definition its closure."""

BARE = ("lambda", "expression")
"""Kinds whose text is a part of a line."""

LAZY_ANNOTATIONS = __future__.annotations.compiler_flag
"""Annotations are never evaluated: they may name what the env does not have."""


def parse(kind: str, text: str, line: int, column: int) -> Any:
    """The node of one definition, at its own line and column.

    Args:
        kind: "function", "class", "lambda" or "expression".
        text: Full lines of a function or class; the bare text of the others.
        line: Line of its first character in its file, from 1.
        column: Column of it, from 0.

    Raises:
        SyntaxError: This Python does not know the syntax.
    """
    if kind in BARE:
        padded = "\n" * (line - 1) + "(" + " " * (column - 1) + text + "\n)"
        return ast.parse(padded, mode="eval").body
    if column:
        block: Any = ast.parse("\n" * (line - 2) + "if 1:\n" + text).body[0]
        return block.body[0]
    return ast.parse("\n" * (line - 1) + text).body[0]


def wrapped(node: Any, free: Iterable[str]) -> ast.Module:
    """A module that defines `OUTER`, a function of the free names that returns what `node` makes.

    Decorators and defaults are left out: what they made travels as values.
    """
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        node.decorator_list = []
        body: list[Any] = [node, ast.Return(ast.Name(node.name, ast.Load()))]
    else:
        body = [ast.Return(node)]
    if not isinstance(node, ast.ClassDef):
        _drop_defaults(getattr(node, "args", None))
    module = ast.parse("def {}({}): pass".format(OUTER, ", ".join(free)))
    outer: Any = module.body[0]
    outer.body = body
    for made in body:
        ast.copy_location(made, node)
    ast.copy_location(outer, node)
    return ast.fix_missing_locations(module)


def plain(node: ast.ClassDef) -> ast.Module:
    """A module that makes a class of the top level, without its decorators."""
    node.decorator_list = []
    module = ast.parse("")
    module.body = [node]
    return module


def _drop_defaults(arguments: Any) -> None:
    """Put None for each default; their values are set on the function that comes out."""
    if not isinstance(arguments, ast.arguments):
        return
    nothing = [ast.copy_location(ast.Constant(None), default) for default in arguments.defaults]
    arguments.defaults = list(nothing)
    arguments.kw_defaults = [
        default and ast.copy_location(ast.Constant(None), default)
        for default in arguments.kw_defaults
    ]
