"""Env specs: what an environment file asks for, as frozen data with a digest.

`reading.read_spec` makes them from files; `formats` knows each kind of file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpcburst.envs.specs.entries import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEY_LENGTH = 20
"""Hex characters of a key: 80 bits, and short enough for the 255 characters a prefix may have."""

DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
"""What conda means by the channel `defaults`; rattler knows no such channel."""

CHANNEL_HOST = "https://conda.anaconda.org/"
"""Where a channel lives that is given by its name alone."""

_SCHEMA = 1
# They change from node to node, and hardly ever the solution: the kernel and the CPU model.
_NOT_IN_KEY = ("__linux", "__archspec")


@dataclass(frozen=True, slots=True)
class Archive:
    """One exact conda archive.

    Attributes:
        url: Where it is fetched.
        sha256: Its digest in hex; "" if unknown.
        md5: The same, as older lists have it.
        depends: What it needs, as its channel lists it; () if unknown.
        size: Bytes; 0 if unknown.
    """

    url: str
    sha256: str = ""
    md5: str = ""
    depends: tuple[str, ...] = ()
    size: int = 0

    @property
    def identity(self) -> str:
        """What makes it this archive and no other: its URL and digest."""
        return f"{self.url}#{self.sha256 or self.md5}"


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """What one env is asked to hold.

    Attributes:
        channels: Channel names or URLs, the most important first.
        conda: Dependencies, as conda writes them.
        pip: Requirements of the pip section, one a line of a requirements file.
        variables: Environment variables that activation sets.
        explicit: Exact archives, from a lock; nothing is solved then, and `pip` is complete.
        modules: Environment modules, loaded before the env is activated.
    """

    channels: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    explicit: tuple[Archive, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def holds_secrets(self) -> bool:
        """Whether a URL in it has a password or token, so that files naming it must be private."""
        texts = (*self.channels, *self.conda, *self.pip, *(a.url for a in self.explicit))
        return any(redact(text) != text for text in texts)

    def key(self, platform: str, virtual_packages: Iterable[str]) -> str:
        """The digest that names the env: the same for all files that ask for the same.

        Args:
            platform: The conda platform it is for, such as "linux-64".
            virtual_packages: What the machine offers, such as "__glibc=2.36=0".

        Returns:
            20 hex characters. The order of dependencies does not matter; that of channels, modules
            and options of the pip section (which index is asked first) does.
        """
        document = {
            "schema": _SCHEMA,
            "channels": self.channels,
            "conda": sorted(set(self.conda)),
            "pip": _in_key_order(self.pip),
            "variables": dict(self.variables),
            "explicit": sorted({archive.identity for archive in self.explicit}),
            "modules": self.modules,
            "platform": platform,
            "virtual": sorted(filter(counts_in_key, virtual_packages)),
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def counts_in_key(virtual_package: str) -> bool:
    """Whether a virtual package is part of the key."""
    return not virtual_package.startswith(_NOT_IN_KEY)


def _in_key_order(pip: Iterable[str]) -> list[str]:
    lines = list(dict.fromkeys(pip))
    options = [line for line in lines if line.startswith("-")]
    return options + sorted(line for line in lines if not line.startswith("-"))
