"""The door through which policy asks the batch system what it is like: reads, never changes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ANSWER_TIMEOUT_S = 20.0
"""A healthy scheduler tells its queues in milliseconds, a busy one in seconds."""

LONGEST_ANSWER = 50_000_000
"""Characters of an answer that are read: ten thousand nodes with everything known of each."""

_PREFERENCES = re.compile(r"S(?:INFO|CONTROL|QUEUE)_(?!CONF)\w+|BSUB_QUIET2?|PBS_DPREFIX")
"""A user's preferences for these commands, which would change what they print."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a command answered.

    Attributes:
        text: What it printed; "" when it failed.
        trouble: Why there is no answer; "" when there is one.
    """

    text: str
    trouble: str = ""


def ask(argv: Sequence[str], *, timeout_s: float = ANSWER_TIMEOUT_S) -> Told:
    """Run one command that only reads, in plain English, and wait for it no longer than this."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=plain_environment(os.environ),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Told("", f"{argv[0]} did not answer within {timeout_s:g} s")
    except OSError as error:
        return Told("", f"{argv[0]} cannot start: {error.strerror}")
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [""]
        return Told("", f"{argv[0]} ended with status {done.returncode}: {said[-1]}".rstrip(": "))
    return Told(done.stdout[:LONGEST_ANSWER])


def output_or_nothing(argv: Sequence[str]) -> str:
    """What a command prints on its standard output; "" when it fails."""
    return ask(argv).text


def plain_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a command whose answer is read by a program."""
    kept = {name: value for name, value in environ.items() if not _PREFERENCES.fullmatch(name)}
    return {**kept, "LC_ALL": "C", "SGE_SINGLE_LINE": "1"}  # Grid Engine breaks long lines else
