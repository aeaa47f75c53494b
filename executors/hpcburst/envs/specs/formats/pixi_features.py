"""What one environment of a pixi manifest is made of: its features, for one platform, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcburst.envs.specs.formats.source import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hpcburst.envs.specs.formats.source import Source

DEFAULT = "default"
"""The environment, and the feature, that every manifest has."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A pixi manifest, still as its tables.

    Attributes:
        source: The file.
        pixi: What `pixi.toml` holds, or `[tool.pixi]` of a `pyproject.toml`.
        python: All of the `pyproject.toml`; empty for a `pixi.toml`.
    """

    source: Source
    pixi: dict[str, Any]
    python: dict[str, Any]

    @property
    def workspace(self) -> dict[str, Any]:
        """`[workspace]`, which used to be called `[project]`."""
        named = self.pixi.get("workspace", self.pixi.get("project"))
        return self.source.mapping(named, "`[workspace]`")

    def features(self) -> list[dict[str, Any]]:
        """The features of the wanted environment, the most important first, `default` last.

        Raises:
            EnvError: There is no such environment or feature.
        """
        names, bare = self.named()
        found = [self._feature(name) for name in names]
        return found if bare else [*found, self._layered(self.pixi)]

    def named(self) -> tuple[tuple[str, ...], bool]:
        """Names of the features beside `default`, and whether that one is left out."""
        source = self.source
        environments = source.mapping(self.pixi.get("environments"), "`[environments]`")
        wanted = source.environment or DEFAULT
        if wanted not in environments:
            if wanted == DEFAULT:
                return (), False
            there = ", ".join(dict.fromkeys([DEFAULT, *environments]))
            raise source.refusal(
                f"it has no environment {wanted!r}; the environments in it are {there}",
                "name one of those after `#`",
            )
        value = environments[wanted]
        table = value if isinstance(value, dict) else {"features": value}
        rows = source.entries(table.get("features"), f"`features` of {shown(wanted)}")
        names = tuple(source.text(name, "a feature") for name in rows)
        return names, table.get("no-default-feature") is True

    def _feature(self, name: str) -> dict[str, Any]:
        features = self.source.mapping(self.pixi.get("feature"), "`[feature]`")
        if name in features:
            return self._layered(self.source.mapping(features[name], f"the feature {shown(name)}"))
        if name in self._python_groups():
            return {}
        raise self.source.refusal(
            f"it has no feature {shown(name)}", f"write a table [feature.{name[:40]}]"
        )

    def _python_groups(self) -> set[str]:
        project = self.source.mapping(self.python.get("project"), "`[project]`")
        extras = self.source.mapping(
            project.get("optional-dependencies"), "`optional-dependencies`"
        )
        groups = self.source.mapping(self.python.get("dependency-groups"), "`dependency-groups`")
        return {*extras, *groups}

    def _layered(self, feature: dict[str, Any]) -> dict[str, Any]:
        """A feature with what its `target` tables say of this platform put over it."""
        merged = dict(feature)
        targets = self.source.mapping(feature.get("target"), "`[target]`")
        for name in _selectors(self.source.platform):
            layer = self.source.mapping(targets.get(name), f"`[target.{name}]`")
            for section, value in layer.items():
                merged[section] = self._over(section, merged.get(section), value)
        return merged

    def _over(self, section: str, below: object, above: object) -> object:
        what = f"`[{section}]`"
        if not isinstance(above, dict):
            return above
        tables = dict(self.source.mapping(below, what))
        for name, value in above.items():
            nested = section == "activation" and isinstance(value, dict)
            tables[name] = (
                {**self.source.mapping(tables.get(name), what), **value} if nested else value
            )
        return tables


def tables(manifest: Manifest, section: str) -> Iterator[tuple[str, Any]]:
    """The entries of one section in all features; a name comes once for each that has it."""
    for feature in manifest.features():
        yield from manifest.source.mapping(feature.get(section), f"`[{section}]`").items()


def _selectors(platform: str) -> tuple[str, ...]:
    """The targets that a platform answers to, the most particular last."""
    system = platform.partition("-")[0]
    family = () if system == "win" else ("unix",)
    return (*family, system, platform)
