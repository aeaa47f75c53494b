"""Templates of commands: words with `{name}` in them, filled from a call's arguments. Pure.

A template is split into words once, as a shell would split it. Whatever an argument holds, it stays
within its word: no shell reads it, and nothing in it is expanded.
"""

from __future__ import annotations

import keyword
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from numbers import Number
from string import Formatter
from typing import Any

from hpcburst.errors import RequestError

_SPEC = re.compile(r"(?:0?\d{1,2})?(?:\.\d{1,2})?[dfgeE]?")
"""How a number may be written, as in `{block:03d}`: digits, never code or another field."""

MAX_STATUS = 255


def read_words(value: str | Sequence[str]) -> tuple[str, ...]:
    """The words of a template.

    Args:
        value: One text, split into words as a POSIX shell does, or a list of words.

    Raises:
        RequestError: It is empty or badly quoted, or a field in it is not plain.

    >>> read_words("Rscript 'my fit.R' --block {block}")
    ('Rscript', 'my fit.R', '--block', '{block}')
    """
    try:
        words = tuple(shlex.split(value) if isinstance(value, str) else value)
    except (ValueError, TypeError) as error:
        raise _refusal(value, f"it is not a list of words ({error})") from error
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise _refusal(value, "it is not a list of words")
    if not words[0]:
        raise _refusal(value, "it names no program")
    fields_of(words)
    return words


def read_statuses(value: int | Iterable[int]) -> tuple[int, ...]:
    """Exit statuses that mean success, from one or a list of them.

    >>> read_statuses(0), read_statuses([0, 1])
    ((0,), (0, 1))

    Raises:
        RequestError: One is no exit status.
    """
    statuses = tuple(value) if isinstance(value, (list, tuple, set, range)) else (value,)
    if statuses and all(type(each) is int and 0 <= each <= MAX_STATUS for each in statuses):
        return tuple(dict.fromkeys(statuses))
    raise RequestError(
        f"ok={value!r} was given",
        f"exit statuses are whole numbers from 0 to {MAX_STATUS}",
        "write for instance ok=(0, 1)",
    )


def fields_of(words: Iterable[str]) -> tuple[str, ...]:
    """Names of the fields, in the order they come.

    >>> fields_of(("sh", "-c", "echo {{}} {b}{a} {b}"))
    ('b', 'a')

    Raises:
        RequestError: A field is not a plain name.
    """
    found = (name for word in words for _, name, _ in _parts(word) if name)
    return tuple(dict.fromkeys(found))


def check_fields(words: Iterable[str], function: Callable[..., Any]) -> None:
    """Check that every field is a parameter of the function.

    Raises:
        RequestError: One is not.
    """
    parameters = signature(function).parameters
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    unknown = [f"{{{name}}}" for name in fields_of(words) if name not in parameters]
    if unknown:
        called = getattr(function, "__name__", repr(function))
        raise RequestError(
            f"The command of {called} has {', '.join(unknown)}",
            f"{called} has no such parameter",
            f"its parameters are {', '.join(parameters) or 'none'}; write {{{{ for a brace itself",
        )


def arguments_of(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What a call gives to each parameter, with defaults.

    Raises:
        TypeError: The function cannot be called so.
    """
    expected = signature(function)
    bound = expected.bind(*args, **kwargs)
    bound.apply_defaults()
    values = dict(bound.arguments)
    for name, parameter in expected.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            values.update(values.pop(name))
    return values


def filled(words: Iterable[str], values: Mapping[str, Any]) -> tuple[str, ...]:
    """The words with values in the places of their fields.

    Args:
        words: A template.
        values: Text, numbers and paths; a list of them where a field is a word of its own, which
            becomes as many words.

    Raises:
        RequestError: A value is missing, or is nothing that a command line can say.
    """
    made = tuple(text for word in words for text in _filled(word, values))
    if not made or not made[0]:
        raise RequestError("A command was to be run", "its arguments leave no program to run")
    return made


def _filled(word: str, values: Mapping[str, Any]) -> list[str]:
    """The words that one word becomes: one, unless it is a field alone with a list for it."""
    parts = _parts(word)
    if [(literal, bool(name)) for literal, name, _ in parts] == [("", True)]:
        _, name, spec = parts[0]
        value = _value(name, values)
        if isinstance(value, (list, tuple)):
            return [_text(name, each, spec) for each in value]
    texts = (
        literal + (_text(name, _value(name, values), spec) if name else "")
        for literal, name, spec in parts
    )
    return ["".join(texts)]


def _parts(word: str) -> list[tuple[str, str, str]]:
    """Literal text, the name of the field that follows it ("" at the end), and its format."""
    try:
        parts = list(Formatter().parse(word))
    except ValueError as error:
        raise _refusal(word, f"a brace stands alone ({error})") from error
    for _, name, spec, conversion in parts:
        if name is not None and (conversion or not _is_plain(name, spec or "")):
            raise _refusal(word, "a field is the name of a parameter, and no more than that")
    return [(literal, name or "", spec or "") for literal, name, spec, _ in parts]


def _is_plain(name: str, spec: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and _SPEC.fullmatch(spec) is not None


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name in values:
        return values[name]
    raise RequestError(f"A command has {{{name}}}", "the call gives no such argument")


def _text(name: str, value: Any, spec: str) -> str:
    """One value as text. Numbers alone have a format; None has no text that all programs know."""
    text: str | None = None
    if isinstance(value, Number) and not isinstance(value, complex):
        try:
            text = format(value, spec) if spec else str(value)
        except (ValueError, TypeError) as error:
            raise _no_text(name, value, f"cannot be written so ({error})") from error
    elif not spec and isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
    if not isinstance(text, str):
        raise _no_text(name, value, "is not a number" if spec else "has no plain text")
    if "\0" in text:
        raise _no_text(name, value, "holds a NUL character, which ends a word")
    return text


def _no_text(name: str, value: Any, why: str) -> RequestError:
    return RequestError(
        f"A command has {{{name}}}, and the call gives {name}={str(value)[:80]!r}",
        f"a value of type {type(value).__name__} that {why}",
        f"pass text, a number or a path; or a list of them where {{{name}}} is a word of its own",
    )


def _refusal(template: object, found: str) -> RequestError:
    return RequestError(
        f"The command {str(template)[:120]!r} was given",
        found,
        'write for instance command="Rscript fit.R --block {block}"; {{ and }} are the braces'
        " themselves",
    )
