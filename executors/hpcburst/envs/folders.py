"""What lies where under the root of a store of envs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcburst.comms.staging import check_place
from hpcburst.envs.specs.spec import Archive, EnvSpec
from hpcburst.errors import EnvError


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of a store. Its root may be shared between nodes and people.

    Attributes:
        root: Where everything is.
    """

    root: Path

    @property
    def locks(self) -> Path:
        """Locks, what was asked for them, and the claims of builders."""
        return self.root / "locks"

    @property
    def envs(self) -> Path:
        """Envs that every node sees."""
        return self.root / "envs"

    @property
    def packages(self) -> Path:
        """Packages, extracted once for all envs."""
        return self.root / "pkgs"

    @property
    def repodata(self) -> Path:
        """What channels list."""
        return self.root / "repodata"

    @property
    def incoming(self) -> Path:
        """Archives on their way, half of them or whole."""
        return self.root / "incoming"

    @property
    def machines(self) -> Path:
        """What kinds of machines are, as packages see it."""
        return self.root / "machines"

    @property
    def depot(self) -> Path:
        """Archives that nodes link envs from."""
        return self.root / "depot"

    def env(self, key: str) -> Path:
        """The prefix of the shared env with this key."""
        return self.envs / key

    def lock(self, key: str) -> Path:
        """The lock of the env with this key."""
        return self.locks / f"{key}.lock.yml"

    def claim(self, target: Path) -> Path:
        """The claim on building an env at this place."""
        if target.parent == self.envs:
            return self.locks / f"{target.name}.claim"
        return self.locks / f"{_digest(target)}.place.claim"

    def private_name(self, key: str) -> str:
        """A name for the env on a node where envs of other stores may have the same key."""
        return f"{key}-{_digest(self.root)[:12]}"

    def prepare(self) -> None:
        """Make the folders that are not there; the root is made for its owner alone (0700).

        Raises:
            EnvError: Everybody may write to the root or to a folder in it.
            OSError: A folder cannot be made.
        """
        if not self.root.exists():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_closed(self.root)
        for folder in (
            self.locks,
            self.envs,
            self.packages,
            self.repodata,
            self.machines,
            self.incoming,
        ):
            folder.mkdir(mode=0o775, exist_ok=True)
            _check_closed(folder)

    def keep_spec(self, key: str, spec: EnvSpec) -> None:
        """Keep what was asked beside the lock: an env can be built again without its file.

        Raises:
            OSError: It cannot be written.
        """
        path = self._spec(key)
        if path.exists():
            return
        aside = path.with_name(f".{secrets.token_hex(8)}.json")
        try:
            aside.touch(mode=0o600 if spec.holds_secrets else 0o644, exist_ok=False)
            aside.write_text(json.dumps(asdict(spec), indent=1), encoding="utf-8")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def spec(self, key: str) -> EnvSpec | None:
        """What was asked for the env with this key; None if that was not kept."""
        try:
            return _spec_from(json.loads(self._spec(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def forget_lock(self, key: str) -> None:
        """Take a lock away, with all that belongs to it."""
        for path in self.locks.glob(f"{key}.*"):
            if path.suffix != ".claim":
                path.unlink(missing_ok=True)

    def forget_pip_locks(self, key: str) -> None:
        """Take the locks of an env's pip section away."""
        for path in self.locks.glob(f"{key}.*.pylock.toml"):
            path.unlink(missing_ok=True)

    def caches(self) -> tuple[Path, ...]:
        """The package caches, the one to write to first.

        Where the shared file system has no locks, that is one on this node.

        Raises:
            EnvError: The node's own cache is not private.
            SiteError: Others could put one of theirs in its place.
        """
        return (self.packages,) if _can_lock(self.packages) else (_node_cache(), self.packages)

    def _spec(self, key: str) -> Path:
        return self.locks / f"{key}.spec.json"


def _check_closed(folder: Path) -> None:
    if folder.stat().st_mode & stat.S_IWOTH:
        raise EnvError(
            f"Envs were to be kept in {folder}",
            "everybody may write there, and could put programs into them",
            f"run `chmod o-w {folder}`",
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:20]


def _spec_from(raw: dict[str, object]) -> EnvSpec:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    rows = [dict(row) for row in fields["explicit"]]  # type: ignore[attr-defined]
    archives = [Archive(**{**row, "depends": tuple(row["depends"])}) for row in rows]
    return EnvSpec(**{**fields, "explicit": tuple(archives)})  # type: ignore[arg-type]


def _can_lock(folder: Path) -> bool:
    probe = folder / f".can-lock-{secrets.token_hex(4)}"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
        with suppress(OSError):
            probe.unlink()
    return True


def _node_cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"hpcburst-pkgs-{os.getuid()}"
    check_place(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EnvError(
            f"Packages were to be unpacked in {folder}",
            "that folder is not yours alone",
            "set TMPDIR to a folder of your own",
        )
    return folder
