"""A node's own disks: what is linked there, which one has room, what nobody uses any more.

Each pilot's user has one folder on each disk, `hpcburst-<uid>`, closed to all others:

    envs/<pack's name>    linked envs; those being linked are hidden
    claims/               who links what (`publish`)
    pkgs/<week>/          packages to link from; `cache/` is rattler's, `have/` names the archives

Packages are used for one week only, and envs for a week after they were linked or used, because
clean-up services of temporary folders take single files that nobody has opened for some days.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hpcburst.comms.staging import check_place, check_private, private_folder
from hpcburst.envs.building.build import RECORD, read_record
from hpcburst.envs.building.publish import discard, sweep
from hpcburst.envs.building.room import Room, free_room
from hpcburst.errors import EnvError, SiteError
from hpcburst.tasks import Env

if TYPE_CHECKING:
    from collections.abc import Callable

FALLBACKS = (Path("/tmp"), Path("/dev/shm"))  # noqa: S108 - our folder there is made 0700 and checked
"""Where envs go when the node's folder has no room: the system's disk, then its memory."""

WEEK_S = 7 * 24 * 3600.0

WHAT_TO_DO = (
    "make room there, name a larger disk of the nodes (`hpcburst.node-root`), or let envs lie "
    "under the shared root (`hpcburst.envs.place: shared`)"
)


class InUse:
    """A linked env; while this is open, no other pilot sweeps it.

    Attributes:
        env: The env, at its place on this node.
    """

    def __init__(self, env: Env, handle: int) -> None:
        self.env = env
        self._handle: int | None = handle

    def close(self) -> None:
        """Use it no longer. Idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """Our folder on one disk of a node.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def envs(self) -> Path:
        """Linked envs."""
        return self.path / "envs"

    @property
    def claims(self) -> Path:
        """Claims on envs that are being linked, on this disk or on another one."""
        return self.path / "claims"

    @property
    def cache(self) -> Path:
        """This week's extracted packages."""
        return self._week / "cache"

    def has(self, sha256: str) -> bool:
        """Whether the archive with this digest is extracted in the cache."""
        return (self._week / "have" / sha256).exists()

    def note(self, sha256: str) -> None:
        """Remember that it is."""
        folder = self._week / "have"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sha256).touch()

    def make(self) -> None:
        """Make the folder and what is in it.

        Raises:
            SiteError: Its name is taken by something that is not ours alone, or others could put
                something of theirs in its place.
            OSError: It cannot be made.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_place(self.path.parent)
        private_folder(self.path)
        for folder in (self.envs, self.claims, self.path / "pkgs"):
            folder.mkdir(mode=0o700, exist_ok=True)

    def sweep(self) -> None:
        """Take away envs and packages that nobody used for a week, and what dead linkers left."""
        sweep(self.envs, self.claims)
        for prefix in self.envs.glob("[!.]*"):
            with suppress(OSError):
                _drop_unused(prefix)
        for week in (self.path / "pkgs").iterdir():
            if week.name.isdigit() and int(week.name) < _week_number() - 1:
                shutil.rmtree(week, ignore_errors=True)

    @property
    def _week(self) -> Path:
        return self.path / "pkgs" / str(_week_number())


def folders(node_root: Path) -> tuple[NodeFolder, ...]:
    """Where envs may be linked on this node, the best place first."""
    roots = dict.fromkeys((node_root, *FALLBACKS))
    return tuple(NodeFolder(root / f"hpcburst-{os.getuid()}") for root in roots)


def find(name: str, node_root: Path) -> InUse | None:
    """The env that was linked from the pack with this name; None when it is not on this node."""
    for folder in folders(node_root):
        try:
            check_place(folder.path.parent)  # or others could have put an env of theirs there
            check_private(folder.path)
            found = _hold(folder.envs / name)
        except (OSError, SiteError):
            continue
        if found is not None:
            return found
    return None


def choose(
    what: str, node_root: Path, needed: Callable[[NodeFolder], Room]
) -> tuple[NodeFolder, Room]:
    """The first disk that has room, and how much will be used of it.

    Args:
        what: What is to be linked, for the message.
        node_root: The folder to prefer.
        needed: How much room linking takes in a folder.

    Raises:
        EnvError: None has.
    """
    reasons = []
    for folder in folders(node_root):
        reason = _unfit(folder)
        if not reason:
            room, free = needed(folder), free_room(folder.path)
            if free.holds(room):
                return folder, room
            reason = f"{free} are free and {room} are needed"
        reasons.append(f"{folder.path}: {reason}")
    raise EnvError(
        f"The env of {what} was to be linked on the node {os.uname().nodename}",
        "no disk of it has room.\n" + "\n".join(reasons),
        WHAT_TO_DO,
    )


def first_fit(node_root: Path) -> NodeFolder:
    """The first folder that we can use at all, whatever room it has.

    Raises:
        EnvError: There is none.
    """
    reasons = []
    for folder in folders(node_root):
        reason = _unfit(folder)
        if not reason:
            return folder
        reasons.append(f"{folder.path}: {reason}")
    raise EnvError(
        f"An env was to be linked on the node {os.uname().nodename}",
        "no folder of it can be used.\n" + "\n".join(reasons),
        WHAT_TO_DO,
    )


def _unfit(folder: NodeFolder) -> str:
    """Why a folder cannot be used; "" when it can."""
    try:
        folder.make()
        flags = os.statvfs(folder.path).f_flag
    except SiteError as error:
        return error.found
    except OSError as error:
        return str(error)
    return "programs may not be run from that disk (noexec)" if flags & os.ST_NOEXEC else ""


def _hold(prefix: Path) -> InUse | None:
    """A linked env, its record locked against sweepers and marked as used now."""
    handle = os.open(prefix / RECORD, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    env = None
    try:
        record = read_record(prefix)
        if record and time.time() - record.made > WEEK_S and _locked_alone(handle):
            discard(prefix)  # single files of it may be missing by now
            return None
        fcntl.flock(handle, fcntl.LOCK_SH)
        if record and os.path.samestat(os.fstat(handle), (prefix / RECORD).stat()):
            os.utime(handle)
            env = Env(record.key, str(prefix), dict(record.activation or {}))
            return InUse(env, handle)
        return None
    finally:
        if env is None:
            os.close(handle)


def _drop_unused(prefix: Path) -> None:
    handle = os.open(prefix / RECORD, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        unused = time.time() - os.fstat(handle).st_mtime > WEEK_S
        if unused and _locked_alone(handle):
            discard(prefix)
    finally:
        os.close(handle)


def _locked_alone(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _week_number() -> int:
    return int(time.time() // WEEK_S)
