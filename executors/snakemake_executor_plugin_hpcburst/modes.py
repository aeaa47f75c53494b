"""How a job of Snakemake's runs on a pilot: one small class for each way, the fastest first.

A mode is *exact* when a rule cannot tell it from Snakemake's own way to run it. `auto` takes for
each job the first that is. A further mode is one more class in `MODES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hpcburst.errors import RequestError
from hpcburst.tasks import Command
from snakemake_executor_plugin_hpcburst import direct
from snakemake_executor_plugin_hpcburst.commands import Call

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides whether a mode is exact at all. One for a whole workflow.

    Attributes:
        precommand: A `--precommand` runs before each nested call.
        shares_software: Nodes use the driver's own Python and envs.
        shares_files: Nodes and driver see the same inputs and outputs.
        known_release: Of this Snakemake we know how its local executor runs a shell command.
    """

    precommand: bool = False
    shares_software: bool = True
    shares_files: bool = True
    known_release: bool = True


@dataclass(frozen=True, slots=True)
class Errand:
    """One job on its way to a pilot, as a mode sees it.

    Attributes:
        job: Snakemake's job or group job.
        call: Makes the nested call that would run it.
        folder: Where the workflow was started: a nested call begins there.
        environ: The environment of a nested call.
        log: File that its output goes to.
        note: Tells who asked for it (`--verbose`) why the job runs as it does.
    """

    job: Any
    call: Callable[[], Call]
    folder: str
    environ: Mapping[str, str]
    log: str
    note: Callable[[str], object]


class Mode(Protocol):
    """One way to run a job."""

    @property
    def name(self) -> str:
        """What `--hpcburst-mode` calls it."""
        ...

    @property
    def is_nested(self) -> bool:
        """Whether a nested Snakemake prepares the job; else the driver must, before it is sent."""
        ...

    def is_exact(self, circumstances: Circumstances) -> bool:
        """Whether a rule cannot tell it from Snakemake's own way, for the jobs it takes."""
        ...

    def command(self, errand: Errand) -> Command | None:
        """What to send to a pilot; None leaves the job to the next mode."""
        ...


@dataclass(frozen=True, slots=True)
class Direct:
    """The shell command of a plain rule, without any Snakemake around it."""

    name: str = "direct"
    is_nested: bool = False

    def is_exact(self, circumstances: Circumstances) -> bool:
        """Where the local executor is known, and the driver can stand in for a nested call."""
        shared = circumstances.shares_software and circumstances.shares_files
        return circumstances.known_release and shared and not circumstances.precommand

    def command(self, errand: Errand) -> Command | None:
        """The rule's shell and its command, in the folder and with the variables it expects."""
        reason = direct.obstacle(errand.job)
        argv = None if reason else direct.command_line(errand.job)
        if argv is None:
            errand.note(f"{errand.job.name} runs in a nested Snakemake: {reason or direct.UNFIT}.")
            return None
        environ = direct.variables(errand.job, errand.environ)
        return Command(argv, cwd=os.getcwd(), environ=environ, log=errand.log)  # noqa: PTH109 - text


@dataclass(frozen=True, slots=True)
class Zygote:
    """A fork of a Snakemake that the pilot imports once: 20-30 times less to pay per job."""

    name: str = "zygote"
    is_nested: bool = True
    server: str = "snakemake_executor_plugin_hpcburst.zygote"

    def is_exact(self, circumstances: Circumstances) -> bool:
        """Not under a precommand, which may change anything, nor with another Python there."""
        return circumstances.shares_software and not circumstances.precommand

    def command(self, errand: Errand) -> Command:
        """The call, for the warm server."""
        return Command(
            errand.call().argv,
            cwd=errand.folder,
            environ=errand.environ,
            log=errand.log,
            server=self.server,
        )


@dataclass(frozen=True, slots=True)
class Spawn:
    """A new process for each call, as every other executor does it."""

    name: str = "spawn"
    is_nested: bool = True

    def is_exact(self, circumstances: Circumstances) -> bool:  # noqa: ARG002 - the seam's
        """Always: it is what the others are measured against."""
        return True

    def command(self, errand: Errand) -> Command:
        """The call as it is."""
        return Command(
            errand.call().argv, cwd=errand.folder, environ=errand.environ, log=errand.log
        )


MODES: Mapping[str, Mode] = {mode.name: mode for mode in (Direct(), Zygote(), Spawn())}
"""Every mode by name, the fastest first."""


def choose_modes(name: str, circumstances: Circumstances) -> tuple[Mode, ...]:
    """The modes to try for each job, in order; the last takes every job.

    Args:
        name: The fastest to try, or "auto" for the fastest that is exact here.
        circumstances: What decides whether a mode is exact.

    Raises:
        RequestError: A mode was asked for by name and is not exact here.
    """
    exact = tuple(mode for mode in MODES.values() if mode.is_exact(circumstances))
    if name == AUTO:
        return exact
    mode = MODES[name]
    if mode not in exact:
        raise RequestError(
            f"--hpcburst-mode {name} was asked for",
            "with --precommand, or with software or files that nodes do not share, jobs would not "
            "run as you asked",
            f"leave it at {AUTO}, or use spawn",
        )
    return exact[exact.index(mode) :]
