"""The entries of an environment file, checked one by one: pure text in, one clear answer out.

Rattler reads dependency text leniently: `pkg with space 1` becomes a package, a version and a
build string. What is no version is refused here, before a solver makes a riddle of it.
"""

from __future__ import annotations

import re

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_ENTRY = re.compile(rf"(?:(?P<channel>[^\s\[\]]+)::)?(?P<name>{_NAME})(?P<rest>.*)", re.DOTALL)
_OPERATOR = r">=|<=|==|!=|~=|=|>|<"
_PIECE = re.compile(rf"({_OPERATOR})?([0-9A-Za-z_.*+!\-]+)")
_BUILD = re.compile(r"[0-9A-Za-z_.*+\-]+|\^[^\s]+\$")
_FIELD = r"""\s*\w+\s*=\s*(?:'[^']*'|"[^"]*"|[^\s,'"\[\]]+)\s*"""
_BRACKET = re.compile(rf"\[{_FIELD}(?:,{_FIELD})*\]")
_ARCHIVE = re.compile(r"(?:https?|file)://\S+\.(?:conda|tar\.bz2)(?:#[0-9a-f]+)?")

_REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._\-]*[A-Za-z0-9])?"  # name
    r"\s*(?:\[[A-Za-z0-9,._\-\s]*\])?"  # extras
    r"\s*(?:@\s*[A-Za-z][A-Za-z0-9+.\-]*:\S+|\(?(?:===|[~!<>=]=|[<>])[^;@]*\)?)?"  # URL or versions
    r"\s*(?:;.+)?"  # marker
)
_PIP_OPTION = re.compile(
    r"(?:--no-index|(?:-i|-f|--index-url|--extra-index-url|--find-links|--no-binary|--only-binary)"
    r"[ =]\S+)"
)


def channel_of(entry: str) -> str | None:
    """The channel that a dependency names before `::`, if it names one."""
    match = _ENTRY.fullmatch(entry)
    return match["channel"] if match else None


def check_dependency(entry: str) -> str:
    """Why an entry of `dependencies` is not a package and its versions; "" if it is one.

    >>> check_dependency("numpy >=1.26,<3"), check_dependency("python=3.12=*_cpython")
    ('', '')
    >>> check_dependency("pkg with space 1")
    "after the name come at most a version and a build, and here are 'with', 'space', '1'"
    """
    if _ARCHIVE.fullmatch(entry):
        return ""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return "it does not begin with the name of a package"
    rest = match["rest"]
    if rest and not re.match(r"[\s\[<>=!~]", rest):
        return f"{rest[:20]!r} cannot follow the name {match['name']!r}"
    rest, bracket, tail = rest.partition("[")
    if bracket and not _BRACKET.fullmatch(bracket + tail):
        return "the part in brackets is not [field=value, ...]"
    return _check_versions(rest)


def check_requirement(entry: str) -> str:
    """Why an entry of the pip section cannot be taken; "" if it can.

    >>> check_requirement("requests[socks]>=2; python_version > '3.8'")
    ''
    """
    if re.search(r"[\x00-\x1f\x7f]", entry):
        return "it holds a control character"
    if re.match(r"-[rce]\b|--(?:requirement|constraint|editable)\b|[./~]", entry):
        return "it names another file, whose content would not be part of the env's key"
    if entry.startswith("-"):
        return "" if _PIP_OPTION.fullmatch(entry) else "it is not an option that can be kept here"
    return "" if _REQUIREMENT.fullmatch(entry) else "it is not a requirement"


def redact(text: str) -> str:
    """The text with passwords and tokens in URLs blotted out: it goes to logs and screens.

    >>> redact("https://me:secret@host/t/abc-123/chan")
    'https://***@host/t/***/chan'
    """
    text = re.sub(r"://[^/\s@]+@", "://***@", text)
    return re.sub(r"/t/[^/\s]+", "/t/***", text)


def _check_versions(text: str) -> str:
    text = re.sub(r"\s*([,|()])\s*", r"\1", text.strip())
    text = re.sub(rf"({_OPERATOR})\s+", r"\1", text)
    words = text.split()
    if len(words) > 2:
        return (
            "after the name come at most a version and a build, and here are "
            + ", ".join(map(repr, words))
        )  # fmt: skip
    if not words:
        return ""
    version, build = _split_build(words)
    if build is not None and not _BUILD.fullmatch(build):
        return f"{build!r} is not a build string"
    wrong = [piece for piece in re.split(r"[,|()]", version) if piece and not _is_version(piece)]
    return f"{wrong[0]!r} is not a version" if wrong else ""


def _split_build(words: list[str]) -> tuple[str, str | None]:
    if len(words) == 2:
        return words[0], words[1]
    match = re.fullmatch(r"(={0,2}[^=,|<>!~]+)=([^=]+)", words[0])
    return (match[1], match[2]) if match else (words[0], None)


def _is_version(piece: str) -> bool:
    match = _PIECE.fullmatch(piece)
    if match is None:
        return False
    operator, version = match.groups()
    return bool(operator) or bool(re.search(r"[0-9*]", version))
