"""The lock of rattler and pixi (`pixi.lock`), versions 5 to 7.

A lock has environments; each has, by platform, references to packages, which are described once
for all of them. Version 5 tells kinds of packages apart by `kind` and gives `url` or `path`;
later ones write `conda: LOCATION` or `pypi: LOCATION`. From version 7 on, platforms may have names
of their own (`platforms`, with the `subdir` each is for).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcburst.envs.specs.entries import parts_of_archive, same_name
from hpcburst.envs.specs.formats.archives import read_archive, read_requirement
from hpcburst.envs.specs.formats.source import shown
from hpcburst.envs.specs.spec import Archive, EnvSpec

if TYPE_CHECKING:
    from hpcburst.envs.specs.formats.source import Source

FILE_NAME = "pixi.lock"
DEFAULT = "default"
"""The environment that a lock has when nobody named one."""

_VERSIONS = ("5", "6", "7")


@dataclass(frozen=True, slots=True)
class Locked:
    """What a lock holds for one environment and platform.

    Attributes:
        archives: The conda packages.
        pip: The pip packages, as exact requirements.
        versions: Version of each conda package by name.
        provided: Names in pip's world of all packages, conda's (`torch` for `pytorch`) and pip's.
    """

    archives: tuple[Archive, ...]
    pip: tuple[str, ...]
    versions: dict[str, str]
    provided: frozenset[str]


class _Row(NamedTuple):
    """One package, described: conda's or pip's, and its URL or path."""

    kind: str
    location: str
    fields: dict[str, Any]


def is_rattler_lock(text: str) -> bool:
    """Whether a text looks like one."""
    return bool(re.search(r"(?m)^version:\s*\d", text) and re.search(r"(?m)^environments:", text))


def read(source: Source, text: str) -> EnvSpec:
    """The spec in a lock, for the source's platform and environment.

    Raises:
        EnvError: The platform or environment is not in it, or a package is not exact.
    """
    found = read_locked(source, text)
    return EnvSpec(explicit=found.archives, pip=found.pip)


def read_locked(source: Source, text: str) -> Locked:
    """As `read`, with the names of the packages."""
    raw = source.yaml(text)
    version = source.text(raw.get("version"), "`version`", "")
    if version not in _VERSIONS:
        raise source.refusal(
            f"it is version {version[:20]!r} of the format; versions 5 to 7 can be read",
            "run `pixi lock` to write it in the format of today",
        )
    described = _described(source, raw)
    rows = [_row(source, described, reference) for reference in _chosen(source, raw)]
    conda = [row for row in rows if row.kind == "conda"]
    pip = [row for row in rows if row.kind == "pypi"]
    versions = dict(_name_and_version(source, row) for row in conda)
    provided = {_name_and_version(source, row)[0] for row in rows}
    return Locked(
        tuple(dict.fromkeys(_archive(source, row) for row in conda)),
        tuple(dict.fromkeys(_requirement(source, row) for row in pip)),
        versions,
        frozenset(provided.union(*(_purls(source, row.fields) for row in conda))),
    )


def _row(source: Source, described: dict[tuple[str, str], dict[str, Any]], reference: Any) -> _Row:
    kind, location = _location(source, reference)
    if (kind, location) not in described:
        raise source.refusal(
            f"{shown(location)} is named in it and not described", "run `pixi lock`"
        )
    return _Row(kind, location, described[kind, location])


def _chosen(source: Source, raw: dict[str, Any]) -> list[Any]:
    """The references of the environment and platform that are wanted."""
    environments = source.mapping(raw.get("environments"), "`environments`")
    name = source.environment or DEFAULT
    if name not in environments:
        there = ", ".join(map(str, environments)) or "none"
        raise source.refusal(
            f"it has no environment {name!r}; the environments in it are {there}",
            "name one of those after `#`",
        )
    environment = source.mapping(environments[name], f"the environment {name!r}")
    packages = source.mapping(environment.get("packages"), "`packages`")
    key = _platform_key(source, raw, packages)
    return source.entries(packages[key], f"`packages` of {key}")


def _platform_key(source: Source, raw: dict[str, Any], packages: dict[str, Any]) -> str:
    if source.platform in packages:
        return source.platform
    rows = [source.mapping(row, "a platform") for row in _platforms(source, raw)]
    subdirs = {
        source.text(row.get("name"), "`name`"): source.text(row.get("subdir"), "`subdir`", "")
        for row in rows
    }
    fitting = [key for key in packages if subdirs.get(key) == source.platform]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(fitting or packages) or "none"
    raise source.refusal(
        f"it holds several platforms that are {source.platform}: {there}"
        if fitting
        else f"it holds no packages for {source.platform}; the platforms in it are {there}",
        f"add {source.platform} to the platforms of the project and run `pixi lock`",
    )


def _platforms(source: Source, raw: dict[str, Any]) -> list[Any]:
    return source.entries(raw.get("platforms"), "`platforms`")


def _described(source: Source, raw: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    rows = [
        source.mapping(row, "a package")
        for row in source.entries(raw.get("packages"), "`packages`")
    ]
    return {_location(source, row): row for row in rows if "source" not in row}


def _location(source: Source, row: object) -> tuple[str, str]:
    """Whether a package is conda's or pip's, and its URL or path."""
    fields = source.mapping(row, "a package")
    if "source" in fields:
        raise _not_built(source, fields["source"])
    for kind in ("conda", "pypi"):
        if kind in fields:
            return kind, source.text(fields[kind], f"`{kind}`")
    kind = source.text(fields.get("kind"), "`kind`", "")
    if kind not in ("conda", "pypi"):
        raise source.refusal(
            f"a package in it is neither conda's nor pip's: {shown(row)}", "run `pixi lock`"
        )
    return kind, source.text(fields.get("url", fields.get("path")), "`url`")


def _archive(source: Source, row: _Row) -> Archive:
    _, location, fields = row
    if not location.endswith((".conda", ".tar.bz2")):
        raise _not_built(source, fields.get("name", location))
    needed = source.entries(fields.get("depends"), "`depends`")
    size = source.text(fields.get("size"), "`size`", "0")
    if not re.fullmatch(r"[0-9]{1,15}", size):
        raise source.refusal(f"{shown(size)} is not a size in bytes", "run `pixi lock`")
    return read_archive(
        source,
        location,
        sha256=source.text(fields.get("sha256"), "`sha256`", ""),
        md5=source.text(fields.get("md5"), "`md5`", ""),
        depends=tuple(source.text(text, "`depends`") for text in needed),
        size=int(size),
    )


def _requirement(source: Source, row: _Row) -> str:
    name = source.text(row.fields.get("name"), "`name`")
    digest = source.text(row.fields.get("sha256"), "`sha256`", "")
    return read_requirement(source, name, row.location, sha256=digest)


def _name_and_version(source: Source, row: _Row) -> tuple[str, str]:
    said = parts_of_archive(row.location) or ("", "", "")
    name = source.text(row.fields.get("name"), "`name`", said[0])
    return same_name(name), source.text(row.fields.get("version"), "`version`", said[1])


def _purls(source: Source, row: dict[str, Any]) -> set[str]:
    """Names in pip's world of a conda package, such as `torch` for `pytorch`."""
    texts = [source.text(text, "`purls`") for text in source.entries(row.get("purls"), "`purls`")]
    found = (re.match(r"pkg:pypi/([^@?#]+)", text) for text in texts)
    return {same_name(match[1]) for match in found if match}


def _not_built(source: Source, name: object) -> Exception:
    return source.refusal(
        f"{shown(name)} in it is built from source, which pixi does and hpcburst does not",
        "publish it as a package, or leave it out of this environment",
    )
