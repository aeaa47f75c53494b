"""The builder that is always there: rattler, in its own process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcburst.envs.building.builders import Linked, Workshop
from hpcburst.envs.building.room import raise_if_no_room
from hpcburst.envs.building.solve import explain, read_packages
from hpcburst.envs.child.process import RattlerFailed
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from pathlib import Path

    from hpcburst.envs.building.build import Plan
    from hpcburst.envs.building.solve import Package
    from hpcburst.envs.specs.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class RattlerBuilder:
    """Solves and links by rattler; needs no program on PATH.

    Args:
        workshop: What it works with.
    """

    workshop: Workshop
    name: str = "rattler"
    fetches: bool = False

    def lock(self, spec: EnvSpec, lock: Path, source: str) -> tuple[Package, ...]:
        """See `Builder.lock`."""
        shop = self.workshop
        try:
            answer = shop.rattler.call(
                "solve",
                lock=str(lock),
                repodata=str(shop.repodata),
                channels=spec.channels,
                conda=spec.conda,
                offline=shop.offline,
            )
        except RattlerFailed as failed:
            raise_if_no_room(failed.text)
            raise explain(failed.kind, failed.text, spec, source) from None
        return read_packages(answer)

    def link(self, plan: Plan) -> Linked:
        """See `Builder.link`; files are written for the final prefix at once."""
        try:
            answer = self.workshop.rattler.call(
                "install",
                lock=str(plan.lock),
                stage=str(plan.stage),
                prefix=str(plan.prefix),
                cache=[str(folder) for folder in plan.cache],
                archives=dict(plan.archives),
                offline=self.workshop.offline,
            )
        except RattlerFailed as failed:
            raise_if_no_room(failed.text)
            raise EnvError(
                f"The env of {plan.source} was to be built in {plan.prefix}",
                failed.text,
                f"run it again; if it fails again, remove {plan.cache[0]} and {plan.lock}",
            ) from None
        return Linked(read_packages(answer), plan.prefix)
