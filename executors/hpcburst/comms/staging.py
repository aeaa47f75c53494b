"""Private places on shared file systems: made 0700, checked, swept when their owner died."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hpcburst.errors import SiteError

OWNER_FILE = "owner.json"

SCRATCH_PREFIX = "hpcburst-"

OF_THE_SYSTEM = (0, 65534)
"""Owners who need no trick to get at us: root, and what containers show of the root outside."""


def private_folder(path: Path) -> Path:
    """Make a folder only we can enter, or check that an existing one is.

    Raises:
        SiteError: The name is taken by something that is not a folder of ours closed to others.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        path.mkdir(mode=0o700)
        path.chmod(0o700)  # an odd umask must not lock us out of our own folder
    except FileExistsError:
        pass
    check_private(path)
    if path.lstat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def check_private(path: Path) -> None:
    """See that a folder is ours and that nobody else can write to it; change nothing.

    Raises:
        SiteError: It is not.
    """
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise SiteError(
            f"A private folder is needed at {path}",
            f"the name is taken by something with mode {stat.filemode(info.st_mode)} and owner "
            f"{info.st_uid}, which others could use against you",
            "remove it, or set hpcburst.shared-root to a folder of your own",
        )


def check_place(folder: Path) -> None:
    """See that nobody can put away what we make in a folder that others may use too.

    Who can rename a private folder can put one of his own in its place, and we would go on in that.

    Raises:
        SiteError: The folder is another user's, or others may write to it and it is not sticky.
    """
    info = folder.stat()
    ours = info.st_uid == os.getuid()
    open_bits = 0o002 if ours else 0o022  # that their own group may write is many users' umask
    trusted = ours or info.st_uid in OF_THE_SYSTEM
    if not trusted or (info.st_mode & open_bits and not info.st_mode & stat.S_ISVTX):
        raise SiteError(
            f"Private folders are needed in {folder}",
            f"its mode is {stat.filemode(info.st_mode)} and its owner {info.st_uid}: others could "
            "rename what is in it, and put folders of theirs in its place",
            "name another folder (hpcburst.node-root, or TMPDIR), or run `chmod +t` on it",
        )


def write_private(path: Path, data: bytes) -> None:
    """Write a file 0600, aside first and then moved, so that no reader sees half of it."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    aside.replace(path)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run: `secret/` lives as long as the run, `logs/` and records stay.

    Attributes:
        path: The folder itself, 0700.
    """

    path: Path

    @property
    def secret(self) -> Path:
        """Credentials, job scripts and the local queue's spool; gone when the run ends."""
        return self.path / "secret"

    @property
    def logs(self) -> Path:
        """Logs of the pilots' jobs."""
        return self.path / "logs"

    @classmethod
    def make(cls, shared_root: Path) -> RunFolder:
        """A fresh run folder under the shared root, marked as this process's."""
        runs = private_folder(_root(shared_root) / "runs")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        run = cls(private_folder(runs / f"{stamp}-{secrets.token_hex(3)}"))
        private_folder(run.secret)
        private_folder(run.logs)
        write_private(run.path / OWNER_FILE, json.dumps(_this_process()).encode())
        return run

    def close(self) -> None:
        """Remove what must not outlive the run. Idempotent."""
        shutil.rmtree(self.secret, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Driver:
    """The process that a run belongs to.

    Attributes:
        host: The machine it runs or ran on; "" if that is not known.
        pid: Its process id there; 0 if that is not known.
        alive: Whether it is there; None on another machine, where nobody can look.
    """

    host: str = ""
    pid: int = 0
    alive: bool | None = False


def driver_of(folder: Path) -> Driver:
    """Whose run this folder is."""
    try:
        owner = json.loads((folder / OWNER_FILE).read_text())
        host, pid, started = str(owner["host"]), int(owner["pid"]), str(owner["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return Driver(alive=not _owner_is_dead(folder))
    here = host == socket.gethostname()
    return Driver(host, pid, process_started_at(pid) == started if here else None)


def run_folders(shared_root: Path) -> list[Path]:
    """Folders of all runs, the oldest first."""
    return sorted((shared_root / "runs").glob("*-*-*"))


def sweep_runs(shared_root: Path, keep_days: float) -> int:
    """Remove the secrets of runs whose driver died, and runs older than `keep_days`.

    Returns:
        How many folders were touched.
    """
    touched = 0
    for folder in run_folders(shared_root):
        old = time.time() - _modified_at(folder) > keep_days * 86400
        if not _owner_is_dead(folder):
            continue
        if old:
            shutil.rmtree(folder, ignore_errors=True)
            touched += 1
        elif (folder / "secret").exists():
            RunFolder(folder).close()
            touched += 1
    return touched


def _root(shared_root: Path) -> Path:
    """The shared root: others may read what its owner lets them (envs), and never write."""
    root = shared_root.resolve()  # home folders of centres are often links
    _check_way_to(root)
    if not root.exists():
        return private_folder(root)
    check_private(root)
    return root


def _check_way_to(root: Path) -> None:
    """See that not everybody can rename a folder on the way to our root.

    Who owns a project's folder is trusted with it: it is often not its user's.
    """
    for folder in root.parents:
        if folder.exists():
            mode = folder.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise SiteError(
                    f"The shared root {root} is to be used",
                    f"everybody may rename what is in {folder} ({stat.filemode(mode)})",
                    f"run `chmod o-w {folder}`, or set hpcburst.shared-root to another folder",
                )


def scratch_folder(node_root: Path) -> Path:
    """A fresh private folder on the node's own disk, marked as this process's.

    What pilots of ours left there when they were killed is removed on the way.

    Raises:
        SiteError: Others could put a folder of theirs in its place.
    """
    node_root.mkdir(mode=0o700, parents=True, exist_ok=True)  # a fresh node has none of ours
    check_place(node_root)
    for left in node_root.glob(f"{SCRATCH_PREFIX}*"):
        if _is_ours(left) and _owner_is_dead(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=node_root))  # 0700, ours alone
    write_private(folder / OWNER_FILE, json.dumps(_this_process()).encode())
    return folder


def process_started_at(pid: int) -> str:
    """Start time of a process in clock ticks since boot; "" if there is no such process.

    Together with the pid it names a process for good: pids come back, start times do not.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = text.rsplit(")", 1)[1].split()
    return "" if state == "Z" else fields[18]


def _this_process() -> dict[str, str | int]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": process_started_at(pid)}


def _is_ours(folder: Path) -> bool:
    try:
        info = folder.lstat()
    except OSError:  # another pilot was faster
        return False
    mine = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid()
    return mine and (folder / OWNER_FILE).is_file()


def _owner_is_dead(folder: Path) -> bool:
    try:
        owner = json.loads((folder / OWNER_FILE).read_text())
        if owner["host"] != socket.gethostname():
            return time.time() - _modified_at(folder) > 7 * 86400  # cannot look; no run is so long
        return process_started_at(int(owner["pid"])) != str(owner["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return time.time() - _modified_at(folder) > 60  # not written yet, or not ours to read


def _modified_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()
