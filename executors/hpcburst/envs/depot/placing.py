"""Where an env lies: under the shared root, or on the own disk of each node that uses it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hpcburst.errors import EnvError

Placement = Literal["shared", "local"]

_NETWORK = re.compile(
    "9p|afs|auristorfs|beegfs(_nodev)?|ceph|cifs|coda|dvs|gfs2|glusterfs|gpfs|kafs|lustre(_lite)?|"
    "mmfs|ncpfs|nfs4?|ocfs2|orangefs|panfs|pvfs2|quobyte|smb3|smbfs|virtiofs|wekafs"
)
"""Types of file systems on which each look at a file is a question to a server."""

_LOCAL_FUSE = re.compile(
    "bindfs|cryfs|encfs|ext2|fuse-overlayfs|gocryptfs|mergerfs|ntfs-3g|overlayfs|rar2fs|"
    "squashfuse(_ll)?|unionfs"
)
"""File systems in user space that keep to this machine; all others (sshfs, ...) ask a server."""


def placement(policy: str, filesystem: str, *, pilots_here: bool) -> Placement:
    """Where envs are to lie.

    Args:
        policy: "shared", "local" or "auto".
        filesystem: Type of the file system that holds the shared root.
        pilots_here: Whether all pilots run on the machine that builds envs.

    Raises:
        EnvError: There is no such policy.
    """
    if policy in ("shared", "local"):
        return "shared" if policy == "shared" else "local"
    if policy != "auto":
        raise EnvError(
            f"Envs were to be placed {policy!r}",
            "there is no such place",
            "set `hpcburst.envs.place` to auto, shared or local",
        )
    return "local" if is_network(filesystem) and not pilots_here else "shared"


def is_network(filesystem: str) -> bool:
    """Whether a file system of this type, as mountinfo calls it, lies on other machines."""
    kind, _, name = filesystem.partition(".")
    if kind == "fuse":
        return not _LOCAL_FUSE.fullmatch(name)
    return bool(_NETWORK.fullmatch(filesystem))


def filesystem_of(path: Path) -> str:
    """Type of the file system that holds a path, or would hold it; "" if that cannot be known."""
    real = path.resolve()
    with suppress(OSError):
        real.stat()  # an automounter mounts only what somebody asked for
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    return type_at(table, real)


def type_at(mountinfo: str, path: Path) -> str:
    """The type of the mount that covers an absolute path; "" if none does.

    Args:
        mountinfo: Text as in `/proc/self/mountinfo`.
        path: A path without links in it.
    """
    found, longest = "", -1
    for line in mountinfo.splitlines():
        where, _, what = line.partition(" - ")
        fields, kinds = where.split(" "), what.split(" ")
        if len(fields) < 5:
            continue
        place = Path(_unescaped(fields[4]))
        # Of two mounts at one place the later one hides the other.
        if path.is_relative_to(place) and len(place.parts) >= longest:
            found, longest = kinds[0], len(place.parts)
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
