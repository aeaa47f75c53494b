"""Rattler's records: of archives, in locks, and in `conda-meta`.

Imported only by the child process in which rattler works.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hpcburst.envs.child.cache import entry_of, is_extracted
from hpcburst.envs.child.fetching import Wanted, few
from hpcburst.envs.child.refusals import Offline, OtherPlatform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ARCHIVE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+)\.(?:conda|tar\.bz2)")
_SUBDIR = re.compile(r"noarch|(?:linux|osx|win|freebsd|emscripten|wasi|zos)-[a-z0-9_]+")


_NOWHERE = Path("/not-fetched")
"""Stands for files that are not there."""


@dataclass(frozen=True)
class Listed:
    """One archive as a list of exact archives has it.

    Attributes:
        url: Where it is.
        sha256: Its digest in hex; "" if unknown.
        md5: The same.
        depends: What it needs; empty if unknown.
        size: Bytes; 0 if unknown.
    """

    url: str
    sha256: str = ""
    md5: str = ""
    depends: Sequence[str] = ()
    size: int = 0

    @property
    def wanted(self) -> Wanted:
        """What to fetch, to know all about it."""
        return Wanted(self.url, self.sha256, self.md5, self.size)

    @property
    def subdir(self) -> str:
        """The kind of machine it is for, by its URL; "" if that does not say."""
        folder = self._folders[-1]
        return folder if _SUBDIR.fullmatch(folder) else ""

    @property
    def channel(self) -> str:
        """Where the channel is that it comes from."""
        base = self.url.rpartition("/")[0]
        return base.rpartition("/")[0] if self.subdir else base

    @property
    def says_enough(self) -> bool:
        """Whether a record can be made without a look inside.

        Of a `noarch` archive it cannot: whether it holds Python modules stands in it alone.
        """
        digest = self.sha256 or self.md5
        named = _ARCHIVE.fullmatch(self.wanted.file_name)
        return bool(digest and self.depends and named and self.subdir not in {"", "noarch"})

    @property
    def _folders(self) -> list[str]:
        return ["", *urlsplit(self.url).path.split("/")[:-1]]


def record_from_list(listed: Listed) -> Any:
    """The record of an archive that `says_enough`."""
    from rattler import PackageRecord, RepoDataRecord

    file_name = listed.wanted.file_name
    match = _ARCHIVE.fullmatch(file_name)
    if match is None:
        raise ValueError(f"{file_name} is not the name of an archive")
    number = re.search(r"\d+$", match["build"])
    package = PackageRecord(
        match["name"],
        match["version"],
        _build_string(match["build"]),
        int(number[0]) if number else 0,
        listed.subdir,
        depends=list(listed.depends),
        sha256=bytes.fromhex(listed.sha256) or None,
        md5=bytes.fromhex(listed.md5) or None,
        size=listed.size or None,
    )
    return RepoDataRecord(package, file_name, listed.url, listed.channel)


def record_from_file(listed: Listed, path: Path) -> Any:
    """The record of an archive, read from it."""
    import asyncio

    from rattler import RepoDataRecord

    record = asyncio.run(RepoDataRecord.from_package_archive(path))
    record.url = listed.url
    record.channel = listed.channel
    record.file_name = listed.wanted.file_name
    if listed.md5:
        record.md5 = bytes.fromhex(listed.md5)
    return record


def check_records(records: Sequence[Any], platform: str) -> None:
    """See that archives fit this machine and each other.

    Raises:
        OtherPlatform: Some are for another platform; all of these are named.
        ValueError: A package is there twice.
    """
    others = [r for r in records if r.subdir not in {platform, "noarch"}]
    refuse_others([(record.file_name, record.subdir) for record in others], platform)
    names = [record.name.normalized for record in records]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)}: more than one archive is listed")


def refuse_others(others: Sequence[tuple[str, str]], platform: str) -> None:
    """Say which archives are for other platforms, if there are any: (file name, platform)."""
    if others:
        listed = few([f"{name} ({subdir})" for name, subdir in others])
        raise OtherPlatform(f"this machine is {platform}, and these are not for it: {listed}")


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


def wanted(record: Any) -> Wanted:
    """The archive of a record, as something to fetch."""
    known = describe(record)
    return Wanted(known["url"], known["sha256"], known["md5"], known["size"])


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


def _build_string(text: str) -> Any:
    try:
        from rattler.package import BuildString
    except ImportError:  # before 0.28: plain text
        return text
    return BuildString(text)
