"""What was found, as a section of Dask's config: a comment beside each guess says why. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping

from hpcburst.policy.discovery.found import Found, FoundQueue

_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)$)[A-Za-z_][\w.-]*", re.IGNORECASE)
_AMOUNT = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:MB|GB|[dhms])")
_COLUMN = 34


def page(scheduler: str, found: Found) -> str:
    """The `hpcburst:` section that states what was found; every value is one that `load` reads."""
    lines = [
        f"# What {scheduler} told. Put it in /etc/dask (for all) or ~/.config/dask (for you), and",
        "# correct it: a comment after a value says why that value is a guess.",
        *_comments(found.remarks, ""),
        "hpcburst:",
        f"  scheduler: {scheduler}",
        *_entries(found.settings, found.guesses, "  "),
        "  queues:",
    ]
    for row in found.queues:
        lines += _queue_lines(row)
    lines += _comments([f"left out: {name}: {why}" for name, why in found.closed.items()], "    ")
    if found.dialect:
        lines += ["  dialect:", *_entries(found.dialect, found.guesses, "    ")]
    return "\n".join(lines) + "\n"


def stated(row: FoundQueue) -> dict[str, int | str | float | bool]:
    """The keys of one queue, as the config states them."""
    queue = row.queue
    fields: dict[str, int | str | float | bool] = {
        "cores": queue.max_cores,
        "memory": memory_text(queue.max_memory_mb),
        "walltime": walltime_text(queue.max_walltime_s),
    }
    if queue.max_gpus:
        fields["gpus"] = queue.max_gpus
    if queue.price != 1.0:
        fields["price"] = queue.price
    if queue.burst:
        fields["burst"] = True
    return fields


def memory_text(memory_mb: int) -> str:
    """Memory as people write it, never more than there is."""
    return f"{memory_mb // 1000}GB" if memory_mb >= 10_000 else f"{memory_mb}MB"


def walltime_text(walltime_s: float) -> str:
    """A length of time in the largest unit that says it exactly."""
    whole = int(walltime_s)
    if whole != walltime_s or not whole:
        return f"{walltime_s:g}s"
    for unit_s, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole % unit_s == 0:
            return f"{whole // unit_s}{letter}"
    return f"{whole}s"


def _queue_lines(row: FoundQueue) -> Iterator[str]:
    default = ["the default queue"] if row.is_default else []
    yield from _comments([*default, *row.remarks], "    ")
    yield f"    {_scalar(row.queue.name)}:"
    yield from _entries(stated(row), row.guesses, "      ")


def _entries(
    values: Mapping[str, int | str | float | bool], guesses: Mapping[str, str], indent: str
) -> Iterator[str]:
    for key, value in values.items():
        line = f"{indent}{key}: {_scalar(value)}"
        why = guesses.get(key)
        yield f"{line.ljust(_COLUMN)} # guess: {_one_line(why)}" if why else line


def _comments(texts: list[str] | tuple[str, ...], indent: str) -> Iterator[str]:
    for text in texts:
        yield f"{indent}# {_one_line(text)}"


def _scalar(value: float | str) -> str:
    """YAML that reads as this value and as nothing else; text of a stranger is quoted."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) or _AMOUNT.fullmatch(value):
        return value
    import yaml

    return str(yaml.safe_dump(value, default_style='"', width=math.inf)).strip()


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
