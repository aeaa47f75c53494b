"""The store of envs: ask it for one, and it is there, built once by whoever asked first."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.activation import capture
from hpcburst.envs.build import EnvRecord, Plan, build, read_record, write_record
from hpcburst.envs.places import is_prefix, prefix_key, resolve_env
from hpcburst.envs.publish import claim, discard, stage_for, sweep
from hpcburst.envs.rattler_process import Progress, RattlerProcess, no_progress
from hpcburst.envs.room import room_for
from hpcburst.envs.solve import Machine, Package, detect_machine, solve, write_lock
from hpcburst.envs.spec import EnvSpec, read_spec
from hpcburst.errors import EnvError
from hpcburst.policy.model import EnvSettings
from hpcburst.tasks import Env

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpcburst.policy.model import Site

_OVERRIDES = "CONDA_OVERRIDE_"


@dataclass(frozen=True, slots=True)
class Preview:
    """What `ensure` would do.

    Attributes:
        key: The env's key.
        prefix: Where it is or would be.
        built: Whether it is there.
        packages: What a solution has now; empty if the env is there.
    """

    key: str
    prefix: str
    built: bool
    packages: tuple[Package, ...] = ()


class EnvStore:
    """Envs under one folder: `locks/`, `envs/`, `pkgs/` (package cache) and `repodata/`.

    The folder may be shared between nodes and people; it is made for its owner alone (0700) when it
    is not there. Threads, processes and nodes may ask for the same env at the same time.

    Args:
        root: The folder.
        settings: How envs are built and where they lie; "auto" means the shared root here.
        node_root: Folder on this node's own disk.
        progress: Told `(what, done, total)` while something takes time.
    """

    def __init__(
        self,
        root: Path | str,
        settings: EnvSettings | None = None,
        *,
        node_root: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.root = Path(root).expanduser().absolute()
        self.settings = settings or EnvSettings()
        self._node_root = node_root or Path(tempfile.gettempdir())
        self._progress = progress or no_progress
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[object, Env] = {}
        self._keys: dict[object, str] = {}
        self._machines: dict[tuple[tuple[str, str], ...], Machine] = {}

    @classmethod
    def of_site(cls, site: Site, progress: Progress | None = None) -> EnvStore:
        """The store that a site's config describes."""
        root = site.paths.shared_root / "envs"
        return cls(root, site.envs, node_root=site.paths.node_root, progress=progress)

    def ensure(self, wanted: EnvSpec | Path | str) -> Env:
        """The env for a spec, an environment file or an existing prefix; built if need be.

        Raises:
            EnvError: It cannot be found, read, solved or built.
        """
        if isinstance(wanted, EnvSpec):
            return self._built(wanted, "the spec")
        path = resolve_env(wanted)
        if path.is_dir():
            return self._existing(path)
        return self._remembered(_fingerprint(path), lambda: self._built(self.read(path), str(path)))

    def key(self, wanted: Path | str) -> str:
        """The key of the env for a file or an existing prefix, known without building it.

        Raises:
            EnvError: It cannot be found or read.
        """
        path = resolve_env(wanted)
        if path.is_dir():
            record = read_record(path)
            return record.key if record else prefix_key(path)
        name = _fingerprint(path)
        if name not in self._keys:
            with self._rattler() as rattler:
                self._keys[name] = self.read(path).key(*self._machine(rattler))
        return self._keys[name]

    def place(self, wanted: EnvSpec | Path | str, prefix: Path | str) -> Env:
        """Build an env at a prefix of the caller's choice, from the same locks and package cache.

        Raises:
            EnvError: It cannot be built, or something else is at that place.
        """
        spec, source = self._spec_of(wanted)
        target = Path(prefix).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._rattler() as rattler:
            key = spec.key(*self._machine(rattler))
            _check_place(target, key)
            return self._ensure_at(target, key, spec, source, rattler)

    def preview(self, wanted: EnvSpec | Path | str) -> Preview:
        """What `ensure` would do; nothing is built, and nothing is written under the root.

        Raises:
            EnvError: The spec cannot be read or solved.
        """
        spec, source = self._spec_of(wanted)
        with self._rattler() as rattler, tempfile.TemporaryDirectory() as scratch:
            key = spec.key(*self._machine(rattler))
            prefix = self.root / "envs" / key
            if read_record(prefix):
                return Preview(key, str(prefix), built=True)
            lock = Path(scratch) / "preview.yml"
            repodata = Path(scratch) / "repodata"
            packages = solve(spec, lock, repodata=repodata, rattler=rattler, source=source)
            return Preview(key, str(prefix), built=False, packages=packages)

    def read(self, path: Path | str) -> EnvSpec:
        """The spec in a file, with this store's channels and mirrors.

        Raises:
            EnvError: The file cannot be read, or is not right.
        """
        return read_spec(path, channels=self.settings.channels, mirror=self.settings.mirror)

    def find(self, key: str) -> EnvRecord | None:
        """The record of the env with this key; None when there is none."""
        return read_record(self.root / "envs" / key) if key and "/" not in key else None

    def list(self) -> tuple[EnvRecord, ...]:
        """The records of all finished envs, the oldest first."""
        folder = self.root / "envs"
        paths = folder.iterdir() if folder.is_dir() else ()
        found = [record for path in paths if (record := read_record(path))]
        return tuple(sorted(found, key=lambda record: (record.made, record.key)))

    def remove(self, key: str, *, lock_too: bool = False) -> EnvRecord:
        """Take an env away. Its lock stays, so that building it again gives the same packages.

        Args:
            key: The env's key.
            lock_too: Take its lock as well: the next build solves anew.

        Raises:
            EnvError: There is no such env.
        """
        record = self.find(key)
        if record is None:
            keys = ", ".join(r.key for r in self.list()) or "none"
            raise EnvError(
                f"The env {key!r} was to be removed",
                f"there is no such env in {self.root}",
                f"the keys there are: {keys}",
            )
        discard(Path(record.prefix))
        if lock_too:
            self._lock_path(key).unlink(missing_ok=True)
        with self._guard:
            self._known = {k: env for k, env in self._known.items() if env.key != key}
        return record

    def _spec_of(self, wanted: EnvSpec | Path | str) -> tuple[EnvSpec, str]:
        if isinstance(wanted, EnvSpec):
            return wanted, "the spec"
        path = resolve_env(wanted)
        return self.read(path), str(path)

    def _built(self, spec: EnvSpec, source: str) -> Env:
        with self._rattler() as rattler:
            key = spec.key(*self._machine(rattler))
            target = self.root / "envs" / key
            return self._remembered(
                key, lambda: self._ensure_at(target, key, spec, source, rattler)
            )

    def _existing(self, prefix: Path) -> Env:
        if not is_prefix(prefix):
            raise EnvError(
                f"The env {prefix} was asked for",
                "that folder has neither packages (conda-meta) nor a Python (bin/python)",
                "name an environment file, or the folder of an env",
            )
        record = read_record(prefix) or EnvRecord(key=prefix_key(prefix), prefix=str(prefix))
        return self._remembered((record.key, str(prefix)), lambda: self._activated(record))

    def _remembered(self, name: object, make: Callable[[], Env]) -> Env:
        with self._guard:
            lock = self._locks.setdefault(str(name), threading.Lock())
        with lock:
            if name not in self._known:
                env = make()
                with self._guard:
                    self._known[name] = env
            return self._known[name]

    def _ensure_at(
        self, target: Path, key: str, spec: EnvSpec, source: str, rattler: RattlerProcess
    ) -> Env:
        record = read_record(target)
        if record is None:
            with room_for(source, target):
                self._prepare()
                record = self._build(target, key, spec, source, rattler)
        return self._activated(record)

    def _build(
        self, target: Path, key: str, spec: EnvSpec, source: str, rattler: RattlerProcess
    ) -> EnvRecord:
        locks = self.root / "locks"
        stage = stage_for(target)
        marker = (
            locks / f"{key}{'' if target.parent == self.root / 'envs' else _suffix(target)}.claim"
        )
        sweep(target.parent, locks)

        def told(host: str) -> None:
            self._progress(f"waiting for {host}, which builds the same env", 0, None)

        with claim(marker, stage, done=lambda: bool(read_record(target)), told=told) as mine:
            if mine:
                self._drop_damaged(target)
                lock = self._locked(key, spec, source, rattler)
                plan = Plan(key, target, stage, lock, self._cache(), spec, source)
                build(plan, rattler, self._progress)
        record = read_record(target)
        if record is None:
            raise EnvError(f"The env {target} was built", "it is gone again", "run it again")
        return record

    def _locked(self, key: str, spec: EnvSpec, source: str, rattler: RattlerProcess) -> Path:
        lock = self._lock_path(key)
        if not lock.exists():
            repodata = self.root / "repodata"
            write_lock(spec, lock, repodata=repodata, rattler=rattler, source=source)
        return lock

    def _activated(self, record: EnvRecord) -> Env:
        if record.activation is None:
            record = replace(record, activation=capture(Path(record.prefix)))
            if record.made:  # an env of ours; in others we write nothing
                with suppress(OSError):
                    write_record(Path(record.prefix), record)
        return Env(record.key, record.prefix, dict(record.activation or {}))

    def _drop_damaged(self, target: Path) -> None:
        if target.parent == self.root / "envs" and target.exists():
            discard(target)  # all that is there was published whole: somebody took its record away

    def _lock_path(self, key: str) -> Path:
        return self.root / "locks" / f"{key}.lock.yml"

    def _machine(self, rattler: RattlerProcess) -> tuple[str, tuple[str, ...]]:
        overrides = tuple(sorted(i for i in os.environ.items() if i[0].startswith(_OVERRIDES)))
        machine = self._machines.get(overrides)
        if machine is None:
            machine = self._machines[overrides] = detect_machine(rattler)
        return machine.platform, machine.virtual_packages

    def _prepare(self) -> None:
        if not self.root.exists():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = self.root.stat().st_mode
        if mode & stat.S_IWOTH:
            raise EnvError(
                f"Envs were to be kept in {self.root}",
                "everybody may write there, and could put programs into them",
                f"run `chmod o-w {self.root}`",
            )
        for name in ("locks", "envs", "pkgs", "repodata"):
            (self.root / name).mkdir(exist_ok=True)

    def _cache(self) -> tuple[Path, ...]:
        """The package cache, behind one on this node where the shared file system has no locks."""
        shared = self.root / "pkgs"
        return (shared,) if _can_lock(shared) else (_node_cache(), shared)

    def _rattler(self) -> RattlerProcess:
        return RattlerProcess(self._progress)


def _check_place(target: Path, key: str) -> None:
    record = read_record(target)
    taken = record.key != key if record else target.exists() and any(target.iterdir())
    if taken:
        raise EnvError(
            f"An env was to be built in {target}",
            f"the env {record.key} is there" if record else "that folder is not empty",
            "remove it, or ask for another prefix",
        )


def _fingerprint(path: Path) -> tuple[str, int, int]:
    """Changes when the file does."""
    found = path.stat()
    return (str(path), found.st_mtime_ns, found.st_size)


def _suffix(target: Path) -> str:
    import hashlib

    return "-" + hashlib.sha256(str(target).encode()).hexdigest()[:8]


def _can_lock(folder: Path) -> bool:
    handle = os.open(folder / ".can-lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _node_cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"hpcburst-pkgs-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EnvError(
            f"Packages were to be unpacked in {folder}",
            "that folder is not yours alone",
            "set TMPDIR to a folder of your own",
        )
    return folder
