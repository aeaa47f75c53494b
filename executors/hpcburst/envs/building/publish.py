"""Many builders, one env: claims, stages, and the rename that decides.

No file is locked, because shared file systems may not know how. A *claim* (a file made with O_EXCL)
only saves work: who finds one waits. A *stage* is the hidden folder an env is built in; renaming it
to its final name is what publishes it, and only one rename can win. Both are kept warm by a
heartbeat on their modification time; those gone cold belong to dead builders and are swept.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEAT_S = 10.0
"""Seconds between heartbeats: one metadata call each on the shared file system."""

STALE_S = 60.0
"""A claim or stage without a heartbeat for so long is dead: six beats, for a slow file server."""

WAIT_S = 1800.0
"""Seconds to wait for another builder at most; then build as well, and let the rename decide."""

POLL_S = (0.05, 1.0)
"""First and longest pause between two looks at another builder's claim; they grow by half."""

_STAGE = re.compile(r"\.b-[0-9a-f]{9,}")


@dataclass(frozen=True, slots=True)
class Builder:
    """Who holds a claim.

    Attributes:
        host: Its node.
        kernel: That node since its last boot, and the namespace in which `pid` counts.
        pid: Its process there.
        started: When that process started, in ticks after boot: pids are used again.
        stage: The folder it builds in.
    """

    host: str
    kernel: str
    pid: int
    started: str
    stage: str

    @classmethod
    def me(cls, stage: Path) -> Builder:
        """This process, building in `stage`."""
        pid = os.getpid()
        return cls(socket.gethostname(), _kernel(), pid, _start_ticks(pid), str(stage))

    def is_dead_here(self) -> bool:
        """Whether it ran on this node and is certainly gone; False when that cannot be known."""
        same = bool(self.kernel) and self.kernel == _kernel()
        return same and _start_ticks(self.pid) != self.started


@contextmanager
def claim(
    path: Path, stage: Path, *, done: Callable[[], bool], told: Callable[[str], None]
) -> Iterator[bool]:
    """Hold the claim on one build, after waiting for whoever holds it now.

    Args:
        path: The claim file.
        stage: Folder that will be built in; swept by the next builder if this one dies.
        done: Whether the build has become needless; asked while waiting.
        told: Is told the host that is waited for.

    Yields:
        True when there is something to build, False when another builder has done it.
    """
    mine = _take_or_wait(path, stage, done, told)
    try:
        with _heartbeat(path) if mine else _nothing():
            yield not done()
    finally:
        if mine and read_claim(path) == Builder.me(stage):
            path.unlink(missing_ok=True)


@contextmanager
def staged(final: Path, stage: Path) -> Iterator[Callable[[], bool]]:
    """A folder to build in, gone afterwards whatever happens.

    Yields:
        `publish`, which gives the stage its final name; False means another builder was first.
    """
    stage.mkdir(mode=0o755, parents=False)
    opened = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _heartbeat(stage):
            yield lambda: _publish(stage, final, opened)
    finally:
        os.close(opened)
        shutil.rmtree(stage, ignore_errors=True)


def stage_for(final: Path) -> Path:
    """A new hidden name beside `final`, equally long, so that paths in files can be rewritten."""
    length = max(len(final.name), 12)
    return final.with_name(f".b-{secrets.token_hex(length)}"[:length])


def discard(prefix: Path) -> None:
    """Take an env away: out of sight in one step, then file by file."""
    hidden = stage_for(prefix)
    with suppress(FileNotFoundError):
        prefix.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def sweep(folder: Path, claims: Path) -> list[Path]:
    """Delete what dead builders left in `folder`; returns the stages taken away."""
    stages = [path for path in _listed(folder) if _STAGE.fullmatch(path.name)]
    if not stages:
        return []
    now = _server_time(claims)
    cold = [path for path in stages if now - (_mtime(path) or now) > STALE_S]
    for path in cold:
        discard(path)
    return cold


def read_claim(path: Path) -> Builder | None:
    """Who holds a claim; None when nobody does, or its file is just being written."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Builder(**fields)
    except (OSError, ValueError, TypeError):
        return None


def _publish(stage: Path, final: Path, opened: int) -> bool:
    # Who was suspended for a minute may have been swept, and rattler makes folders anew as it goes.
    if not stage.exists() or not os.path.samestat(os.fstat(opened), stage.stat()):
        raise EnvError(
            f"The env {final} was being built",
            "this builder stood still so long that another one took it for dead",
            "run it again",
        )
    try:
        stage.rename(final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def _take_or_wait(
    path: Path, stage: Path, done: Callable[[], bool], told: Callable[[str], None]
) -> bool:
    pause, longest = POLL_S
    give_up_at = time.monotonic() + WAIT_S
    while not _take(path, stage):
        if done() or time.monotonic() > give_up_at:
            return False
        holder = read_claim(path)
        if _is_stale(path, holder):
            _drop_stale(path, holder)
            continue
        told(holder.host if holder else "another node")
        time.sleep(pause)
        pause = min(pause * 1.5, longest)
    return True


def _take(path: Path, stage: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(handle, json.dumps(asdict(Builder.me(stage))).encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return True


def _is_stale(path: Path, holder: Builder | None) -> bool:
    if holder is not None and holder.is_dead_here():
        return True
    touched = _mtime(path)
    return touched is not None and _server_time(path.parent) - touched > STALE_S


def _drop_stale(path: Path, holder: Builder | None) -> None:
    # Two may do this at once, and one of them take the other's new claim: both build, one wins.
    path.unlink(missing_ok=True)
    if holder is not None and _STAGE.fullmatch(Path(holder.stage).name):
        discard(Path(holder.stage))


@contextmanager
def _heartbeat(path: Path) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, name="env-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _server_time(folder: Path) -> float:
    """Now, by the clock of the file server: the clocks of nodes differ, and mtimes are compared."""
    probe = folder / f".now-{secrets.token_hex(6)}"
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def _start_ticks(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
