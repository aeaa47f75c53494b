"""The entries of an environment file, checked one by one: pure text in, one clear answer out.

Rattler reads dependency text leniently: `pkg with space 1` becomes a package, a version and a
build string. What is no version is refused here, before a solver makes a riddle of it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

MAX_LENGTH = 2000
"""Characters of one entry. Real ones have a hundred; patterns take their time on a million."""

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_ENTRY = re.compile(rf"(?:(?P<channel>[^\s\[\]]+)::)?(?P<name>{_NAME})(?P<rest>.*)", re.DOTALL)
_OPERATOR = r">=|<=|==|!=|~=|=|>|<"
_PIECE = re.compile(rf"({_OPERATOR})?([0-9A-Za-z_.*+!\-]+)")
_BUILD = re.compile(r"[0-9A-Za-z_.*+\-]+|\^[^\s]+\$")
_FIELD = r"""\s*\w+\s*=\s*(?:'[^']*'|"[^"]*"|[^\s,'"\[\]]+)\s*"""
_BRACKET = re.compile(rf"\[{_FIELD}(?:,{_FIELD})*\]")
_ARCHIVE = re.compile(r"(?:https?|file)://[^#]+(?:#[0-9a-f]+)?")
_ARCHIVE_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.+~\-]*)-(?P<version>[A-Za-z0-9_.!+~]+)-(?P<build>[A-Za-z0-9_.+~]+)"
    r"\.(?:conda|tar\.bz2)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SECRET_FIELD = re.compile(
    r"(?i)([?&][\w.\-]*(?:token|key|sig|secret|passw|auth|credential)[\w.\-]*=)[^&#\s]+"
)

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
    if len(entry) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    if _ARCHIVE.fullmatch(entry) and "::" not in entry:
        return check_archive(entry.partition("#")[0])
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
    if has_control(entry):
        return "it holds a control character"
    if len(entry) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    entry = " ".join(entry.split())
    if re.match(r"-[rce]\b|--(?:requirement|constraint|editable)\b|[./~]", entry):
        return "it names another file, whose content would not be part of the env's key"
    if entry.startswith("-"):
        return "" if _PIP_OPTION.fullmatch(entry) else "it is not an option that can be kept here"
    return "" if _REQUIREMENT.fullmatch(entry) else "it is not a requirement"


def check_archive(url: str) -> str:
    """Why a URL is not that of a conda archive; "" if it is one.

    >>> check_archive("https://host/chan/linux-64/numpy-2.1.0-py313_0.conda")
    ''
    >>> check_archive("https://host/chan/../numpy-2.1.0-py313_0.conda")
    "its path has a '..' in it"
    """
    reason = check_url(url, ("http", "https", "file"))
    if reason:
        return reason
    if "?" in url:
        return "it has a question mark, and archives are files with plain names"
    if not _ARCHIVE_NAME.fullmatch(unquote(url.rsplit("/", 1)[1])):
        return "its last part is not NAME-VERSION-BUILD.conda (or .tar.bz2)"
    return ""


def check_url(url: str, schemes: tuple[str, ...]) -> str:
    """Why a text is not a URL that files are fetched from; "" if it is one."""
    if has_control(url) or re.search(r"\s", url):
        return "it holds a space or a control character"
    if len(url) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "it is not a URL"
    if parts.scheme not in schemes or not (parts.netloc or parts.scheme == "file"):
        return f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    plain = unquote(parts.path)
    if ".." in plain.split("/"):
        return "its path has a '..' in it"
    return "its path holds odd characters" if has_control(plain) or "\\" in plain else ""


def parts_of_archive(url: str) -> tuple[str, str, str] | None:
    """Name, version and build that the file name of a conda archive says; None if it says none.

    >>> parts_of_archive("https://host/chan/linux-64/python-dateutil-2.9-py_0.conda")
    ('python-dateutil', '2.9', 'py_0')
    """
    match = _ARCHIVE_NAME.fullmatch(unquote(url.rsplit("/", 1)[-1]))
    return (match["name"], match["version"], match["build"]) if match else None


def name_of(entry: str) -> str:
    """The name of the package that a dependency or a pip requirement asks for, in one spelling.

    >>> name_of("conda-forge::numpy >=2"), name_of("Ruamel.YAML[jinja2]>=0.18")
    ('numpy', 'ruamel-yaml')
    """
    archive = parts_of_archive(entry.partition("#")[0]) if "://" in entry else None
    if archive:
        return same_name(archive[0])
    match = _ENTRY.match(entry)
    return same_name(match["name"]) if match else ""


def same_name(name: str) -> str:
    """One spelling for all spellings of a name that an index takes for the same."""
    # A leading underscore tells packages apart (_libgcc_mutex); runs of -_. between letters do not.
    return re.sub(r"(?<=.)[-_.]+", "-", name).lower()


def has_control(text: str) -> bool:
    """Whether a text holds characters that no name, version or URL has, such as line ends."""
    return bool(_CONTROL.search(text))


def redact(text: str) -> str:
    """The text with passwords and tokens in URLs blotted out: it goes to logs and screens.

    >>> redact("https://me:secret@host/t/abc-123/chan")
    'https://***@host/t/***/chan'
    """
    text = re.sub(r"://[^/\s@]+@", "://***@", text)
    text = re.sub(r"/t/[^/\s]+", "/t/***", text)
    return _SECRET_FIELD.sub(r"\1***", text)


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
