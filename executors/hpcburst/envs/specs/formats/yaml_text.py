"""YAML from strangers: read as plain lists, names and texts, within bounds.

PyYAML's own loaders are not asked. The fast one takes the process down when lists are nested ten
thousand deep, and both follow aliases that make gigabytes of a hundred bytes. Its stream of events
has neither trouble, so the document is put together from those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 40
"""Levels of lists in lists; real files have six."""

MAX_NODES = 3_000_000
"""Values in one file, those that aliases repeat counted each time: some 100,000 packages."""

_TAG = "tag:yaml.org,2002:"


class BadYamlError(ValueError):
    """The text cannot be taken; the message says why, and where."""


@dataclass(frozen=True, slots=True)
class Unquoted:
    """A value without quotes that YAML does not take for text, such as `3.10` or `on`.

    Attributes:
        text: As it is written.
        kind: What YAML takes it for, such as "float", "bool" or "timestamp".
    """

    text: str
    kind: str

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Any:
    """The one document in a text: dicts, lists, `str`, `Unquoted` and None.

    Raises:
        BadYamlError: It is no YAML, or has what these files do not need: tags, a name twice,
            several documents, more than `MAX_DEPTH` levels or `MAX_NODES` values.
    """
    import yaml

    # `CParser` is not there when PyYAML was built without libyaml.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Document(yaml.parse(text, Loader=loader)).read()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        problem = getattr(error, "problem", None) or "it holds characters that YAML forbids"
        raise BadYamlError(f"it is not YAML{where}: {problem}") from error


@dataclass(slots=True)
class _Document:
    """Puts values together from events; `_nodes` is how many there are by now."""

    _events: Iterator[Any]
    _nodes: int = 0
    _anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)

    def read(self) -> Any:
        value: Any = None
        documents = 0
        for event in self._events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    raise _bad(event, "a second document begins here; give one a file")
                value = self._value(next(self._events), MAX_DEPTH)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        if depth == 0:
            raise _bad(event, f"it is nested deeper than {MAX_DEPTH} levels")
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._repeated(event)
        before = self._nodes
        self._count(event, 1)
        readers = {
            "SequenceStartEvent": self._list,
            "MappingStartEvent": self._mapping,
        }
        value = readers[kind](event, depth) if kind in readers else _scalar(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _repeated(self, event: Any) -> Any:
        # An anchor is known when its value is complete: nothing can hold itself.
        if event.anchor not in self._anchors:
            raise _bad(event, f"nothing is named &{event.anchor} before it")
        value, nodes = self._anchors[event.anchor]
        self._count(event, nodes)
        return value

    def _list(self, event: Any, depth: int) -> list[Any]:
        _check_tag(event)
        found = []
        while type(item := next(self._events)).__name__ != "SequenceEndEvent":
            found.append(self._value(item, depth - 1))
        return found

    def _mapping(self, event: Any, depth: int) -> dict[str, Any]:
        _check_tag(event)
        found: dict[str, Any] = {}
        while type(item := next(self._events)).__name__ != "MappingEndEvent":
            if type(item).__name__ != "ScalarEvent":
                raise _bad(item, "a name is not a plain text")
            self._count(item, 1)
            if item.value in found:
                raise _bad(item, f"the name {item.value[:60]!r} is there twice")
            found[item.value] = self._value(next(self._events), depth - 1)
        return found

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _bad(event, f"it holds more than {MAX_NODES} values")


def _scalar(event: Any) -> str | Unquoted | None:
    text = str(event.value)
    tag = event.tag if event.tag != "!" else f"{_TAG}str"
    if tag is None:
        tag = _resolved(text) if event.implicit[0] else f"{_TAG}str"
    kind = tag.removeprefix(_TAG)
    if kind == "null":
        return None
    if kind == "str":
        return text
    _check_tag(event)
    return Unquoted(text, kind)


def _resolved(text: str) -> str:
    """The tag that YAML gives a text without quotes."""
    import yaml

    rows = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], [])
    return next((str(tag) for tag, pattern in rows if pattern.match(text)), f"{_TAG}str")


def _check_tag(event: Any) -> None:
    if event.tag and event.tag != "!":
        raise _bad(event, f"the tag {event.tag[:60]!r} means nothing here")


def _bad(event: Any, reason: str) -> BadYamlError:
    return BadYamlError(f"it cannot be taken (line {event.start_mark.line + 1}): {reason}")
