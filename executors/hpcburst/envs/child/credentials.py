"""Who we are to a channel: user, password or token, found where rattler finds them.

Standard library only; one more place, the desktop's keyring, is left to rattler itself.
"""

from __future__ import annotations

import base64
import json
import netrc
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Ticket:
    """How to ask a server for one thing.

    Attributes:
        url: The URL to ask for; a token may be part of its path, user and password are not.
        authorization: The header of that name; "" if there is none.
    """

    url: str
    authorization: str = ""


def ticket_for(url: str) -> Ticket:
    """What is known for a URL: first in the URL itself, then in rattler's files, then in netrc.

    Reads `RATTLER_AUTH_FILE`, `~/.rattler/credentials.json` and `NETRC` (or `~/.netrc`) each time.
    """
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username is not None:
        return Ticket(bare, _basic(unquote(parts.username), unquote(parts.password or "")))
    host = parts.hostname or ""
    for known in _auth_files():
        for name in _host_names(host):
            if name in known:
                return _stamp(bare, known[name])
    return Ticket(bare, _from_netrc(host))


def _stamp(url: str, known: Mapping[str, Any]) -> Ticket:
    """Apply one entry of rattler's file; kinds only rattler can use (OAuth, S3) leave no trace."""
    match known:
        case {"BearerToken": str(token)}:
            return Ticket(url, f"Bearer {token}")
        case {"BasicHTTP": {"username": str(user), "password": str(password)}}:
            return Ticket(url, _basic(user, password))
        case {"CondaToken": str(token)}:
            parts = urlsplit(url)
            if not parts.path.startswith("/t/"):
                parts = parts._replace(path=f"/t/{token}{parts.path}")
            return Ticket(urlunsplit(parts))
    return Ticket(url)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _auth_files() -> Iterator[dict[str, Any]]:
    named = os.environ.get("RATTLER_AUTH_FILE")
    for path in (named, Path.home() / ".rattler/credentials.json"):
        try:
            known = json.loads(Path(path).read_bytes()) if path else {}
        except (OSError, ValueError):
            continue  # no file, or one that rattler will complain about
        if isinstance(known, dict):
            yield known


def _host_names(host: str) -> Iterator[str]:
    """The names a host may be filed under: its own, and `*.` before each domain it is in.

    >>> list(_host_names("repo.prefix.dev"))
    ['repo.prefix.dev', '*.repo.prefix.dev', '*.prefix.dev', '*.dev']
    """
    yield host
    if not host or re.fullmatch(r"[\d.]+|.*:.*", host):
        return  # an address is in no domain
    labels = host.split(".")
    for first in range(len(labels)):
        yield "*." + ".".join(labels[first:])


def _from_netrc(host: str) -> str:
    path = os.environ.get("NETRC") or Path.home() / ".netrc"
    try:
        known = netrc.netrc(str(path)).hosts.get(host)
    except (OSError, ValueError, netrc.NetrcParseError):
        return ""
    return _basic(known[0], known[2]) if known else ""
