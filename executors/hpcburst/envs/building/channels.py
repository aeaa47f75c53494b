"""Whether a channel answers: one small question, asked before a solve would hang on it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from hpcburst.envs.child.downloading import status_of

ANACONDA = "https://conda.anaconda.org"

ANSWER_S = 5.0
"""Seconds to wait for an answer: a person is waiting too."""

INDEXES = ("repodata.json.zst", "repodata.json")
"""What a channel may offer; large ones have the first, plain folders on a web server the other."""


def channel_url(channel: str) -> str:
    """The URL of a channel given by name, path or URL."""
    if "://" in channel:
        return channel.rstrip("/")
    if Path(channel).is_absolute():
        return Path(channel).as_uri()
    return f"{ANACONDA}/{channel}"


def channel_answers(channel: str, timeout_s: float = ANSWER_S) -> bool:
    """Whether the channel's index can be had now, with the credentials that are known for it."""
    url = channel_url(channel)
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path), "noarch", "repodata.json").exists()
    status = 404
    for index in INDEXES:
        if status == 404:
            status = status_of(f"{url}/noarch/{index}", timeout_s)
    return 200 <= status < 300
