"""What a job script says to a batch system: times, sizes, names, and the user's own section. Pure.

Everything here ends up in lines that a batch system or a shell reads. So a name is checked against
what names look like, and a text that cannot be written safely is refused, not escaped: the systems'
own parsers differ, and most have no quoting at all.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hpcburst.errors import RequestError, SiteError

JOB_NAME = "hpcburst"
"""Name of every job: no data of the user's in what every user of the machine can list."""

MIB_PER_MB = 10**6 / 2**20

_QUEUE = re.compile(r"\w[\w.,:@+-]*")
_NODE = re.compile(r"\w[\w.-]*")
_FOLDER = re.compile(r"/[\w./+=@~-]*")

_ADDED = ("job_extra_directives",)
_UNITED = ("job_directives_skip",)
_UNLESS_STATED = ("disk", "memory_per_core_property_name")
_BOTH_MUST_HOLD = ("requirements",)
_EITHER_IS_ENOUGH = ("periodic_remove",)


def clock(seconds: float, *, step_s: int = 1) -> str:
    """A time as "H:MM:SS", rounded up to whole steps and at least one of them.

    >>> clock(90), clock(90, step_s=60), clock(90000)
    ('0:01:30', '0:02:00', '25:00:00')
    """
    whole_s = max(1, math.ceil(seconds / step_s)) * step_s
    return f"{whole_s // 3600}:{whole_s // 60 % 60:02d}:{whole_s % 60:02d}"


def mebibytes(memory_mb: float) -> int:
    """MB (10^6 bytes) as MiB, rounded up: what batch systems mean when they write "M".

    >>> mebibytes(1000)
    954
    """
    return max(1, math.ceil(memory_mb * MIB_PER_MB))


def queue_name(queue: str) -> str:
    """The name of a queue.

    Raises:
        RequestError: It is not one.
    """
    if not _QUEUE.fullmatch(queue):
        raise RequestError(
            f"The queue {queue[:80]!r} was asked for", "that is no name of a queue", "check queue="
        )
    return queue


def queue_option(queue: str | None) -> dict[str, str]:
    """The option that names a queue; none leaves it to the user's section and the site."""
    return {} if queue is None else {"queue": queue_name(queue)}


def node_names(nodes: Sequence[str]) -> list[str]:
    """The names among these that are names of nodes, sorted, each once."""
    return sorted({node for node in nodes if _NODE.fullmatch(node)})


def folder_path(folder: str) -> str:
    """A folder's path that every batch system reads as it is written, without a slash at its end.

    Raises:
        SiteError: It has characters that some systems read as more than a name.
    """
    if not _FOLDER.fullmatch(folder):
        raise SiteError(
            f"Logs of jobs were to go to {folder!r}",
            "batch systems do not read such a path as it is written",
            "choose a shared root without blanks and special characters",
        )
    return folder.rstrip("/")


def redirection(logs: str, job_id: str) -> str:
    """A line of the job script from which on all output goes to the job's log.

    For systems that write a job's output under names nobody can tell beforehand, or only when the
    job is over.

    Args:
        logs: Folder of the logs.
        job_id: The job's id, as a shell writes it.
    """
    return f'exec >>{shlex.quote(folder_path(logs))}/"{job_id}".log 2>&1'


def with_section(options: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """Our options joined with the user's section of dask-jobqueue's config.

    dask-jobqueue takes an option *or* the section's entry of that name. Lists must be joined, or a
    user's account or constraint would be lost with the first directive of ours. What is no option
    of ours stays with the section.

    Args:
        options: From `Dialect.job_options`.
        section: `dask.config.get("jobqueue.NAME")`.
    """
    stated = {name.replace("-", "_"): value for name, value in section.items() if value}
    joined = dict(options)
    for name in _UNLESS_STATED:
        if stated.get(name):
            joined.pop(name, None)
    for name in _ADDED:
        if name in joined:
            joined[name] = _added(stated.get(name) or stated.get("job_extra"), joined[name])
    for name in _UNITED:
        if name in joined:
            old = stated.get(name) or stated.get("header_skip") or ()
            joined[name] = sorted({*old, *joined[name]})
    prologue = stated.get("job_script_prologue") or stated.get("env_extra") or ()
    joined["job_script_prologue"] = [*joined.get("job_script_prologue", ()), *prologue]
    return joined


def _added(theirs: Any, ours: Any) -> Any:
    if not theirs:
        return ours
    if not isinstance(ours, Mapping):
        return [*theirs, *ours]
    joined = {**theirs, **ours}
    for names, operator in ((_BOTH_MUST_HOLD, "&&"), (_EITHER_IS_ENOUGH, "||")):
        for name in names:
            if name in theirs and name in ours:
                joined[name] = f"({theirs[name]}) {operator} ({ours[name]})"
    return joined
