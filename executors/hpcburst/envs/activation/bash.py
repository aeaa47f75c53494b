"""Ask bash which environment some shell text leaves: the one door to a shell.

Values reach the text as data: in the environment, or as its arguments (`"$@"`).
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 120.0
"""Such scripts take milliseconds; one that asks a question would wait for ever."""

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""Names of variables; what bash exports beside them (functions) is left out."""

_PLAIN_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
_KEPT = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL")

_AROUND = """
exec {{hpcburst_out}}>&1 1>&2
hpcburst_env=$(type -P env)
hpcburst_tell() {{
    printf '%s\\0%s\\0' {mark} "$?" >&"$hpcburst_out"
    "$hpcburst_env" -0 >&"$hpcburst_out"
}}
{script}
hpcburst_tell
printf '%s\\0' {mark} >&"$hpcburst_out"
"""
"""What the text itself writes goes to stderr, so that nothing mixes with what is told."""


class BashFailed(Exception):
    """The text did not come to its end.

    Args:
        found: What happened, as a phrase.
        output: All it wrote.
    """

    def __init__(self, found: str, output: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.output = output


@dataclass(frozen=True, slots=True)
class Told:
    """The environment at one point of the text.

    Attributes:
        status: Exit status of the command before that point.
        environ: The exported variables.
    """

    status: int
    environ: Mapping[str, str]


def plain_environ() -> dict[str, str]:
    """An environment with nothing of this process but who the user is and how they read."""
    environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return environ | {"PATH": plain_path()}


def plain_path() -> str:
    """The PATH that everything is captured in front of."""
    return os.pathsep.join(_PLAIN_PATH)


def run_bash(
    script: str, environ: Mapping[str, str], arguments: Sequence[str] = ()
) -> tuple[list[Told], str]:
    """Run text in a bash that reads no start-up files.

    Args:
        script: The text. It may call `hpcburst_tell` to have the environment read; it is read once
            more at its end.
        environ: The whole environment it begins with.
        arguments: Its `"$@"`.

    Returns:
        What was told, in order, and what the text wrote to stdout and stderr.

    Raises:
        BashFailed: There is no bash, or it ended before the text did, or took too long.
    """
    mark = secrets.token_hex(16)
    text = _AROUND.format(mark=mark, script=script)
    argv = ["bash", "--noprofile", "--norc", "-c", text, "hpcburst", *arguments]
    try:
        done = subprocess.run(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BashFailed(str(error)) from error
    output = done.stderr.decode(errors="replace")
    told = done.stdout.split(mark.encode() + b"\0")[1:]
    if done.returncode != 0 or not told or told.pop():  # nothing follows the last mark
        raise BashFailed(f"bash ended with status {done.returncode}", output)
    return [_read(each) for each in told], output


def _read(told: bytes) -> Told:
    status, *pairs = told.decode("utf-8", "surrogateescape").split("\0")
    read = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return Told(int(status), {name: text for name, text in read.items() if NAME.fullmatch(name)})
