"""Lists of exact archives, and the records that rattler needs of them.

Imported only by the child process in which rattler works, and only when there is such a list or an
archive to fetch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hpcburst.envs.child.fetching import Wanted
from hpcburst.envs.child.records import describe
from hpcburst.envs.child.refusals import OtherPlatform, few

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ARCHIVE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+)\.(?:conda|tar\.bz2)")
_SUBDIR = re.compile(r"noarch|(?:linux|osx|win|freebsd|emscripten|wasi|zos)-[a-z0-9_]+")


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


def wanted(record: Any) -> Wanted:
    """The archive of a record, as something to fetch."""
    known = describe(record)
    return Wanted(known["url"], known["sha256"], known["md5"], known["size"])


def _build_string(text: str) -> Any:
    try:
        from rattler.package import BuildString
    except ImportError:  # before 0.28: plain text
        return text
    return BuildString(text)
