"""The dependencies of a pixi manifest, one by one, as conda and pip write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hpcburst.envs.specs.formats.source import shown

if TYPE_CHECKING:
    from hpcburst.envs.specs.formats.source import Source

_CONDA_FIELDS = {
    "version": "version", "build": "build", "build-number": "build_number", "file-name": "fn",
    "subdir": "subdir", "md5": "md5", "sha256": "sha256", "license": "license",
}  # fmt: skip
"""Fields of a conda dependency, and their names in the brackets of a match spec."""

_ELSEWHERE = ("path", "git", "editable")
"""Fields that name content which no channel and no index has."""


def conda_entry(source: Source, name: str, value: object) -> str:
    """`NAME = VALUE` of `[dependencies]` as a line of an `environment.yml`, checked.

    Raises:
        EnvError: It names a folder or a repository, or a field that is not known.
    """
    if not isinstance(value, dict):
        versions = source.text(value, f"the dependency {shown(name)}").strip()
        return source.dependency(name if versions == "*" else f"{name} {versions}")
    _check_fields(source, name, value, {*_CONDA_FIELDS, "channel", "url"})
    fields = {key: source.text(item, f"`{key}` of {shown(name)}") for key, item in value.items()}
    if "url" in fields:
        return _archive_entry(source, name, fields)
    channel = fields.pop("channel", "")
    brackets = ", ".join(
        f"{_CONDA_FIELDS[key]}='{item}'" for key, item in fields.items() if item != "*"
    )
    text = f"{name}[{brackets}]" if brackets else name
    return source.dependency(f"{channel}::{text}" if channel else text)


def pip_entry(source: Source, name: str, value: object) -> str:
    """`NAME = VALUE` of `[pypi-dependencies]` as a requirement, checked.

    Raises:
        EnvError: It names a folder or a repository, or a field that is not known.
    """
    fields = value if isinstance(value, dict) else {"version": value}
    if "index" in fields:
        raise source.refusal(
            f"the pip package {shown(name)} has an index of its own, which uv cannot be told",
            "run `pixi lock` and keep pixi.lock beside the manifest",
        )
    _check_fields(source, name, fields, {"version", "extras", "url", "env-markers"})
    extras = [
        source.text(extra, "`extras`") for extra in source.entries(fields.get("extras"), "`extras`")
    ]
    texts = {
        key: source.text(fields.get(key), f"`{key}` of {shown(name)}", "").strip()
        for key in ("version", "url", "env-markers")
    }
    line = f"{name}[{','.join(extras)}]" if extras else name
    if texts["url"]:
        line += f" @ {texts['url']}"
    elif texts["version"] not in ("", "*"):
        line += _pip_versions(texts["version"])
    return source.requirement(f"{line} ; {texts['env-markers']}" if texts["env-markers"] else line)


def _pip_versions(text: str) -> str:
    """Versions as pip writes them: pixi lets a bare one stand for `==`."""
    return f"=={text}" if re.match(r"[0-9]", text) else text


def _archive_entry(source: Source, name: str, fields: dict[str, str]) -> str:
    source.dependency(fields["url"])  # it must be an archive; its digests go along in brackets
    known = {"url": source.mirrored_url(fields["url"])}
    known |= {key: fields[key] for key in ("sha256", "md5") if key in fields}
    return source.dependency(f"{name}[{', '.join(f'{k}={v!r}' for k, v in known.items())}]")


def _check_fields(source: Source, name: str, fields: dict[str, Any], known: set[str]) -> None:
    elsewhere = [field for field in _ELSEWHERE if field in fields]
    if elsewhere:
        raise source.refusal(
            f"the dependency {shown(name)} is given by `{elsewhere[0]}`, and what is there can "
            "change without this file",
            "publish it as a package, or leave it out of this environment",
        )
    unknown = sorted(set(fields) - known)
    if unknown:
        raise source.refusal(
            f"the dependency {shown(name)} has the unknown {', '.join(map(shown, unknown))}",
            f"the known fields are {', '.join(sorted(known))}",
        )
