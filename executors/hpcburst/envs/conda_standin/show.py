"""What is in an env, in the forms that `conda list` and `conda env export` print it in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hpcburst.errors import EnvError

_FIELDS = ("name", "version", "build", "channel")
_DIST_INFO = re.compile(r"(.+)-([^-]+)\.dist-info")


def as_environment_file(prefix: Path) -> str:
    """An env as an environment file: its conda packages, and what pip put beside them.

    Raises:
        EnvError: There is no env.
    """
    rows = _packages(prefix)
    channels = dict.fromkeys(str(row["channel"]) for row in rows)
    lines: list[Any] = [f"{row['name']}={row['version']}={row['build']}" for row in rows]
    if pip := _pip_packages(prefix, rows):
        lines.append({"pip": pip})
    document = {"channels": list(channels), "dependencies": lines}
    return json.dumps(document, indent=1) + "\n"  # JSON is YAML


def as_explicit(prefix: Path, digest: str = "") -> str:
    """The URLs of an env's archives; each with that digest ("md5", "sha256") when one is named.

    Raises:
        EnvError: There is no env, or nothing is known of its archives.
    """
    rows = _packages(prefix)
    if not rows:
        raise EnvError(
            f"The packages of {prefix} were asked for", "there are none", "check the prefix"
        )
    marks = [f"#{row[digest]}" if row.get(digest) else "" for row in rows]
    urls = [f"{row['url']}{mark}" for row, mark in zip(rows, marks, strict=True)]
    return "\n".join(["@EXPLICIT", *urls]) + "\n"


def as_table(prefix: Path, as_json: bool) -> str:
    """The packages of an env, one a line.

    Raises:
        EnvError: There is no env.
    """
    rows = [{field: str(row[field]) for field in _FIELDS} for row in _packages(prefix)]
    if as_json:
        return json.dumps(rows, indent=1) + "\n"
    lines = ["{name:<24} {version:<14} {build:<18} {channel}".format(**row) for row in rows]
    return "\n".join([f"# packages in environment at {prefix}:", *lines]) + "\n"


def _packages(prefix: Path) -> list[dict[str, Any]]:
    """The records of an env's conda packages; none in one that holds only a Python."""
    from hpcburst.envs.specs.places import is_prefix

    if not is_prefix(prefix):
        raise EnvError(f"The env {prefix} was asked for", "there is no env", "check the prefix")
    rows = [json.loads(path.read_text()) for path in sorted((prefix / "conda-meta").glob("*.json"))]
    return [row for row in rows if "url" in row and "build" in row]


def _pip_packages(prefix: Path, rows: list[dict[str, Any]]) -> list[str]:
    """What lies in site-packages and belongs to no conda package, as `name==version`."""
    owned = {str(Path(file).parent) for row in rows for file in row.get("files", ())}
    folders = sorted(prefix.glob("lib/python3*/site-packages/*.dist-info"))
    foreign = [path.name for path in folders if str(path.relative_to(prefix)) not in owned]
    found = filter(None, map(_DIST_INFO.fullmatch, foreign))
    return [f"{match[1]}=={match[2]}" for match in found]
