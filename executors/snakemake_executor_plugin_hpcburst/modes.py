"""How a nested `snakemake` call runs on a pilot: one small class each, the fastest first.

A mode is *exact* for a call when a rule cannot tell it from a new Snakemake process. `auto` takes
the first exact one. A further mode is one more class in `MODES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hpcburst.errors import RequestError
from hpcburst.tasks import Command
from snakemake_executor_plugin_hpcburst.commands import Call

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides whether a mode is exact. One for a whole workflow.

    Attributes:
        precommand: A `--precommand` runs before each nested call.
        shares_software: Nodes use the driver's own Python and envs.
    """

    precommand: bool = False
    shares_software: bool = True


class Mode(Protocol):
    """One way to run a nested call."""

    @property
    def name(self) -> str:
        """What `--hpcburst-mode` calls it."""
        ...

    def is_exact(self, circumstances: Circumstances) -> bool:
        """Whether a rule cannot tell it from a new Snakemake process."""
        ...

    def command(self, call: Call, *, cwd: str, environ: Mapping[str, str], log: str) -> Command:
        """The command to send to a pilot; its output goes to `log`."""
        ...


@dataclass(frozen=True, slots=True)
class Zygote:
    """A fork of a Snakemake that the pilot imports once: 20-30 times less to pay per job."""

    name: str = "zygote"
    server: str = "snakemake_executor_plugin_hpcburst.zygote"

    def is_exact(self, circumstances: Circumstances) -> bool:
        """Not under a precommand, which may change anything, nor with another Python there."""
        return circumstances.shares_software and not circumstances.precommand

    def command(self, call: Call, *, cwd: str, environ: Mapping[str, str], log: str) -> Command:
        """The call, for the warm server."""
        return Command(call.argv, cwd=cwd, environ=environ, log=log, server=self.server)


@dataclass(frozen=True, slots=True)
class Spawn:
    """A new process for each call, as every other executor does it."""

    name: str = "spawn"

    def is_exact(self, circumstances: Circumstances) -> bool:  # noqa: ARG002 - the seam's
        """Always: it is what the others are measured against."""
        return True

    def command(self, call: Call, *, cwd: str, environ: Mapping[str, str], log: str) -> Command:
        """The call as it is."""
        return Command(call.argv, cwd=cwd, environ=environ, log=log)


MODES: Mapping[str, Mode] = {mode.name: mode for mode in (Zygote(), Spawn())}
"""Every mode by name, the fastest first."""


def choose_mode(name: str, circumstances: Circumstances) -> Mode:
    """The mode of that name; for "auto" the fastest that is exact.

    Raises:
        RequestError: A mode was asked for by name and is not exact here.
    """
    if name == AUTO:
        return next(mode for mode in MODES.values() if mode.is_exact(circumstances))
    mode = MODES[name]
    if not mode.is_exact(circumstances):
        raise RequestError(
            f"--hpcburst-mode {name} was asked for",
            "with --precommand, or with software that nodes do not share, jobs would not run as "
            "you asked",
            f"leave it at {AUTO}, or use spawn",
        )
    return mode
