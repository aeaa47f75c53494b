"""A conda channel of tiny packages, made in a moment and without anything but the standard library.

Each package holds one program, which says its package's name, and an activate.d script, which sets
what the program says.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import yaml

PLATFORMS = ("linux-64", "linux-aarch64")


def build_tiny_channel(folder: Path, names: Iterable[str]) -> Path:
    """A channel in a folder, with a package of each name."""
    rows = dict(add_package(folder / "noarch", name) for name in names)
    for subdir, packages in (("noarch", rows), *((platform, {}) for platform in PLATFORMS)):
        (folder / subdir).mkdir(exist_ok=True)
        document = {"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}}
        (folder / subdir / "repodata.json").write_text(json.dumps(document))
    return folder


def archive_of(channel: Path, name: str) -> Path:
    """The archive of a package."""
    return channel / "noarch" / f"{name}-1.0-0.tar.bz2"


def add_package(folder: Path, name: str) -> tuple[str, dict[str, object]]:
    """Write a package that holds `bin/<name>` and an activate.d script; its line for repodata."""
    folder.mkdir(exist_ok=True)
    script = f'#!/bin/sh\necho {name} of "$CONDA_PREFIX" says "$SAID_BY_SCRIPT"\n'
    files = {
        f"bin/{name}": script,
        f"etc/conda/activate.d/{name}.sh": f"export SAID_BY_SCRIPT=hello-{name}\n",
    }
    paths = [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "size_in_bytes": len(text),
        }
        for path, text in files.items()
    ]
    index = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "depends": []}
    index |= {"subdir": "noarch", "noarch": "generic"}
    members = {
        **files,
        "info/index.json": json.dumps(index),
        "info/files": "\n".join(files) + "\n",
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
    }
    archive = folder / f"{name}-1.0-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for path, text in members.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text), 0o755 if path.startswith("bin/") else 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    data = archive.read_bytes()
    digests = {
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return archive.name, {**index, **digests, "size": len(data)}


def write_lock(path: Path, channel: Path, name: str, kind: str) -> None:
    """A lock of one package."""
    archive = archive_of(channel, name)
    url, sha256 = archive.as_uri(), hashlib.sha256(archive.read_bytes()).hexdigest()
    platforms = list(PLATFORMS)
    channels = [{"url": channel.as_uri() + "/"}]
    if kind == "rattler":
        document = {
            "version": 6,
            "environments": {
                "default": {
                    "channels": channels,
                    "packages": {platform: [{"conda": url}] for platform in platforms},
                }
            },
            "packages": [{"conda": url, "sha256": sha256}],
        }
    else:
        rows = [
            {
                "name": name,
                "version": "1.0",
                "manager": "conda",
                "platform": platform,
                "dependencies": {},
                "url": url,
                "hash": {"sha256": sha256},
                "category": "main",
                "optional": False,
            }
            for platform in platforms
        ]
        metadata = {"content_hash": {}, "channels": channels, "platforms": platforms, "sources": []}
        document = {"version": 1, "metadata": metadata, "package": rows}
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def write_pin(stem: Path, channel: Path, name: str) -> None:
    """A pin file that names one archive."""
    for platform in PLATFORMS:
        stem.with_suffix(f".{platform}.pin.txt").write_text(
            f"@EXPLICIT\n{archive_of(channel, name).as_uri()}\n"
        )
