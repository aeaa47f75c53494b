"""A job's placement in the words of batch systems: what they can say, and what they cannot. Pure.

As in `directives`, a text is checked against what such texts look like and never escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpcburst.errors import RequestError
from hpcburst.placement import Placement

_WORD = re.compile(r"\w[\w.@+:/-]*")
_EXPRESSION = re.compile(r"[\w\[(!][\w.=:&|*,()\[\]+!-]*")
_FEATURE = re.compile(r"[A-Za-z_][\w.-]*(?:=[\w.+-]+)?")


def account_option(placement: Placement, name: str) -> dict[str, str]:
    """The option of dask-jobqueue's class that names an account; none leaves it to the section.

    Args:
        placement: May name one.
        name: What the class calls it.
    """
    return {} if placement.account is None else {name: word("account", placement.account)}


def word(kind: str, value: str) -> str:
    """A name of an account, a quality of service, a reservation or a model.

    Raises:
        RequestError: It is no name.
    """
    return _checked(kind, value, _WORD, "that is no name of one")


def expression(constraint: str) -> str:
    """A constraint in Slurm's own syntax.

    Raises:
        RequestError: It has characters that have no meaning there.
    """
    return _checked("constraint", constraint, _EXPRESSION, "Slurm reads no such constraint")


def features(constraint: str | None) -> list[str]:
    """The features that a constraint joins by "&": each a name, or name=value.

    >>> features("avx512&mem=big"), features(None)
    (['avx512', 'mem=big'], [])

    Raises:
        RequestError: It says more than that.
    """
    parts = [] if constraint is None else constraint.split("&")
    found = "only names joined by & are understood on this batch system"
    return [_checked("constraint", part.strip(), _FEATURE, found) for part in parts]


def refuse(placement: Placement, names: Iterable[str], system: str) -> None:
    """Refuse what a batch system has no words for.

    Raises:
        RequestError: One of these fields is stated.
    """
    for name in names:
        value = getattr(placement, name)
        if value:
            raise RequestError(
                f"{name}={value!r} was asked for",
                f"{system} jobs are not told of one by hpcburst",
                "leave it out, or say it in jobqueue.<name>.job-extra-directives for all jobs",
            )


def _checked(kind: str, value: str, pattern: re.Pattern[str], found: str) -> str:
    if not pattern.fullmatch(value):
        raise RequestError(f"{kind}={value[:80]!r} was asked for", found, f"check {kind}")
    return value
