"""The standard tables of a `pyproject.toml` that pixi reads beside its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcburst.envs.specs.formats.source import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcburst.envs.specs.formats.pixi_features import Manifest


def python_requirements(manifest: Manifest) -> tuple[str, tuple[str, ...]]:
    """The Python that a project wants, as a conda dependency, and its pip requirements.

    The Python is "" if the project does not say. The requirements are the project's own, and those
    of its groups that are features of the environment.

    Raises:
        EnvError: A table is not what it should be.
    """
    source = manifest.source
    project = source.mapping(manifest.python.get("project"), "`[project]`")
    extras = source.mapping(project.get("optional-dependencies"), "`optional-dependencies`")
    groups = source.mapping(manifest.python.get("dependency-groups"), "`dependency-groups`")
    names, bare = manifest.named()
    own = {} if bare else project
    rows = source.entries(own.get("dependencies"), "`dependencies`")
    for name in names:
        rows = [
            *rows,
            *source.entries(extras.get(name), f"`{name}`"),
            *_group(manifest, groups, name),
        ]
    wanted = source.text(own.get("requires-python"), "`requires-python`", "").replace(" ", "")
    return (f"python {wanted}" if wanted else ""), tuple(source.requirement(row) for row in rows)


def _group(
    manifest: Manifest, groups: dict[str, Any], name: str, within: Sequence[str] = ()
) -> list[object]:
    """The entries of a dependency group, with the groups it includes."""
    source = manifest.source
    if name in within:
        raise source.refusal(f"the group {shown(name)} includes itself", "mend dependency-groups")
    found: list[object] = []
    for row in source.entries(groups.get(name), f"the group {shown(name)}"):
        if isinstance(row, dict) and list(row) == ["include-group"]:
            inner = source.text(row["include-group"], "`include-group`")
            found += _group(manifest, groups, inner, [*within, name])
        else:
            found.append(row)
    return found
