"""What a prefix holds, read from its own records: conda's packages and pip's, file by file."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWN_RECORD = "hpcburst.json"
"""The one file in `conda-meta` that is no package's."""

_COMPILED = (".pyc", ".pyo")
_SITE_PACKAGES = re.compile(r"lib/python3[^/]*/(site-packages/.*)")


@dataclass(frozen=True, slots=True)
class File:
    """One file or link that a package brought.

    Attributes:
        path: Where it is, relative to the prefix; with `..` for what pip put elsewhere.
        sha256: Digest in hex of what it holds; "" if the record does not say.
        size: Bytes; None if the record does not say.
        link: Whether it is a symbolic link.
        in_cache: Where the package cache has it, relative to the package's entry; "" if nowhere.
        original: Digest of the file in the package cache, before paths in it were rewritten.
        rewritten: Whether paths in it may have been rewritten after its digest was taken.
    """

    path: str
    sha256: str = ""
    size: int | None = None
    link: bool = False
    in_cache: str = ""
    original: str = ""
    rewritten: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """One package in a prefix.

    Attributes:
        name: Its name.
        version: Its version.
        build: Its build string; "" for pip's.
        channel: The channel it came from; "pip" for pip's.
        url: Its archive; "" if not known.
        entry: Its folder in the package cache; "" if not known.
        noted: When its record was written, seconds since the epoch by the file server's clock.
        files: What it brought, without byte-compiled Python.
    """

    name: str
    version: str
    build: str = ""
    channel: str = ""
    url: str = ""
    entry: str = ""
    noted: float = 0.0
    files: tuple[File, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


def read_contents(
    prefix: Path, *, moved: bool = False
) -> tuple[tuple[Installed, ...], tuple[Path, ...]]:
    """The packages of a prefix, and the records that cannot be read.

    Args:
        prefix: The prefix.
        moved: Whether it was installed elsewhere, and paths in its files were rewritten since.
    """
    found: list[Installed] = []
    broken: list[Path] = []
    for path in package_records(prefix):
        try:
            found.append(_conda_package(path, moved=moved))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            broken.append(path)
    known = {file.path for package in found for file in package.files}
    return (*found, *_pip_packages(prefix, known)), tuple(broken)


def package_records(prefix: Path) -> list[Path]:
    """The records that conda packages left in a prefix, by name."""
    paths = (prefix / "conda-meta").glob("*.json")
    return sorted(p for p in paths if p.name != OWN_RECORD and not p.name.startswith("."))


def cache_entries(prefix: Path) -> frozenset[str]:
    """Names of the package cache's entries that a prefix was linked from.

    Records run to hundreds of kB each, so they are searched, not parsed.
    """
    names: set[str] = set()
    for path in package_records(prefix):
        names.add(path.stem)
        found = re.findall(rb'"(?:extracted_package_dir|source)":\s*"([^"]+)"', _bytes_of(path))
        names.update(os.path.basename(os.fsdecode(text).rstrip("/")) for text in found)  # noqa: PTH119 - text, no path of ours
    return frozenset(names)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _conda_package(path: Path, *, moved: bool) -> Installed:
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    link = raw.get("link") or {}
    rows = (raw.get("paths_data") or {}).get("paths") or []
    in_python = raw.get("noarch") == "python"
    return Installed(
        name=str(raw["name"]),
        version=str(raw["version"]),
        build=str(raw.get("build") or ""),
        channel=str(raw.get("channel") or ""),
        url=str(raw.get("url") or ""),
        entry=str(raw.get("extracted_package_dir") or link.get("source") or ""),
        noted=path.stat().st_mtime,
        files=tuple(_conda_file(row, in_python, moved=moved) for row in rows if _counts(row)),
    )


def _counts(row: dict[str, Any]) -> bool:
    kind = row.get("path_type", "hardlink")
    return kind not in ("directory", "pyc_file") and not row["_path"].endswith(_COMPILED)


def _conda_file(row: dict[str, Any], in_python: bool, *, moved: bool) -> File:
    path, kind = str(row["_path"]), row.get("path_type", "hardlink")
    original = str(row.get("sha256") or "")
    made_here = kind not in ("hardlink", "softlink")  # an entry point's script, for instance
    return File(
        path=path,
        sha256=str(row.get("sha256_in_prefix") or original),
        size=None if kind == "softlink" else row.get("size_in_bytes"),
        link=kind == "softlink",
        in_cache="" if made_here else _in_cache(path, in_python),
        original=original,
        rewritten=moved and bool(row.get("prefix_placeholder")),
    )


def _in_cache(path: str, in_python: bool) -> str:
    """Packages for any Python are kept without the folder names of one Python."""
    if not in_python:
        return path
    found = _SITE_PACKAGES.fullmatch(path)
    if found:
        return found[1]
    return "python-scripts/" + path.removeprefix("bin/") if path.startswith("bin/") else path


def _pip_packages(prefix: Path, of_conda: Iterable[str]) -> Iterator[Installed]:
    known = set(of_conda)
    for record in sorted(prefix.glob("lib/python3*/site-packages/*.dist-info/RECORD")):
        base = record.parent.parent
        if str(record.relative_to(prefix)) in known:
            continue
        name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
        files = tuple(_pip_files(record, base.relative_to(prefix)))
        mtime = record.stat().st_mtime
        yield Installed(_normal(name), version, channel="pip", noted=mtime, files=files)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip_files(record: Path, base: Path) -> Iterator[File]:
    with record.open(encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            name, digest, size = (*row, "", "", "")[:3]
            if not name or name.endswith((*_COMPILED, ".dist-info/RECORD")):
                continue
            path = os.path.normpath(base / name)
            yield File(
                path=path,
                sha256=_hex(digest),
                size=int(size) if size.isdigit() else None,
                rewritten=True,
            )


def _hex(digest: str) -> str:
    kind, _, text = digest.partition("=")
    if kind != "sha256":
        return ""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
    except ValueError:
        return ""
