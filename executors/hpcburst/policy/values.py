"""Values of the config, checked: one that cannot be meant is an answer, not a surprise. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpcburst.errors import SiteError

WHERE = "correct the hpcburst section of Dask's config (~/.config/dask/*.yaml, DASK_HPCBURST__*)"
"""What to do about a value that cannot be meant."""


def dashed(section: object, path: str) -> dict[str, Any]:
    """A mapping with dashes in its keys: Dask takes `max_jobs` for `max-jobs`, so do we.

    Raises:
        SiteError: It is no mapping.
    """
    return {str(key).replace("_", "-"): value for key, value in pairs(section, path)}


def pairs(value: object, path: str) -> list[tuple[Any, Any]]:
    """Keys and values of a mapping.

    Raises:
        SiteError: It is no mapping.
    """
    if not isinstance(value, Mapping):
        raise _cannot_be(value, path, "a mapping of keys to values")
    return list(value.items())


def texts(value: object, path: str) -> tuple[str, ...]:
    """A list of texts.

    Raises:
        SiteError: It is no list.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _cannot_be(value, path, "a list")
    return tuple(map(str, value))


def text(value: object, path: str) -> str:
    """Text; None is "".

    Raises:
        SiteError: It is a list or a mapping.
    """
    if isinstance(value, (Mapping, list, tuple)):
        raise _cannot_be(value, path, "text")
    return "" if value is None else str(value)


def choice(value: object, known: Sequence[str], path: str) -> str:
    """One of the known words.

    Raises:
        SiteError: It is none of them.
    """
    if value not in known:
        raise _cannot_be(value, path, f"one of {', '.join(known)}")
    return str(value)


def flag(value: object, path: str) -> bool:
    """True or false; text too, for it may come from the environment.

    Raises:
        SiteError: It is neither.
    """
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in known:
        raise _cannot_be(value, path, "true or false")
    return known[str(value).lower()]


def count(value: object, path: str, *, at_least: int = 1) -> int:
    """A whole number; text of one too, for it may come from the environment.

    Raises:
        SiteError: It is none, or too small.
    """
    digits = str(value)
    if isinstance(value, bool) or not _is_whole(digits) or int(digits) < at_least:
        raise _cannot_be(value, path, f"a whole number of at least {at_least}")
    return int(digits)


def number(value: object, path: str, *, zero: bool = False) -> float:
    """A positive number, or zero where that is said; text of one too.

    Raises:
        SiteError: It is none, negative or endless.
    """
    try:
        read = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        read = math.nan
    if not (0 <= read < math.inf) or not (read or zero):
        raise _cannot_be(value, path, "a number of at least 0" if zero else "a number above 0")
    return read


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    """Make sure that only known keys are stated.

    Raises:
        SiteError: Others are.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SiteError(
            f"The config states {', '.join(f'{path}.{key}' for key in unknown)}",
            f"the keys of {path} are {', '.join(known)}",
            WHERE,
        )


def _is_whole(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= 15


def _cannot_be(value: object, path: str, wanted: str) -> SiteError:
    return SiteError(f"{path} is {value!r}", f"it must be {wanted}", WHERE)
