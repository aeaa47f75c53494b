"""All that is wrong with a config file, each with its line: every value is tried by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpcburst.errors import BurstError
from hpcburst.policy.discover import Machine
from hpcburst.policy.discovery.found import Found, FoundQueue
from hpcburst.policy.load import AUTO, DIALECT_KEYS, build_site, merged
from hpcburst.policy.model import Queue
from hpcburst.policy.present import LOCAL, SCHEDULERS
from hpcburst.policy.queues import NEEDED
from hpcburst.policy.sources import SECTIONS, default_section
from hpcburst.policy.values import dashed

SECTION = "hpcburst"

_ENDLESS = Queue(
    "endless", max_cores=10**9, max_memory_mb=10**12, max_gpus=10**6, max_walltime_s=1e9
)
"""Takes every job: what is tried in it is right or wrong by itself."""

_GOOD_QUEUE: dict[str, Any] = {"cores": 10**6, "memory": "999999TB", "walltime": "999d"}

_KEY = re.compile(rf"{SECTION}(?:\.[^\s:.,]+)+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a config file.

    Attributes:
        key: Dotted key it is about; "" for the file itself.
        line: Line of that key, from 1; None if there is no such line.
        text: What is wrong.
    """

    key: str
    line: int | None
    text: str


def problems(text: str) -> list[Problem]:
    """What is wrong with a file of Dask's config, as far as hpcburst reads it.

    Nothing is asked from the batch system, and nothing of other files counts.

    Args:
        text: The file, in YAML or JSON.
    """
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [_unreadable(error)]
    except (ValueError, RecursionError) as error:  # a date that is none; nested without end
        return [Problem("", None, f"it cannot be read: {error}")]
    section = document.get(SECTION) if isinstance(document, Mapping) else None
    if not isinstance(section, Mapping):
        return [Problem("", 1, f"it has no section {SECTION}: nothing is stated")]
    lines: dict[str, int] = {}
    doubled = list(_read_lines(node, "", lines))
    wrong = [*doubled, *_wrong_values(section, lines)] or list(_wrong_together(section, lines))
    return sorted(wrong, key=lambda problem: problem.line or 0)


def _unreadable(error: Any) -> Problem:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else None
    return Problem("", line, f"it is no YAML: {getattr(error, 'problem', None) or error}")


def _read_lines(node: Any, path: str, lines: dict[str, int]) -> Iterator[Problem]:
    """Note the line of every key; a key that stands twice is a problem, as the last one counts."""
    if type(node).__name__ != "MappingNode":
        return
    for key, value in node.value:
        name = f"{path}{key.value}" if isinstance(key.value, str) else path
        line = key.start_mark.line + 1
        if name in lines:
            yield Problem(name, line, f"it stands in line {lines[name]} already")
        lines[name] = line
        if value.start_mark.line >= key.start_mark.line:  # not an alias, whose lines are elsewhere
            yield from _read_lines(value, f"{name}.", lines)


def _wrong_values(section: Mapping[Any, Any], lines: Mapping[str, int]) -> Iterator[Problem]:
    """Every value that is wrong by itself."""
    for path, part in _trials(section):
        error = _error_of(part)
        if error is not None:
            key = f"{SECTION}.{path}"
            yield Problem(key, _line(key, lines), _words(error))


def _wrong_together(section: Mapping[Any, Any], lines: Mapping[str, int]) -> Iterator[Problem]:
    """What is wrong only because of the rest: a pilot that no queue takes."""
    error = _error_of(section)
    if error is not None:
        named = _KEY.search(error.asked)
        key = named[0] if named else SECTION
        yield Problem(key, _line(key, lines), _words(error))


def _trials(section: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parts of the section that are tried one by one, and the keys they are about."""
    for stated, value in section.items():
        key = str(stated)
        plain = key.replace("_", "-")
        if plain == "queues" and isinstance(value, Mapping):
            yield from _queue_trials(key, value)
        elif plain == "dialect":
            scheduler = section.get("scheduler", LOCAL)
            yield key, {key: value, "scheduler": scheduler if scheduler in SCHEDULERS else AUTO}
        elif plain in SECTIONS and isinstance(value, Mapping) and value:
            for name, inner in value.items():
                if (plain, str(name)) != ("pilot", "queue"):  # right only beside the queues
                    yield f"{key}.{name}", {key: {str(name): inner}}
        else:
            yield key, {key: value}


def _queue_trials(key: str, queues: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, fields in queues.items():
        path = f"{key}.{name}"
        if not isinstance(fields, Mapping):
            yield path, {"queues": {name: fields}}
            continue
        stated = [field for field in dashed(fields, path) if field in NEEDED]
        yield path, {"queues": {name: {field: _GOOD_QUEUE[field] for field in stated}}}
        for field, value in fields.items():
            yield f"{path}.{field}", {"queues": {name: _GOOD_QUEUE | {_dash(field): value}}}


def _error_of(part: Mapping[Any, Any]) -> BurstError | None:
    try:
        section = merged(default_section(), dashed(part, SECTION))
        build_site(section | _unasked(section), Machine(10**6, 10**12), _endless)
    except BurstError as error:
        return error
    return None


def _unasked(section: Mapping[str, Any]) -> dict[str, Any]:
    """Values that would be looked for on this machine, which may not be the one that is meant."""
    unasked = {} if section["host"] is not None else {"host": "here"}
    if section["scheduler"] == AUTO:
        # Any of them may be there: one that the dialect's keys are for.
        keys = set(dashed(section["dialect"], f"{SECTION}.dialect"))
        named = (name for name, known in DIALECT_KEYS.items() if keys & set(known))
        unasked["scheduler"] = next(named, "sge")
    return unasked


def _endless(scheduler: str) -> Found:  # noqa: ARG001 - whatever it is
    return Found(queues=(FoundQueue(_ENDLESS),))


def _line(key: str, lines: Mapping[str, int]) -> int | None:
    """The line of the key, or of the nearest one above it."""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return lines.get(key)


def _dash(key: object) -> str:
    return str(key).replace("_", "-")


def _words(error: BurstError) -> str:
    """What was found; what was asked stands in the file."""
    parts = [part for part in (error.asked, error.found) if part]
    return ": ".join(parts)
