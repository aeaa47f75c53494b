"""Amounts as people write them, read exactly or refused: memory and lengths of time. Pure."""

from __future__ import annotations

import math
import re

from hpcburst.errors import RequestError

_UNITS_MB = {
    "": 1.0, "B": 1e-6,
    "K": 1e-3, "KB": 1e-3, "M": 1.0, "MB": 1.0, "G": 1e3, "GB": 1e3, "T": 1e6, "TB": 1e6,
    "KIB": 2**10 / 1e6, "MIB": 2**20 / 1e6, "GIB": 2**30 / 1e6, "TIB": 2**40 / 1e6,
}  # fmt: skip
_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1, "": 1}


def read_memory_mb(value: float | str) -> int:
    """Memory in MB (10^6 bytes), rounded up, from a number of MB or text with a unit.

    >>> read_memory_mb("4GB"), read_memory_mb("512 MiB"), read_memory_mb(1500)
    (4000, 537, 1500)

    Raises:
        RequestError: It is not a positive amount of memory.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]{0,3})\s*", str(value))
    unit = _UNITS_MB.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise RequestError(
            f"Memory {str(value)[:80]!r} was asked for",
            "it is not a positive amount of memory",
            'write a number of MB, or text like "4GB" or "512MiB"',
        )
    return math.ceil(float(match[1]) * unit - 1e-9) or 1


def read_walltime_s(value: float | str) -> float:
    """Seconds from a number of seconds or text: "90s", "5m", "1h30m", "01:30:00", "2-12:00:00".

    >>> read_walltime_s("1h30m"), read_walltime_s("00:05:00"), read_walltime_s(90)
    (5400.0, 300.0, 90.0)

    Raises:
        RequestError: It is not a positive length of time.
    """
    seconds = _clock_s(str(value)) or _units_s(str(value))
    if seconds <= 0:
        raise RequestError(
            f"Walltime {str(value)[:80]!r} was asked for",
            "it is not a positive length of time",
            'write seconds, or text like "90s", "5m", "1h30m" or "01:30:00"',
        )
    return float(seconds)


def _clock_s(text: str) -> float:
    # "10:00" is left out on purpose: ten minutes for some batch systems, ten hours for others.
    match = re.fullmatch(r"\s*(?:(\d{1,5})-)?(\d{1,6}):(\d\d):(\d\d)\s*", text)
    if match is None:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _units_s(text: str) -> float:
    text = text.strip().lower()
    if not re.fullmatch(r"(?:\d{1,12}(?:\.\d{1,9})?\s*(?:d|h|min|m|s)?\s*){1,4}", text):
        return 0
    parts = re.findall(r"(\d{1,12}(?:\.\d{1,9})?)\s*(d|h|min|m|s|)", text)
    bare = [unit for _, unit in parts if not unit]
    if bare and len(parts) > 1:
        return 0
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
