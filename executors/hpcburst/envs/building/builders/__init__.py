"""Who chooses packages and links them: rattler unless asked otherwise, or a conda tool on PATH.

All builders write the same lock and fill a stage with the same files; the key of an env, its place
and its record do not depend on who built it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpcburst.envs.child.process import Progress, RattlerProcess, no_progress
from hpcburst.envs.conda_standin import without_standin
from hpcburst.errors import EnvError
from hpcburst.policy.model import BUILDERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpcburst.envs.building.build import Plan
    from hpcburst.envs.building.solve import Package
    from hpcburst.envs.specs.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every builder works with.

    Attributes:
        rattler: The process that reads and writes locks.
        repodata: Folder that keeps what channels list.
        incoming: Folder for archives that are being fetched.
        offline: Whether nothing may be fetched.
        progress: Told `(what, done, total)` while something takes time.
    """

    rattler: RattlerProcess
    repodata: Path
    incoming: Path
    offline: bool = False
    progress: Progress = no_progress


@dataclass(frozen=True, slots=True)
class Linked:
    """What a builder put into a stage.

    Attributes:
        packages: The conda packages.
        written_for: The prefix that the paths inside its files speak of.
    """

    packages: tuple[Package, ...]
    written_for: Path


class Builder(Protocol):
    """One way to get from a spec to a lock, and from a lock to files."""

    @property
    def name(self) -> str:
        """One of `BUILDERS`."""

    @property
    def workshop(self) -> Workshop:
        """What it works with."""

    @property
    def fetches(self) -> bool:
        """Whether it brings its own archives, so that nobody has to fetch them for it."""

    def lock(self, spec: EnvSpec, lock: Path, source: str) -> tuple[Package, ...]:
        """Choose the packages of a spec and write them to the file `lock`, in rattler's format.

        Args:
            spec: What to solve; it has no exact archives.
            lock: The file to write.
            source: What the spec is called in messages.

        Returns:
            The packages.

        Raises:
            EnvError: No solution, or a channel that does not answer.
            OSError: No room.
        """

    def link(self, plan: Plan) -> Linked:
        """Put the packages of `plan.lock` into `plan.stage`, which is there and empty.

        Raises:
            EnvError: They cannot be had or linked.
            OSError: No room.
        """


def builder_for(name: str, workshop: Workshop) -> Builder:
    """The builder of this name.

    Raises:
        EnvError: There is none, or its command is not on PATH.
    """
    from hpcburst.envs.building.builders.conda import CondaBuilder
    from hpcburst.envs.building.builders.pixi import PixiBuilder
    from hpcburst.envs.building.builders.rattler import RattlerBuilder

    makers: dict[str, Callable[[], Builder]] = {
        "rattler": lambda: RattlerBuilder(workshop),
        "conda": lambda: CondaBuilder.on_path("conda", workshop),
        "mamba": lambda: CondaBuilder.on_path("mamba", workshop),
        "micromamba": lambda: CondaBuilder.on_path("micromamba", workshop),
        "pixi": lambda: PixiBuilder(find_tool("pixi"), workshop),
    }
    if name not in makers:
        raise EnvError(
            f"Envs were to be built by {name!r}",
            "there is no builder of that name",
            f"the builders are {', '.join(BUILDERS)}",
        )
    return makers[name]()


def find_tool(name: str) -> Path:
    """The path of a tool on PATH; a stand-in for conda is none.

    Raises:
        EnvError: It is not there.
    """
    path = without_standin(os.environ).get("PATH", os.defpath)
    found = shutil.which(name, path=path)
    if found is None:
        raise EnvError(
            f"Envs were to be built by {name}",
            f"no program `{name}` is in any folder of PATH ({path})",
            f"load or install {name}, or let rattler build, which needs no program "
            "(`--with rattler`, config `hpcburst.envs.builder`)",
        )
    return Path(found).absolute()
