"""Env specs: what an environment file asks for, as frozen data with a digest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.entries import channel_of, check_dependency, check_requirement, redact
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KEY_LENGTH = 20
"""Hex characters of a key: 80 bits, and short enough for the 255 characters a prefix may have."""

KNOWN_KEYS = ("name", "channels", "dependencies", "variables", "prefix", "category", "platforms")

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
            20 hex characters. The order of dependencies does not matter, that of channels does.
        """
        document = {
            "schema": _SCHEMA,
            "channels": self.channels,
            "conda": sorted(set(self.conda)),
            "pip": sorted(set(self.pip)),
            "variables": dict(self.variables),
            "explicit": sorted({archive.identity for archive in self.explicit}),
            "modules": self.modules,
            "platform": platform,
            "virtual": sorted(v for v in virtual_packages if not v.startswith(_NOT_IN_KEY)),
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def read_spec(
    path: Path | str,
    *,
    channels: Sequence[str] = ("conda-forge",),
    mirror: Mapping[str, str] | None = None,
) -> EnvSpec:
    """The spec in a file: an `environment.yml`, or a list of archives headed by `@EXPLICIT`.

    Args:
        path: The file.
        channels: Channels of a file that names none.
        mirror: Channel name to the URL it is fetched from instead.

    Raises:
        EnvError: The file cannot be read, or an entry in it is not what it should be.
    """
    path = Path(path)
    reader = _Reader(path, tuple(channels), dict(mirror or {}))
    text = reader.text()
    if re.search(r"(?m)^@EXPLICIT\s*$", text):
        return reader.explicit(text)
    return reader.environment(text)


def _archive(line: str) -> Archive:
    url, _, digest = line.partition("#")
    return Archive(url, sha256=digest) if len(digest) == 64 else Archive(url, md5=digest)


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    default_channels: tuple[str, ...]
    mirror: dict[str, str]

    def text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise self.refusal(
                f"it cannot be read: {reason}", "give a readable environment file"
            ) from error

    def explicit(self, text: str) -> EnvSpec:
        lines = (line.strip() for line in text.splitlines())
        urls = tuple(u for u in lines if u and not u.startswith(("#", "@EXPLICIT")))
        for url in urls:
            if not re.match(r"(?:https?|file)://", url) or check_dependency(url):
                raise self.refusal(
                    f"the line {redact(url)[:120]!r} is not the URL of a conda archive",
                    "give one URL a line, as `conda list --explicit` writes them",
                )
        return EnvSpec(explicit=tuple(_archive(self.mirrored_url(url)) for url in urls))

    def environment(self, text: str) -> EnvSpec:
        raw = self.parse(text)
        unknown = sorted(str(name) for name in raw if name not in KNOWN_KEYS)
        if unknown:
            raise self.refusal(
                f"it has {', '.join(map(repr, unknown))} at the top, which means nothing there",
                f"the known names are {', '.join(KNOWN_KEYS)}",
            )
        conda, pip = self.dependencies(raw.get("dependencies"))
        named = [channel for entry in conda if (channel := channel_of(entry))]
        wanted = (*self.channels(raw.get("channels")), *named)
        return EnvSpec(
            channels=tuple(dict.fromkeys(url for name in wanted for url in self.mirrored(name))),
            conda=tuple(self.mirrored_entry(entry) for entry in conda),
            pip=pip,
            variables=self.variables(raw.get("variables")),
        )

    def parse(self, text: str) -> dict[Any, Any]:
        import yaml

        try:
            raw = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1})" if mark else ""
            problem = getattr(error, "problem", None) or "it does not follow the rules"
            raise self.refusal(f"it is not YAML{where}: {problem}", "mend the file") from error
        if not isinstance(raw, dict):
            raise self.refusal(
                "it is not a list of names and values",
                "begin with the lines `channels:` and `dependencies:`",
            )
        return raw

    def channels(self, value: object) -> tuple[str, ...]:
        if value is None:
            return self.default_channels
        if not isinstance(value, list):
            raise self.refusal("`channels` is not a list", "write one channel a line, after `- `")
        for name in value:
            if not isinstance(name, str) or not re.fullmatch(r"[^\s\x00-\x1f]+", name):
                raise self.refusal(
                    f"the channel {redact(str(name))[:80]!r} is neither a name nor a URL",
                    "write for instance `- conda-forge`",
                )
        return tuple(name for name in value if name != "nodefaults") or self.default_channels

    def dependencies(self, value: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if not isinstance(value, list) or not value:
            raise self.refusal(
                "it lists no dependencies",
                "write `dependencies:` and below it one package a line, such as `- python 3.12.*`",
            )
        conda: list[str] = []
        pip: list[str] = []
        for entry in value:
            if isinstance(entry, dict) and list(entry) == ["pip"]:
                pip.extend(self.requirement(line) for line in self.pip_lines(entry["pip"]))
            else:
                conda.append(self.dependency(entry))
        return tuple(conda), tuple(pip)

    def dependency(self, entry: object) -> str:
        if not isinstance(entry, str):
            raise self.refusal(
                f"the dependency {str(entry)[:80]!r} is not text",
                "write it on one line, such as `- python 3.12.*`; only `pip:` has a list below it",
            )
        text = " ".join(re.sub(r"\s#.*", "", entry, flags=re.DOTALL).split())
        reason = check_dependency(text)
        if reason:
            raise self.refusal(
                f"the dependency {redact(entry)[:80]!r} cannot be read: {reason}",
                "write NAME, or NAME and versions, such as `- numpy >=1.26,<3`",
            )
        return text

    def pip_lines(self, value: object) -> list[object]:
        if not isinstance(value, list):
            raise self.refusal("`pip` is not a list", "write one requirement a line, after `- `")
        return value

    def requirement(self, entry: object) -> str:
        text = entry.strip() if isinstance(entry, str) else str(entry)
        reason = check_requirement(text) if isinstance(entry, str) else "it is not text"
        if reason:
            raise self.refusal(
                f"the pip requirement {redact(text)[:80]!r} cannot be taken: {reason}",
                "write requirements such as `- requests >=2.31`, one a line",
            )
        return text

    def variables(self, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refusal("`variables` is not a list of names and values", "write NAME: value")
        for name, setting in value.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
                raise self.refusal(f"{str(name)[:80]!r} cannot name a variable", "rename it")
            if isinstance(setting, bool) or not isinstance(setting, (str, int, float)):
                raise self.refusal(
                    f"YAML reads {name} not as text but as {type(setting).__name__}",
                    "put its value in quotes, so that it reaches programs as you wrote it",
                )
            if "\0" in str(setting):
                raise self.refusal(f"the variable {name} holds a NUL character", "take it out")
        return {str(name): str(setting) for name, setting in value.items()}

    def mirrored(self, name: str) -> tuple[str, ...]:
        bare = name.rstrip("/")
        short = bare.removeprefix(CHANNEL_HOST)
        url = self.mirror.get(name) or self.mirror.get(bare) or self.mirror.get(short)
        if url:
            return (url,)
        if name == "defaults":
            return DEFAULTS
        if re.match(r"\.{0,2}/", name):
            return ((self.path.absolute().parent / name).resolve().as_uri(),)
        return (short,)

    def mirrored_entry(self, entry: str) -> str:
        channel = channel_of(entry)
        if channel is None:
            return entry
        return f"{self.mirrored(channel)[0]}::{entry.split('::', 1)[1]}"

    def mirrored_url(self, url: str) -> str:
        for name, replacement in self.mirror.items():
            base = name if "://" in name else CHANNEL_HOST + name
            if url.startswith(base.rstrip("/") + "/"):
                return replacement.rstrip("/") + url[len(base.rstrip("/")) :]
        return url

    def refusal(self, found: str, todo: str) -> EnvError:
        return EnvError(f"The env of {self.path} was asked for", found, todo)
