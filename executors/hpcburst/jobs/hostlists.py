"""Lists of nodes as Slurm writes them: "n[01-03,7],login". Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, product

MOST_NODES = 100_000
"""More nodes than any machine has: a range that is longer is a misprint."""

_ITEM = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})", re.ASCII)


def nodes_of(text: str) -> list[str]:
    """The names in a list of nodes, `MOST_NODES` at most.

    >>> nodes_of("n[01-03,7],login")
    ['n01', 'n02', 'n03', 'n7', 'login']
    """
    names = (name for item in _ITEM.findall(text) for name in _names(item))
    return list(islice(names, MOST_NODES))


def _names(item: str) -> Iterator[str]:
    parts = [list(_numbers(inside)) if inside else [plain] for inside, plain in _PART.findall(item)]
    return ("".join(words) for words in product(*parts))


def _numbers(inside: str) -> Iterator[str]:
    for word in inside.split(","):
        found = _RANGE.fullmatch(word)
        if found is None:
            yield word
            continue
        first, last = found.groups()
        numbers = range(int(first), min(int(last), int(first) + MOST_NODES) + 1)
        yield from (str(number).zfill(len(first)) for number in numbers)
