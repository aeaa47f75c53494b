"""How a rule's own command ended, by what a nested Snakemake wrote of it.

A nested call ends with status 1 whatever its rule did, so the status that tells a lack of memory
from a mistake stands in its log alone. Only reads text; the zygote's children use it too.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress

TAIL_BYTES = 1 << 14
"""So much of a log's end holds what Snakemake says of the command that failed."""

KILLED = 128 + signal.SIGKILL
"""The status of a shell whose program was killed outright, as by the kernel for its memory."""

_ENDED = re.compile(
    r"^.*returned non-zero exit status (\d{1,3})\.$|^.*died with <Signals\.(SIG\w+): \d+>\.$",
    re.MULTILINE,
)


def command_status(text: str) -> int | None:
    """The exit status of the last command that a nested Snakemake says has failed.

    >>> command_status("Command 'set -euo pipefail;  false' returned non-zero exit status 1.")
    1
    >>> command_status("Command 'set -euo pipefail;  x' died with <Signals.SIGKILL: 9>.")
    -9

    Returns:
        The status, negative for a signal; None if the text tells of none.
    """
    found = [match.groups() for match in _ENDED.finditer(text)]
    if not found:
        return None
    status, name = found[-1]
    return int(status) if status else -int(getattr(signal, name, 0))


def lacks_outputs(text: str) -> bool:
    """Whether a nested Snakemake says that a command ended well and did not make its outputs."""
    return "MissingOutputException in " in text


def was_killed(status: int | None) -> bool:
    """Whether that is the status of a program that was killed outright, or of its shell."""
    return status in (-signal.SIGKILL, KILLED)


def end_of(log: str | None) -> str:
    """The end of a log file; "" if there is none."""
    with suppress(OSError, TypeError), open(log or "", "rb") as file:  # noqa: PTH123 - text
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""
