"""Whether a conda channel can be reached from here."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHANNEL_HOST = "https://conda.anaconda.org"
"""Where a channel that is named by a bare word lives, as in conda itself."""

_INDEXES = ("repodata_shards.msgpack.zst", "repodata.json.zst", "repodata.json")


def remote_channel_answers(url_or_name: str, timeout_s: float = 5) -> bool:
    """Whether the channel's index can be fetched right now.

    Args:
        url_or_name: A channel's url (`https:`, `http:` or `file:`), or its name ("conda-forge").
        timeout_s: Seconds to wait for each answer; a host that does not answer is asked once.
    """
    base = url_or_name if "://" in url_or_name else f"{CHANNEL_HOST}/{url_or_name}"
    base = base.rstrip("/")
    if base.startswith("file:"):
        folder = Path(unquote(urlsplit(base).path)) / "noarch"
        return any((folder / name).is_file() for name in _INDEXES)
    for name in _INDEXES:
        answer = _head(f"{base}/noarch/{name}", timeout_s)
        if answer is not False:
            return answer is True
    return False


def _head(url: str, timeout_s: float) -> bool | None:
    """True: it is there; False: the host answers, and says no; None: no answer."""
    if not url.startswith(("https://", "http://")):
        return None
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "hpcburst"})  # noqa: S310 - the scheme is checked above
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - checked above
            return 200 <= int(answer.status) < 300
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (OSError, ValueError):  # URLError, time-out, refused, TLS, a url that is none
        return None
