"""Rattler's records: in locks, and in `conda-meta`.

Imported only by the child process in which rattler works.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.child.cache import entry_of, is_extracted
from hpcburst.envs.child.refusals import Offline, few

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NOWHERE = Path("/not-fetched")
"""Stands for files that are not there."""


def write_lock(path: Path, records: Sequence[Any], channels: Sequence[str], platform: str) -> None:
    """Write records as a lock of rattler's."""
    from rattler import Channel, LockChannel, LockFile, LockPlatform

    machine = LockPlatform(platform)
    lock = LockFile([machine])
    lock.set_channels("default", [LockChannel(Channel(name).base_url) for name in channels])
    for record in records:
        lock.add_conda_package("default", machine, record)
    lock.to_path(path)


def read_lock(path: Path) -> list[Any]:
    """The records in a lock.

    Raises:
        ValueError: It has no default environment.
    """
    from rattler import LockFile

    lock = LockFile.from_path(path)
    environment = lock.default_environment()
    if environment is None:
        raise ValueError(f"{path} holds no default environment")
    packages = environment.packages(lock.platforms()[0]) or []
    return [package.repo_data_record() for package in packages]


def describe(record: Any) -> dict[str, Any]:
    """A record as the driver sees it."""
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "size": record.size or 0,
        "url": record.url,
        "sha256": record.sha256.hex() if record.sha256 else "",
        "md5": record.md5.hex() if record.md5 else "",
        "file_name": record.file_name,
    }


def redirect(records: Sequence[Any], files: Mapping[str, str], *, offline: bool) -> list[str]:
    """Let records name files instead of their URLs; returns the URLs they had.

    Offline, no record names the network afterwards: rattler would go there for a package that it
    finds damaged in its cache.
    """
    origins = [record.url for record in records]
    for record, origin in zip(records, origins, strict=True):
        if origin in files:
            record.url = Path(files[origin]).as_uri()
        elif offline and not origin.startswith("file:"):
            record.url = (_NOWHERE / record.file_name).as_uri()
    return origins


def raise_if_missing(records: Sequence[Any], cache: Sequence[str]) -> None:
    """See that redirected records are in the cache, if they name no file.

    Raises:
        Offline: Some are not there; they are named.
    """
    nowhere = [record for record in records if record.url.startswith(_NOWHERE.as_uri())]
    missing = [record.file_name for record in nowhere if not is_extracted(record, cache)]
    if missing:
        raise Offline(f"not fetched yet: {few(missing)}")


def show_origins(prefix: Path, records: Sequence[Any], origins: Sequence[str]) -> None:
    """Write into `conda-meta` where packages came from, not which file they were taken from.

    Raises:
        OSError: A package has no file there.
    """
    for record, origin in zip(records, origins, strict=True):
        if record.url != origin:
            path = prefix / "conda-meta" / f"{entry_of(record)}.json"
            told, meant = (f'"url": {json.dumps(url)}' for url in (record.url, origin))
            path.write_text(path.read_text(encoding="utf-8").replace(told, meant), encoding="utf-8")
            record.url = origin
