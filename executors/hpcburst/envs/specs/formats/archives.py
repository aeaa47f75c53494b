"""The rows of locks: exact conda archives, and exact requirements for pip, checked one by one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from hpcburst.envs.specs.entries import check_archive, check_requirement, check_url
from hpcburst.envs.specs.formats.source import shown
from hpcburst.envs.specs.spec import Archive

if TYPE_CHECKING:
    from hpcburst.envs.specs.formats.source import Source

_SUBDIR = re.compile(r"(?:linux|osx|win|emscripten|wasi|zos|freebsd)-[a-z0-9_]+")
_FILES = (".whl", ".tar.gz", ".zip", ".tar.bz2")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._\-]*[A-Za-z0-9])?")


def read_archive(
    source: Source,
    location: str,
    *,
    sha256: str = "",
    md5: str = "",
    depends: tuple[str, ...] = (),
    size: int = 0,
) -> Archive:
    """One conda archive of a lock, at its mirror when it has one.

    Args:
        source: The lock.
        location: A URL, or a path (a relative one begins at the lock's folder).
        sha256: Digest in hex; "" if the lock has none.
        md5: The same.
        depends: What it needs, if the lock says so.
        size: Bytes; 0 if the lock does not say.

    Raises:
        EnvError: It is not an archive, not for this platform, or a digest is none.
    """
    url = location if "://" in location else _file_url(source, location)
    reason = check_archive(url) or _check_platform(url, source.platform)
    reason = reason or _check_digest("sha256", sha256, 64) or _check_digest("md5", md5, 32)
    if reason:
        raise source.refusal(
            f"{shown(location)} cannot be taken as a conda archive: {reason}",
            "write the lock again with the tool that made it, for this platform",
        )
    return Archive(source.mirrored_url(url), sha256.lower(), md5.lower(), depends, size)


def read_requirement(source: Source, name: str, location: str, *, sha256: str = "") -> str:
    """One pip package of a lock as a requirement that can mean one file only.

    Args:
        source: The lock.
        name: The name of the package.
        location: URL, git URL with a commit, or path of a wheel or source archive.
        sha256: Digest of the file in hex; "" if the lock has none.

    Raises:
        EnvError: It is a folder or a branch, whose content changes without the lock.
    """
    reason = _check_digest("sha256", sha256, 64)
    line = ""
    if not reason:
        plain = location.removeprefix("direct+")
        line, reason = _exact(source, plain, sha256.lower())
    line = f"{name} @ {line}"
    reason = reason or ("" if _NAME.fullmatch(name) else "that is no name of a package")
    reason = reason or check_requirement(line)
    if reason:
        raise source.refusal(
            f"the pip package {shown(name)} at {shown(location)} cannot be taken: {reason}",
            "give it as a wheel with a URL, or leave it out of this environment",
        )
    return line


def _exact(source: Source, location: str, sha256: str) -> tuple[str, str]:
    """The URL that names one content, or why there is none."""
    if location.startswith("git+"):
        return _exact_commit(location)
    url, _, fragment = location.partition("#")
    fields = {key: values[0] for key, values in parse_qs(fragment).items()}
    sha256 = sha256 or fields.get("sha256", "").lower()
    if "://" not in url or url.startswith("file:"):
        if not url.endswith(_FILES) or not sha256:
            return "", "it is a folder on this machine, and its content is not part of the lock"
        url = url if "://" in url else _file_url(source, url)
    reason = check_url(url, ("http", "https", "file")) or _check_digest("sha256", sha256, 64)
    ends = [f"sha256={sha256}"] if sha256 else []
    if "subdirectory" in fields:
        ends.append(f"subdirectory={fields['subdirectory']}")
    return source.mirrored_url(url) + ("#" + "&".join(ends) if ends else ""), reason


def _exact_commit(location: str) -> tuple[str, str]:
    parts = urlsplit(location)
    path, _, at = parts.path.partition("@")
    asked = parse_qs(parts.query)
    commit = at or parts.fragment.partition("&")[0]
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        return "", "its commit is not written in full (40 hex characters)"
    inside = asked.get("subdirectory") or parse_qs(parts.fragment).get("subdirectory") or []
    reason = check_url(location.removeprefix("git+"), ("https", "ssh"))
    end = f"#subdirectory={inside[0]}" if inside else ""
    return f"{parts.scheme}://{parts.netloc}{path}@{commit}{end}", reason


def _file_url(source: Source, location: str) -> str:
    # Not resolved: a lock that lies behind a symbolic link means the folder it is asked for in.
    path = os.path.normpath(source.path.absolute().parent / Path(location))
    return Path(path).as_uri()


def _check_platform(url: str, platform: str) -> str:
    folders = unquote(url).split("/")
    subdir = folders[-2] if len(folders) > 2 else ""
    if _SUBDIR.fullmatch(subdir) and subdir != platform:
        return f"it is for {subdir}, and this is {platform}"
    return ""


def _check_digest(kind: str, digest: str, length: int) -> str:
    if digest and not re.fullmatch(rf"[0-9A-Fa-f]{{{length}}}", digest):
        return f"{shown(digest)} is not a {kind} of {length} hex characters"
    return ""
