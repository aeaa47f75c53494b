"""The depot: archives on the shared file system, packed so that a node opens a handful of files.

    depot/<key>.json          link to the pack of the env with this key; the first publisher's stays
    depot/packs/<name>.json   a pack: what a node must know to link one env on its own disk
    depot/bundles/<sha256>    archives behind one another, uncompressed, or the extras of one env

An env has a hundred archives and more, and 300 nodes would open each of them at the same time. So
those of one env that no bundle has yet go into one new bundle; envs share bundles, and no env needs
more than MAX_BUNDLES of them. Nothing is ever changed in place, and nothing is locked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hpcburst.envs.building.room import room_for
from hpcburst.envs.depot.extras import Extras, find_extras, write_extras
from hpcburst.envs.depot.packs import Bundle, Pack, Piece, digest_of, pack_as_text, read_pack
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from io import BufferedRandom

    from hpcburst.envs.building.build import EnvRecord
    from hpcburst.envs.building.solve import Package

MAX_BUNDLES = 7
"""Bundles an env's archives are in at most. With its pack and its extras a node opens 9 files."""

GRACE_S = 24 * 3600.0
"""Seconds that a file nobody refers to stays: a publisher may be about to refer to it."""

_PART = ".part-"
_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An archive to publish; without a path it must be in a bundle already."""

    url: str
    sha256: str
    path: Path | None

    @property
    def file_name(self) -> str:
        """What the archive is called, from its URL."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])


class Depot:
    """The packs of envs in a folder. Nodes and processes may publish at the same time.

    Args:
        folder: The folder; made when something is published.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packs = folder / "packs"
        self._bundles = folder / "bundles"

    def publish(
        self,
        key: str,
        *,
        lock: Path,
        files: Mapping[str, Path | str],
        packages: Sequence[Package],
        prefix: Path,
        record: EnvRecord,
        private: bool = False,
    ) -> Path:
        """Pack a built env, so that nodes can link it.

        Args:
            key: Its key.
            lock: Its lock.
            files: URL to archive, for all packages that the depot does not have yet.
            packages: What the lock holds.
            prefix: Where it is built: finished, and where its paths say that it is.
            record: Its record, with its activation.
            private: Whether nobody else may read what is written (it may hold secrets).

        Returns:
            The pack's file; that of the first publisher if this env was published before.

        Raises:
            CannotMove: The env is good at its prefix only.
            EnvError: An archive is missing or damaged, or there is no room.
        """
        first = self.read(key)
        if first is not None and self.is_whole(first):
            return self.path(first)
        with room_for(record.spec or key, self.folder / key):
            for folder in (self.folder, self._packs, self._bundles):
                folder.mkdir(exist_ok=True)
            pack = Pack(
                key=key,
                name="",
                prefix=str(prefix),
                lock=lock.read_text(encoding="utf-8"),
                bundles=(),
                extras=(extras := find_extras(prefix)),
                extras_in=self._write(partial(_pack_extras, prefix, extras), private=private),
                activation=dict(record.activation or {}),
                record={**asdict(record), "activation": None},
            )
            return self.path(self._publish(pack, _wanted(files, packages), private=private))

    def read(self, key: str) -> Pack | None:
        """The pack of an env, by opening one file; None when there is none, or it is unreadable."""
        try:
            return read_pack(self.folder / f"{key}.json")
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def path(self, pack: Pack) -> Path:
        """The file a pack is in: what nodes are told."""
        return self._packs / f"{pack.name}.json"

    def is_whole(self, pack: Pack) -> bool:
        """Whether all files that nodes will open are there: one look at each."""
        return all(path.exists() for path in self._files(pack))

    def damaged(self, pack: Pack) -> list[Path]:
        """Those of a pack's files that are gone or not what they were; reads them all."""
        return [path for path in self._files(pack) if not _is_intact(path)]

    def published(self) -> tuple[Pack, ...]:
        """All packs, by key."""
        found = (self.read(link.stem) for link in sorted(_links(self.folder)))
        return tuple(pack for pack in found if pack is not None)

    def remove(self, key: str) -> bool:
        """Take an env's pack away; its archives go with the next sweep, if nobody shares them.

        Returns:
            Whether there was one.
        """
        link = self.folder / f"{key}.json"
        try:
            pack = self._packs / link.readlink().name
        except OSError:
            return False
        link.unlink(missing_ok=True)
        pack.unlink(missing_ok=True)
        return True

    def sweep(self, grace_s: float = GRACE_S) -> list[Path]:
        """Delete bundles that no pack refers to, and what dead publishers left.

        Args:
            grace_s: Seconds for which such a file is left alone.

        Returns:
            What was deleted.
        """
        announced = {self._packs / link.readlink().name for link in _links(self.folder)}
        packs = [path for path in _listed(self._packs) if path.suffix == ".json"]
        gone = [path for path in packs if path not in announced and _drop_old(path, grace_s)]
        kept = [pack for path in packs if path not in gone and (pack := _read_or_none(path))]
        needed = {bundle.name for pack in kept for bundle in (*pack.bundles, pack.extras_in)}
        if len(kept) < len(packs) - len(gone):
            return gone  # a pack that cannot be read now may need any of the bundles
        loose = [path for path in _listed(self._bundles) if path.name not in needed]
        parts = [path for path in _listed(self._packs) if path.name.startswith(_PART)]
        return gone + [path for path in loose + parts if _drop_old(path, grace_s)]

    def _files(self, pack: Pack) -> list[Path]:
        return [self._bundles / bundle.name for bundle in (*pack.bundles, pack.extras_in)]

    def _publish(self, pack: Pack, wanted: Sequence[_Wanted], *, private: bool) -> Pack:
        for _ in range(_TRIES):
            bundles = self._bundled(wanted, pack, private=private)
            first = self._announce(replace(pack, bundles=bundles), private=private)
            if self.is_whole(first):
                return first
            self.remove(pack.key)  # a sweep was faster than our look at the bundles
        raise EnvError(
            f"The env {pack.key} was to be published in {self.folder}",
            "its archives are taken away again and again",
            "see which other process removes files there",
        )

    def _bundled(
        self, wanted: Sequence[_Wanted], pack: Pack, *, private: bool
    ) -> tuple[Bundle, ...]:
        """Bundles that hold all that is wanted: those that have most of it, and a new one."""
        chosen = self._chosen({want.sha256: want for want in wanted}, private=private)
        had = {piece.sha256 for bundle in chosen for piece in bundle.pieces}
        rest = [want for want in wanted if want.sha256 not in had]
        missing = [want.url for want in rest if want.path is None]
        if missing:
            raise EnvError(
                f"The env {pack.key} was to be published in {self.folder}",
                f"the archives {', '.join(missing[:3])} are neither there nor fetched",
                "run it again",
            )
        if not rest:
            return tuple(chosen)
        return (*chosen, self._write(partial(_pack_archives, rest), private=private))

    def _chosen(self, wanted: Mapping[str, _Wanted], *, private: bool) -> list[Bundle]:
        """The bundles that together hold most of these archives (by digest), one less than may."""
        shared = self._shared(wanted)
        chosen: list[Bundle] = []
        rest = set(wanted)
        while rest and len(chosen) < MAX_BUNDLES - 1:
            held = Counter({name: len(rest & set(pieces)) for name, pieces in shared.items()})
            name, count = held.most_common(1)[0] if held else ("", 0)
            if not count:
                break
            pieces = shared.pop(name)
            if self._keep(name, private=private):
                chosen.append(Bundle(name, tuple(pieces[d] for d in sorted(rest & set(pieces)))))
                rest -= set(pieces)
        return chosen

    def _shared(self, wanted: Mapping[str, _Wanted]) -> dict[str, dict[str, Piece]]:
        """Where packs find these archives: bundle to digest to piece, under the names wanted."""
        found: dict[str, dict[str, Piece]] = {}
        for bundle in (bundle for pack in self.published() for bundle in pack.bundles):
            for piece in bundle.pieces:
                want = wanted.get(piece.sha256)
                if want is not None:
                    named = replace(piece, url=want.url, file_name=want.file_name)
                    found.setdefault(bundle.name, {})[piece.sha256] = named
        return found

    def _keep(self, name: str, *, private: bool) -> bool:
        """Keep a bundle from the next sweep; False if it is gone, or hidden from our readers."""
        path = self._bundles / name
        try:
            with suppress(PermissionError):  # somebody else's, in a root that a group shares
                os.utime(path)
            return private or bool(path.stat().st_mode & 0o044)
        except OSError:
            return False

    def _write(self, fill: Callable[[BufferedRandom], Sequence[Piece]], *, private: bool) -> Bundle:
        """Write a bundle aside and give it the name of its digest."""
        with _aside(self._bundles, private=private) as part:
            with part.open("wb+") as file:
                pieces = fill(file)
                file.seek(0)
                name = hashlib.file_digest(file, "sha256").hexdigest()
            # An equal one is replaced by this one, which is as good and too young to be swept.
            part.replace(self._bundles / name)
        return Bundle(name, tuple(pieces))

    def _announce(self, pack: Pack, *, private: bool) -> Pack:
        """Write a pack and let its key name it; the pack that the key names now."""
        named = replace(pack, name=f"{pack.key}-{digest_of(pack)[:12]}")
        path, link = self.path(named), self.folder / f"{pack.key}.json"
        with _aside(self._packs, private=private) as part:
            part.write_text(pack_as_text(named), encoding="utf-8")
            part.replace(path)
        for _ in range(_TRIES):
            with suppress(FileExistsError):
                link.symlink_to(path.relative_to(self.folder))
                return named
            first = self.read(pack.key)
            if first is not None:
                if first.name != named.name:
                    path.unlink(missing_ok=True)
                return first
            self.remove(pack.key)  # it names a pack that was taken away
        raise FileExistsError(f"{link} is something else than a link to a pack")


def _wanted(files: Mapping[str, Path | str], packages: Sequence[Package]) -> list[_Wanted]:
    """What to publish; a package whose lock says only an md5 gets its sha256 here."""
    found = []
    for package in packages:
        path = Path(files[package.url]) if package.url in files else None
        found.append(_Wanted(package.url, package.sha256 or _sha256_of(path), path))
    return found


def _is_intact(bundle: Path) -> bool:
    try:
        return _sha256_of(bundle) == bundle.name
    except OSError:
        return False


def _sha256_of(path: Path | None) -> str:
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack_archives(wanted: Sequence[_Wanted], to: BufferedRandom) -> list[Piece]:
    """Write archives behind one another, each seen to be what the lock says."""
    pieces = []
    for want in wanted:
        offset, digest = to.tell(), hashlib.sha256()
        with want.path.open("rb") as archive:  # type: ignore[union-attr]  # seen by the caller
            while data := archive.read(1 << 20):
                digest.update(data)
                to.write(data)
        found = digest.hexdigest()
        if found != want.sha256:
            raise EnvError(
                f"The archive {want.path} was to be put into the depot",
                f"it is damaged: its sha256 is {found}, and the lock says {want.sha256}",
                "remove that file, then run it again",
            )
        pieces.append(Piece(want.url, want.file_name, found, offset, to.tell() - offset))
    return pieces


def _pack_extras(prefix: Path, extras: Extras, to: BufferedRandom) -> list[Piece]:
    write_extras(prefix, extras, to)
    size = to.tell()
    to.seek(0)
    return [Piece("", "extras.tar.gz", hashlib.file_digest(to, "sha256").hexdigest(), 0, size)]


@contextmanager
def _aside(folder: Path, *, private: bool) -> Iterator[Path]:
    """A new file to be renamed when it is whole; gone if it was not."""
    part = folder / f"{_PART}{secrets.token_hex(8)}"
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        if not private:
            part.chmod(0o644)
        yield part
    finally:
        part.unlink(missing_ok=True)


def _drop_old(path: Path, grace_s: float) -> bool:
    try:
        if time.time() - path.stat().st_mtime < grace_s:
            return False
        path.unlink()
    except OSError:
        return False
    return True


def _read_or_none(path: Path) -> Pack | None:
    try:
        return read_pack(path)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _links(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if path.is_symlink()]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
