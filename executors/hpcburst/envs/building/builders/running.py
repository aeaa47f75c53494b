"""Running a conda tool: the one door to its process, its environment and what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcburst.envs.building.room import raise_if_no_room
from hpcburst.envs.specs.entries import redact
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIMIT_S = 4 * 3600.0
"""Seconds a tool may take. Solves of an hour have been seen; one that takes half a day hangs."""

SAID_LINES = 30
"""Lines of a tool's explanation an error carries: the top of the tree names the culprits."""

_NOT_PASSED = re.compile(
    # Another Python, an active env, and settings that would choose other packages than asked for.
    r"PYTHON(PATH|HOME|STARTUP)|VIRTUAL_ENV|CONDA_(PREFIX\w*|DEFAULT_ENV|SHLVL|SUBDIR)"
    r"|(CONDA|MAMBA)_(CHANNELS|PINNED_PACKAGES|CREATE_DEFAULT_PACKAGES|CHANNEL_PRIORITY|PLATFORM)"
    r"|PIXI_(PROJECT|ENVIRONMENT|WORKSPACE)_\w+|PIXI_(IN_SHELL|EXE|PROMPT|FROZEN|LOCKED|NO_INSTALL)"
)
_NOTHING_FOUND = re.compile(
    r"No candidates were found|PackagesNotFound|packages are not available|nothing provides"
    r"|does not exist|not found in the (?:package )?(?:channels|repodata)",
    re.IGNORECASE,
)
_IN_THE_WAY = re.compile(
    r"Unsatisfiable|incompatible|conflict|Could not solve|cannot be installed", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Said:
    """How a tool ended.

    Attributes:
        status: Its exit status.
        out: What it wrote to stdout.
        err: What it wrote to stderr.
    """

    status: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """Why it failed, as far as it said so."""
        return self.err.strip() or f"it ended with status {self.status}, and said nothing"


def environ_for(environ: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """A tool's environment: ours, without what would make it another tool or choose otherwise.

    The user's own configuration stays in force: proxies, certificates and private channels are
    why a site's own conda is chosen.
    """
    kept = {name: text for name, text in environ.items() if not _NOT_PASSED.fullmatch(name)}
    return {**kept, **more}


def run_tool(
    argv: Sequence[str | Path], environ: Mapping[str, str], *, cwd: Path | None = None
) -> Said:
    """Run a tool to its end; it and its children are gone when this returns or raises.

    Raises:
        EnvError: It took longer than `LIMIT_S`.
        OSError: It cannot be started.
    """
    process = subprocess.Popen(
        [str(word) for word in argv],
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # Ctrl-C reaches us; we end all of it, and then the stage is taken away
    )
    with process:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _too_slow(argv) from None
            raise
    return Said(process.returncode, out, err)


def _too_slow(argv: Sequence[str | Path]) -> EnvError:
    return EnvError(
        f"{argv[0]} {argv[1]} was run",
        f"it was stopped after {LIMIT_S:.0f} s",
        "run it by hand to see what it waits for; `--with rattler` does without it",
    )


def no_solution(tool: str, text: str, source: str) -> EnvError:
    """Put a solver's refusal into words.

    Raises:
        OSError: It ran out of room; that is another matter.
    """
    raise_if_no_room(text)
    if _NOTHING_FOUND.search(text):
        todo = "check the name and versions of what is missing, or add the channel that has it"
    elif _IN_THE_WAY.search(text):
        todo = "loosen one of the versions named above, or put these packages in two envs"
    else:
        todo = f"see what {tool} says; `--with rattler` chooses without it"
    return EnvError(f"The packages of {source} were to be chosen by {tool}", _top(text), todo)


def not_linked(tool: str, said: Said, plan_source: str, prefix: Path) -> EnvError:
    """Put a failed installation into words.

    Raises:
        OSError: It ran out of room; that is another matter.
    """
    text = f"{said.out}\n{said.err}"
    raise_if_no_room(text)
    return EnvError(
        f"The env of {plan_source} was to be built in {prefix}",
        f"{tool} ended with status {said.status}",
        f"see what {tool} says below; `--with rattler` builds the same env without it",
        tail=redact(text),
    )


def _top(text: str) -> str:
    lines = [line.rstrip()[:200] for line in redact(text).splitlines() if line.strip()]
    more = [f"... and {len(lines) - SAID_LINES} more lines"] if len(lines) > SAID_LINES else []
    return "\n".join(lines[:SAID_LINES] + more)
