"""Why an archive cannot be had: the kinds of failure that leave the child process by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class FetchFailed(Exception):
    """An archive cannot be had; the text says which one, and holds no secret."""


class ArchiveGone(FetchFailed):
    """The server says that there is no such archive, or the file is not there."""


class ArchiveRefused(FetchFailed):
    """The server wants other credentials."""


class ArchiveDamaged(FetchFailed):
    """What came is not what the lock asks for, twice in a row."""


class ServerUnreachable(FetchFailed):
    """No connection, or none that lasts."""


class Offline(FetchFailed):
    """It would have to be fetched, and the network is not to be used."""


class OtherPlatform(FetchFailed):
    """Archives are for another kind of machine than this one."""


class LinkScriptFailed(Exception):
    """A script that a package runs once it is linked went wrong."""


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
