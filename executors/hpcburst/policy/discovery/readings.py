"""Amounts as batch systems print them, and records of "name value" lines. Pure; None: not told."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LONGEST_DIGITS = 15
_UNLIMITED_WORDS = frozenset(
    ("", "-", "n/a", "none", "null", "(null)", "unlimited", "infinite", "infinity", "undefined")
)
_CLOCK = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?", re.ASCII)
_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([a-zA-Z]{0,3})[*+]?", re.ASCII)
_BYTES = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}


def is_unlimited(text: str) -> bool:
    """Whether a batch system says here that there is no limit, or that it does not know one."""
    return text.strip().lower() in _UNLIMITED_WORDS


def count(text: str) -> int | None:
    """A whole number, as sinfo says it: "8000+" is at least so many."""
    digits = text.strip().rstrip("+*")
    plain = digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_DIGITS
    return int(digits) if plain else None


def memory_mb(text: str, unit: str = "m") -> int | None:
    """Memory in MB (10^6 bytes), rounded down: a job that asks for a little less still fits.

    >>> memory_mb("8000"), memory_mb("251.6G"), memory_mb("131072000kb"), memory_mb("UNLIMITED")
    (8388, 270153, 134217, None)

    Args:
        text: An amount; units are powers of two, as all batch systems mean them.
        unit: First letter of the unit of a bare number.
    """
    found = _MEMORY.fullmatch(text.strip())
    if found is None:
        return None
    letters = (found[2] or unit).lower().removesuffix("ib").removesuffix("b") or "b"
    one_byte = _BYTES.get(letters)
    return int(float(found[1]) * one_byte / 1e6) or None if one_byte else None


def walltime_s(text: str, *, bare_s: int = 60, two_s: int = 60) -> float | None:
    """Seconds from "D-HH:MM:SS", "HH:MM:SS", two numbers or one; None for no limit.

    >>> walltime_s("1-00:00:00"), walltime_s("10:00"), walltime_s("24:00", two_s=3600)
    (86400.0, 600.0, 86400.0)

    Args:
        text: A length of time.
        bare_s: Seconds in the unit of a single number.
        two_s: Seconds in the unit of the first of two numbers: 60 for minutes and seconds, 3600 for
            hours and minutes.
    """
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    days, *numbers = (int(part) if part else None for part in found.groups())
    parts = [number for number in numbers if number is not None]
    if days is not None:  # "D-HH", "D-HH:MM", "D-HH:MM:SS"
        units = (3600, 60, 1)
    elif len(parts) == 1:
        units = (bare_s, 0, 0)
    else:
        units = (3600, 60, 1) if len(parts) == 3 else (two_s, two_s // 60, 0)
    seconds = (days or 0) * 86400 + sum(n * unit for n, unit in zip(parts, units, strict=False))
    return float(seconds) or None


def records(text: str, head: re.Pattern[str]) -> list[tuple[str, dict[str, str]]]:
    """Records of indented "name = value" lines under a line whose first group names the record.

    A line that begins with a tab goes on with the value before it. Lines before the first record,
    and all that are none of these, are whatever a site prints.
    """
    found: list[tuple[str, dict[str, str]]] = []
    last = ""
    for line in text.splitlines():
        heading = head.fullmatch(line.rstrip())
        if heading:
            found.append((heading[1], {}))
            last = ""
        elif found and line[:1] == "\t" and last:
            found[-1][1][last] += line.strip()
        elif found and line[:1].isspace() and "=" in line:
            name, _, value = line.partition("=")
            last = name.strip()
            found[-1][1][last] = value.strip()
    return found


def cells(text: str, columns: int, between: str = "|") -> Iterator[list[str]]:
    """Lines of exactly so many fields, stripped; others are whatever a site prints."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(between)]
        if len(fields) == columns:
            yield fields
