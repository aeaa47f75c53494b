"""`environment.yml`: channels, dependencies with a pip section, variables, and modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcburst.envs.specs.formats.source import shown
from hpcburst.envs.specs.spec import EnvSpec
from hpcburst.errors import RequestError
from hpcburst.tasks import read_modules

if TYPE_CHECKING:
    from hpcburst.envs.specs.formats.source import Source

KNOWN_KEYS = (
    "name", "channels", "dependencies", "variables", "modules", "prefix", "category", "platforms",
)  # fmt: skip


def read(source: Source, text: str) -> EnvSpec:
    """The spec in the text of an `environment.yml`.

    Raises:
        EnvError: An entry is not what it should be.
    """
    source.only_one("an environment.yml")
    raw = source.yaml(text)
    unknown = sorted(name for name in raw if name not in KNOWN_KEYS)
    if unknown:
        raise source.refusal(
            f"it has {', '.join(shown(name) for name in unknown[:5])} at the top, which "
            "means nothing there",
            f"the known names are {', '.join(KNOWN_KEYS)}",
        )
    modules = _modules(source, raw.get("modules"))
    conda, pip = _dependencies(source, raw.get("dependencies"), modules)
    channels = [source.channel(name) for name in source.entries(raw.get("channels"), "`channels`")]
    return EnvSpec(
        channels=source.searched(channels, conda) if conda else (),
        conda=conda,
        pip=pip,
        variables=source.variables(raw.get("variables")),
        modules=modules,
    )


def _dependencies(
    source: Source, value: object, modules: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    entries = source.entries(value, "`dependencies`")
    if not entries and not modules:
        raise source.refusal(
            "it lists no dependencies",
            "write `dependencies:` and below it one package a line, such as `- python 3.12.*`",
        )
    conda: list[str] = []
    pip: list[str] = []
    for entry in entries:
        if isinstance(entry, dict) and list(entry) == ["pip"]:
            pip.extend(source.requirement(line) for line in source.entries(entry["pip"], "`pip`"))
        else:
            conda.append(source.dependency(entry))
    return tuple(conda), tuple(pip)


def _modules(source: Source, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    try:
        return read_modules(value)
    except RequestError as error:
        raise source.refusal(
            f"`modules` cannot be read: {error.found}",
            "write one module a line, such as `- cuda/12.4`",
        ) from error
