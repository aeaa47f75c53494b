"""Whether a channel answers: one small question, asked before a solve would hang on it."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

ANACONDA = "https://conda.anaconda.org"

ANSWER_S = 5.0


def channel_url(channel: str) -> str:
    """The URL of a channel given by name, path or URL."""
    if "://" in channel:
        return channel.rstrip("/")
    if Path(channel).is_absolute():
        return Path(channel).as_uri()
    return f"{ANACONDA}/{channel}"


def channel_answers(channel: str, timeout_s: float = ANSWER_S) -> bool:
    """Whether the channel's index can be had now."""
    url = channel_url(channel)
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path), "noarch", "repodata.json").exists()
    request = urllib.request.Request(f"{url}/noarch/repodata.json.zst", method="HEAD")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - http(s) only
            return bool(answer.status < 400)
    except (OSError, ValueError):
        return False
