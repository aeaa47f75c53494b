"""Where the text of a spec comes from, and what every kind of file needs to know to read it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.specs.entries import (
    channel_of,
    check_dependency,
    check_requirement,
    has_control,
    redact,
)
from hpcburst.envs.specs.formats.yaml_text import BadYamlError, Unquoted, parse
from hpcburst.envs.specs.spec import CHANNEL_HOST, DEFAULTS
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_DOTS = 200
"""In one key of a TOML file. The time to read a key grows with their square, to hours."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CHANNEL = re.compile(r"[^\s\x00-\x1f\x7f\[\]]+")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read a spec from, and the site's say in it.

    Attributes:
        path: The file; it need not exist, its text is given to the readers.
        channels: Channels of a file that names none.
        mirror: Channel name or URL to the URL it is fetched from instead.
        environment: Which of the file's environments is wanted; "" is the one it has by default.
        platform: The conda platform it is read for, such as "linux-64".
    """

    path: Path
    channels: tuple[str, ...] = ("conda-forge",)
    mirror: Mapping[str, str] = field(default_factory=dict)
    environment: str = ""
    platform: str = "linux-64"

    def refusal(self, found: str, todo: str) -> EnvError:
        """The error that names this file; secrets in URLs are blotted out of it."""
        named = f"{self.path}#{self.environment}" if self.environment else str(self.path)
        return EnvError(f"The env of {named} was asked for", redact(found), todo)

    def only_one(self, kind: str) -> None:
        """Refuse a wish for one of several environments: this kind of file has one."""
        if self.environment:
            raise self.refusal(
                f"{kind} has no environments with names",
                f"leave out `#{self.environment}`",
            )

    # What is in the file

    def yaml(self, text: str) -> dict[str, Any]:
        """The names and values of a YAML text."""
        try:
            raw = parse(text)
        except BadYamlError as error:
            raise self.refusal(str(error), "mend the file") from error
        if not isinstance(raw, dict):
            raise self.refusal(
                "it is not a list of names and values",
                "begin with the lines `channels:` and `dependencies:`",
            )
        return raw

    def toml(self, text: str) -> dict[str, Any]:
        """The tables of a TOML text."""
        if any(
            part.count(".") > MAX_DOTS for line in text.splitlines() for part in line.split("=")
        ):
            raise self.refusal(f"a line of it has more than {MAX_DOTS} dots", "mend the file")
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            problem = str(error)[:200] or "it is nested too deep"
            raise self.refusal(f"it is not TOML 1.0: {problem}", "mend the file") from error

    def mapping(self, value: object, what: str) -> dict[str, Any]:
        """A value that must be names and values; nothing at all is an empty one."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refusal(f"{what} is not a list of names and values", "write NAME: value")
        return value

    def entries(self, value: object, what: str) -> list[Any]:
        """A value that must be a list; nothing at all is an empty one."""
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.refusal(f"{what} is not a list", "write one a line, after `- `")
        return value

    def text(self, value: object, what: str, default: str | None = None) -> str:
        """A value that must be a line of text; numbers are taken as they are written."""
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, Unquoted, int, float)):
            raise self.refusal(f"{what} is not text: {shown(value)}", "mend the file")
        if has_control(str(value)):
            raise self.refusal(f"{what} holds a control character: {shown(value)}", "mend the file")
        return str(value)

    def variables(self, value: object, what: str = "`variables`") -> dict[str, str]:
        """Environment variables, their values as they are written."""
        found = self.mapping(value, what)
        for name, setting in found.items():
            self._check_variable(name, setting)
        return {name: str(setting) for name, setting in found.items()}

    def _check_variable(self, name: str, setting: object) -> None:
        if not _VARIABLE.fullmatch(name):
            raise self.refusal(f"{shown(name)} cannot name a variable", "rename it")
        kind = setting.kind if isinstance(setting, Unquoted) else type(setting).__name__
        if kind not in ("str", "int", "float"):
            raise self.refusal(
                f"YAML reads {name} not as text but as {kind.replace('NoneType', 'nothing')}",
                "put its value in quotes, so that it reaches programs as you wrote it",
            )
        if "\0" in str(setting):
            raise self.refusal(f"the variable {name} holds a NUL character", "take it out")

    def dependency(self, entry: object) -> str:
        """One conda dependency, checked, with its channel's mirror in place."""
        if not isinstance(entry, str):
            raise self.refusal(
                f"the dependency {shown(entry)} is not text",
                "write it on one line, such as `- python 3.12.*`; only `pip:` has a list below it",
            )
        text = " ".join(re.sub(r"\s#.*", "", entry, flags=re.DOTALL).split())
        reason = check_dependency(text)
        if reason:
            raise self.refusal(
                f"the dependency {shown(entry)} cannot be read: {reason}",
                "write NAME, or NAME and versions, such as `- numpy >=1.26,<3`",
            )
        channel = channel_of(text)
        if channel is None:
            return self.mirrored_url(text)
        return f"{self.places_of(channel)[0]}::{text.split('::', 1)[1]}"

    def requirement(self, entry: object) -> str:
        """One line of the pip section, checked."""
        text = entry.strip() if isinstance(entry, str) else ""
        reason = check_requirement(text) if isinstance(entry, str) else "it is not text"
        if reason:
            raise self.refusal(
                f"the pip requirement {shown(entry)} cannot be taken: {reason}",
                "write requirements such as `- requests >=2.31`, one a line",
            )
        return text

    # Channels and mirrors

    def channel(self, name: object) -> str:
        """One channel, by name or URL."""
        if not isinstance(name, str) or not _CHANNEL.fullmatch(name):
            raise self.refusal(
                f"the channel {shown(name)} is neither a name nor a URL",
                "write for instance `- conda-forge`",
            )
        return name

    def searched(self, channels: Sequence[str], conda: Iterable[str]) -> tuple[str, ...]:
        """Where packages are looked for: the channels, then those that dependencies name."""
        listed = tuple(name for name in channels if name != "nodefaults") or self.channels
        named = [channel for entry in conda if (channel := channel_of(entry))]
        places = [place for name in listed for place in self.places_of(name)]
        return tuple(dict.fromkeys([*places, *named]))

    def places_of(self, channel: str) -> tuple[str, ...]:
        """Where a channel is fetched from: its mirror, or itself; `defaults` is two channels."""
        bare = channel.rstrip("/")
        short = bare.removeprefix(CHANNEL_HOST)
        url = self.mirror.get(channel) or self.mirror.get(bare) or self.mirror.get(short)
        if url:
            return (url,)
        if channel == "defaults":
            return DEFAULTS
        if re.match(r"\.{0,2}/", channel):
            return ((self.path.absolute().parent / channel).resolve().as_uri(),)
        return (short,)

    def mirrored_url(self, url: str) -> str:
        """The URL of a file at the mirror of its channel, when it has one."""
        rows = [(base, to) for name, to in self.mirror.items() for base in _bases(name)]
        for base, replacement in sorted(rows, key=lambda row: -len(row[0])):
            if url.startswith(base + "/"):
                return replacement.rstrip("/") + url[len(base) :]
        return url


def shown(value: object) -> str:
    """A value as messages show it: short, on one line, without secrets."""
    return repr(redact(str(value)[:400])[:80])


def _bases(channel: str) -> tuple[str, ...]:
    if channel == "defaults":
        return DEFAULTS
    return ((channel if "://" in channel else CHANNEL_HOST + channel).rstrip("/"),)
