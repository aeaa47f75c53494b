"""How answers of batch systems are read: rows and records amid whatever a site prints. Pure.

Sites print messages of the day, modules print warnings, links break in the middle of a line. What
cannot be read says nothing; only a text that is plainly an error is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from hpcburst.errors import SiteError, SubmitError
from hpcburst.jobs.dialect import NO_NEWS, JobNews

_ID = re.compile(r"[0-9]+")
_CLOCK = re.compile(r"(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,6})")
_ENTRY = re.compile(r" {2,}([\w.]+) ?= ?(.*)")
_LONGEST_DIGITS = 18


def check_answer(text: str, trouble: re.Pattern[str]) -> None:
    """Make sure that a text is an answer.

    Raises:
        SiteError: A line of it says that the batch system did not answer.
    """
    found = trouble.search(text)
    if found is not None:
        raise SiteError(
            "The batch system was asked for its jobs",
            "it did not answer",
            "it is asked again later; see the status page of the site if this goes on",
            tail=text[found.start() :].partition("\n")[0],
        )


def news_for(job_ids: Sequence[str], rows: Mapping[str, JobNews]) -> dict[str, JobNews]:
    """The rows of the jobs asked about; ids are compared by their number ("12" is "12.server")."""
    return {job_id: rows.get(number_of(job_id), NO_NEWS) for job_id in job_ids}


def number_of(job_id: str) -> str:
    """The number a job id begins with, or all of it: servers add their names, and some leave them.

    >>> number_of("12.server.site"), number_of("12.0"), number_of("x")
    ('12', '12', 'x')
    """
    number = _ID.match(job_id)
    return number.group() if number else job_id


def submitted_id(text: str, pattern: re.Pattern[str]) -> str:
    """The job id that the first group of `pattern` finds in what a submit command printed.

    Raises:
        SubmitError: It is not there.
    """
    found = pattern.search(text)
    if found is None:
        raise SubmitError("A job was submitted", "no job id was told", tail=text)
    return found.group(1)


def rows_of(text: str, columns: int) -> Iterator[list[str]]:
    """Lines of `columns` fields with "|" between them; the last field may have more of them."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", columns - 1)]
        if len(fields) == columns:
            yield fields


def records_of(text: str, head: re.Pattern[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Records of "    name = value" lines below a line whose first group is the record's id.

    A line that begins with a tab goes on with the value before it.
    """
    found: tuple[str, dict[str, str]] | None = None
    name = ""
    for line in text.splitlines():
        begun = head.match(line)
        entry = _ENTRY.match(line)
        if begun:
            if found:
                yield found
            found, name = (begun.group(1), {}), ""
        elif found and entry:
            name = entry.group(1)
            found[1][name] = entry.group(2).strip()
        elif found and name and line.startswith("\t"):
            found[1][name] += line.strip()
    if found:
        yield found


def seconds_of(text: str) -> float | None:
    """Seconds from "H:MM:SS" or "MM:SS"; None if it is neither."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds = found.groups(default="0")
    return int(hours) * 3600.0 + int(minutes) * 60.0 + int(seconds)


def epoch_of(text: str, layout: str) -> float | None:
    """Seconds since the epoch from a local time; None if it is none."""
    try:
        return datetime.strptime(text.strip(), layout).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def count_of(text: str) -> int | None:
    """A whole number in plain digits; None if it is none."""
    plain = text.isascii() and text.isdigit() and len(text) <= _LONGEST_DIGITS
    return int(text) if plain else None
