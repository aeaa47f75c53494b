"""`@EXPLICIT`: the URLs of archives, one a line, as `conda list --explicit` writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hpcburst.envs.specs.formats.archives import read_archive
from hpcburst.envs.specs.formats.source import shown
from hpcburst.envs.specs.spec import Archive, EnvSpec

if TYPE_CHECKING:
    from hpcburst.envs.specs.formats.source import Source

HEAD = "@EXPLICIT"


def is_explicit(text: str) -> bool:
    """Whether a text is such a list."""
    return any(line.strip() == HEAD for line in text.splitlines() if line.startswith(HEAD))


def read(source: Source, text: str) -> EnvSpec:
    """The spec in a list of archives; a line is `URL`, `URL#md5`, `URL#sha256` or `URL#sha256:...`.

    Raises:
        EnvError: A line is something else, the list is for another platform, or it is empty.
    """
    source.only_one("a list of archives")
    _check_platform(source, text)
    lines = [line.strip() for line in text.splitlines()]
    urls = [line for line in lines if line and not line.startswith(("#", HEAD))]
    if not urls:
        raise source.refusal("it lists no archives", "write one URL a line below @EXPLICIT")
    return EnvSpec(explicit=tuple(dict.fromkeys(_archive(source, line) for line in urls)))


def _check_platform(source: Source, text: str) -> None:
    named = re.findall(r"(?m)^# *platform: *([A-Za-z0-9_\-]+) *\r?$", text)
    if named and source.platform not in named:
        raise source.refusal(
            f"it is for {', '.join(dict.fromkeys(named))}, and this is {source.platform}",
            f"run `conda list --explicit` on a machine that is {source.platform}",
        )


def _archive(source: Source, line: str) -> Archive:
    url, _, digest = line.partition("#")
    if not re.match(r"(?:https?|file)://", url):
        raise source.refusal(
            f"the line {shown(line)} is not the URL of a conda archive",
            "give one URL a line, as `conda list --explicit` writes them",
        )
    if digest.startswith("sha256:") or len(digest) == 64:
        return read_archive(source, url, sha256=digest.removeprefix("sha256:"))
    return read_archive(source, url, md5=digest.removeprefix("md5:"))
