"""`conda-lock.yml` (version 1): a flat list of packages for several platforms and categories."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hpcburst.envs.specs.formats.archives import read_archive, read_requirement
from hpcburst.envs.specs.spec import Archive, EnvSpec

if TYPE_CHECKING:
    from hpcburst.envs.specs.formats.source import Source

MAIN = "main"
"""The category of what an env always has; others, such as `dev`, are added when asked for."""


def is_conda_lock(text: str) -> bool:
    """Whether a text looks like one."""
    return bool(re.search(r"(?m)^package:", text) and re.search(r"(?m)^metadata:", text))


def read(source: Source, text: str) -> EnvSpec:
    """The spec in a conda-lock file, for the source's platform.

    `source.environment` names a category to take beside `main`.

    Raises:
        EnvError: The platform or category is not in it, or a package is not exact.
    """
    raw = source.yaml(text)
    version = source.text(raw.get("version"), "`version`", "1")
    if version != "1":
        raise source.refusal(
            f"it is version {version[:20]!r} of the format; version 1 can be read",
            "write it again with conda-lock 1 to 4",
        )
    rows = [
        source.mapping(row, "a package") for row in source.entries(raw.get("package"), "`package`")
    ]
    rows = _for_platform(source, rows)
    rows = _for_category(source, rows)
    kinds: dict[str, list[dict[str, Any]]] = {"conda": [], "pip": []}
    for row in rows:
        kinds[_manager(source, row)].append(row)
    archives = tuple(dict.fromkeys(_archive(source, row) for row in kinds["conda"]))
    pip = tuple(dict.fromkeys(_requirement(source, row) for row in kinds["pip"]))
    return EnvSpec(explicit=archives, pip=pip)


def _for_platform(source: Source, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    platforms = [source.text(row.get("platform"), "`platform`", "") for row in rows]
    if source.platform not in platforms:
        there = ", ".join(sorted(set(platforms))) or "none"
        raise source.refusal(
            f"it holds no packages for {source.platform}; the platforms in it are {there}",
            f"run `conda-lock lock --platform {source.platform}`",
        )
    return [row for row, name in zip(rows, platforms, strict=True) if name == source.platform]


def _for_category(source: Source, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    categories = [source.text(row.get("category"), "`category`", MAIN) for row in rows]
    wanted = {MAIN, source.environment or MAIN}
    if not wanted <= {*categories, MAIN}:
        there = ", ".join(sorted(set(categories)))
        raise source.refusal(
            f"it has no category {source.environment!r}; the categories in it are {there}",
            "name one of those after `#`, or none",
        )
    return [row for row, name in zip(rows, categories, strict=True) if name in wanted]


def _manager(source: Source, row: dict[str, Any]) -> str:
    manager = source.text(row.get("manager"), "`manager`", "conda")
    if manager not in ("conda", "pip"):
        raise source.refusal(
            f"a package has the manager {manager[:40]!r}", "the known managers are conda and pip"
        )
    return manager


def _archive(source: Source, row: dict[str, Any]) -> Archive:
    digests = source.mapping(row.get("hash"), "`hash`")
    needed = source.mapping(row.get("dependencies"), "`dependencies`")
    return read_archive(
        source,
        source.text(row.get("url"), "`url`"),
        sha256=source.text(digests.get("sha256"), "`sha256`", ""),
        md5=source.text(digests.get("md5"), "`md5`", ""),
        depends=tuple(
            f"{name} {source.text(versions, name, '')}".strip() for name, versions in needed.items()
        ),
    )


def _requirement(source: Source, row: dict[str, Any]) -> str:
    digests = source.mapping(row.get("hash"), "`hash`")
    return read_requirement(
        source,
        source.text(row.get("name"), "`name`"),
        source.text(row.get("url"), "`url`"),
        sha256=source.text(digests.get("sha256"), "`sha256`", ""),
    )
