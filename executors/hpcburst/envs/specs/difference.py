"""Why two specs do not share an env, in words: what differs of all that goes into the key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcburst.envs.specs.entries import name_of, parts_of_archive, redact, same_name
from hpcburst.envs.specs.spec import Archive, EnvSpec, counts_in_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_NAMED = 6
"""Packages that one sentence names; a person reads no more of them."""

_SECRET = re.compile(r"(?i)token|secret|passw|key|credential")


@dataclass(frozen=True, slots=True)
class Side:
    """One of two specs, and what it is called.

    Attributes:
        spec: The spec.
        name: What sentences call it, such as the path of its file.
        platform: The conda platform it is for; "" if that is not compared.
        virtual_packages: What its machine offers, such as "__glibc=2.36=0".
    """

    spec: EnvSpec
    name: str
    platform: str = ""
    virtual_packages: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of its env."""
        return self.spec.key(self.platform, self.virtual_packages)


def explain(
    one: EnvSpec,
    other: EnvSpec,
    names: tuple[str, str] = ("the first", "the second"),
    machines: Sequence[tuple[str, Iterable[str]]] = (("", ()), ("", ())),
) -> tuple[str, ...]:
    """Why two specs differ in key, a sentence for each cause.

    Args:
        one: A spec.
        other: The spec to compare it with.
        names: What the two are called.
        machines: Platform and virtual packages of each, when the two are for different machines.

    Returns:
        Sentences without a full stop. When the keys are equal, they say so, and what plays no role.
    """
    (platform, virtual), (platform_2, virtual_2) = machines
    left = Side(one, names[0], platform, tuple(virtual))
    right = Side(other, names[1], platform_2, tuple(virtual_2))
    if left.key == right.key:
        return _the_same(left)
    alike = bool(one.explicit) == bool(other.explicit)
    comparisons = (*(_OF_PACKAGES if alike else (_kinds,)), *_OF_THE_REST)
    found = [sentence for compare in comparisons for sentence in compare(left, right)]
    # The key sees more than sets do: a channel or module that is listed twice.
    found = found or ["entries come in another order, or one of them twice"]
    return tuple(redact(sentence) for sentence in found)


def _the_same(side: Side) -> tuple[str, ...]:
    return (
        "both share one env" + (f", with the key {side.key}" if side.platform else ""),
        "names, prefixes and the order of dependencies play no role, nor do kernel and CPU model",
    )


def _kinds(left: Side, right: Side) -> list[str]:
    locked, solved = (left, right) if left.spec.explicit else (right, left)
    count = len(locked.spec.explicit)
    sentence = f"{locked.name} is a lock of {count} archives, and {solved.name} is solved anew"
    return [f"{sentence}: even the same packages make two envs"]


def _channels(left: Side, right: Side) -> list[str]:
    one, other = left.spec.channels, right.spec.channels
    if one == other:
        return []
    if sorted(one) == sorted(other):
        first = next((a, b) for a, b in zip(one, other, strict=True) if a != b)
        return [f"the channels come in another order: {_then(left, first[0], right, first[1])}"]
    if [redact(name) for name in one] == [redact(name) for name in other]:
        return ["the channels differ in a password or token only"]
    return _only("the channel", left, one, right, other)


def _conda(left: Side, right: Side) -> list[str]:
    return _entries("conda", left, left.spec.conda, right, right.spec.conda)


def _pip(left: Side, right: Side) -> list[str]:
    one, other = left.spec.pip, right.spec.pip
    sentences = _entries("pip", left, _lines(one), right, _lines(other))
    options = [list(dict.fromkeys(line for line in p if line[:1] == "-")) for p in (one, other)]
    if sorted(options[0]) == sorted(options[1]) and options[0] != options[1]:
        return [*sentences, "the options of the pip section come in another order"]
    return sentences + _only("the pip option", left, options[0], right, options[1])


def _lines(pip: Iterable[str]) -> list[str]:
    return [line for line in pip if not line.startswith("-")]


def _entries(
    kind: str, left: Side, one: Iterable[str], right: Side, other: Iterable[str]
) -> list[str]:
    """What differs in two lists of dependencies: entries of one package, and packages."""
    rows, rows_2 = _by_name(one, name_of), _by_name(other, name_of)
    changed = [
        f"{kind} asks for {name} differently: "
        f"{_then(left, ', '.join(sorted(rows[name])), right, ', '.join(sorted(rows_2[name])))}"
        for name in rows
        if name in rows_2 and rows[name] != rows_2[name]
    ]
    return _few(changed) + _only(f"the {kind} dependency", left, rows, right, rows_2)


def _archives(left: Side, right: Side) -> list[str]:
    rows, rows_2 = _by_archive(left.spec.explicit), _by_archive(right.spec.explicit)
    changed = [
        _change(name, left, rows[name], right, rows_2[name])
        for name in rows
        if name in rows_2 and set(rows[name]) != set(rows_2[name])
    ]
    return _few(changed) + _only("the archive of", left, rows, right, rows_2)


def _change(
    name: str, left: Side, one: dict[str, Archive], right: Side, other: dict[str, Archive]
) -> str:
    """What differs in the archives, by identity, that two locks hold of one package."""
    urls = [sorted({archive.url for archive in rows.values()}) for rows in (one, other)]
    releases = [", ".join(map(_release, rows)) for rows in urls]
    if releases[0] != releases[1]:
        return f"the locks hold different {name}: {_then(left, releases[0], right, releases[1])}"
    if urls[0] != urls[1]:
        places = _then(left, ", ".join(urls[0]), right, ", ".join(urls[1]))
        return f"{name} {releases[0]} comes from elsewhere: {places}"
    return f"{name} {releases[0]} has another digest, though its URL is the same"


def _variables(left: Side, right: Side) -> list[str]:
    one, other = left.spec.variables, right.spec.variables
    changed = [
        f"the variable {name} differs"
        + ("" if _SECRET.search(name) else f": {_then(left, one[name], right, other[name])}")
        for name in one
        if name in other and one[name] != other[name]
    ]
    return _few(changed) + _only("the variable", left, one, right, other)


def _modules(left: Side, right: Side) -> list[str]:
    one, other = left.spec.modules, right.spec.modules
    if one == other:
        return []
    if sorted(one) == sorted(other):
        order = _then(left, " ".join(one), right, " ".join(other))
        return [f"the modules are loaded in another order: {order}"]
    return _only("the module", left, one, right, other)


def _platforms(left: Side, right: Side) -> list[str]:
    if left.platform == right.platform:
        return []
    return [f"the platforms differ: {_then(left, left.platform, right, right.platform)}"]


def _virtual_packages(left: Side, right: Side) -> list[str]:
    one = [text for text in left.virtual_packages if counts_in_key(text)]
    other = [text for text in right.virtual_packages if counts_in_key(text)]
    return _only("what the machine offers,", left, one, right, other)


_Comparison = Callable[[Side, Side], list[str]]
_OF_PACKAGES: tuple[_Comparison, ...] = (_channels, _conda, _pip, _archives)
_OF_THE_REST: tuple[_Comparison, ...] = (_variables, _modules, _platforms, _virtual_packages)


def _only(
    what: str, left: Side, one: Iterable[str], right: Side, other: Iterable[str]
) -> list[str]:
    """What is in one of two collections, and not in the other."""
    names, names_2 = list(dict.fromkeys(one)), list(dict.fromkeys(other))
    rows = (
        (left, right, [name for name in names if name not in names_2]),
        (right, left, [name for name in names_2 if name not in names]),
    )
    return [
        f"{what} {_listed(lone)} is in {here.name} and not in {there.name}"
        for here, there, lone in rows
        if lone
    ]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _few(sentences: list[str]) -> list[str]:
    more = len(sentences) - MAX_NAMED
    return sentences[:MAX_NAMED] + ([f"and {more} more of that kind"] if more > 0 else [])


def _then(left: Side, one: str, right: Side, other: str) -> str:
    return f"{one!r} in {left.name}, {other!r} in {right.name}"


def _by_name(entries: Iterable[str], name: Callable[[str], str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(name(entry) or entry, set()).add(entry)
    return found


def _by_archive(archives: Iterable[Archive]) -> dict[str, dict[str, Archive]]:
    found: dict[str, dict[str, Archive]] = {}
    for archive in archives:
        found.setdefault(_archive_name(archive.url), {})[archive.identity] = archive
    return found


def _archive_name(url: str) -> str:
    parts = parts_of_archive(url)
    return same_name(parts[0]) if parts else url


def _release(url: str) -> str:
    parts = parts_of_archive(url)
    return f"{parts[1]} {parts[2]}" if parts else url
