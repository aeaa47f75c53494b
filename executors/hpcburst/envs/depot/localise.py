"""An env on a node's own disk: linked from its pack by the first pilot that needs it.

Whatever the number of packages, the shared file system is asked to open the pack, the extras and a
few bundles, once per node; afterwards it is not asked at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.activation.capture import relocated
from hpcburst.envs.building.build import EnvRecord, write_record
from hpcburst.envs.building.publish import claim, discard, stage_for, staged
from hpcburst.envs.building.room import Room, raise_if_no_room, room_for
from hpcburst.envs.child.process import Progress, RattlerFailed, RattlerProcess, no_progress
from hpcburst.envs.depot.extras import remove_files, unpack_extras
from hpcburst.envs.depot.node_disk import WHAT_TO_DO, InUse, NodeFolder, choose, find, first_fit
from hpcburst.envs.depot.packs import Pack, Piece, bundle_of, read_pack
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hpcburst.tasks import Env

COPIERS = 4
"""Threads that copy archives: one stream seldom gets all that a parallel file system gives."""

CHUNK = 4 << 20
"""Bytes read at a time: a stripe or more of most parallel file systems."""

MARGIN = 1.1
"""Room is needed for folders and block sizes too, which no record counts."""

_INCOMING = ".incoming"


def localise(pack: Path, node_root: Path, *, progress: Progress = no_progress) -> Env:
    """The env of a pack on this node's own disk; linked there if it is not there yet.

    Args:
        pack: File in the depot, as `tasks.Env.pack` names it.
        node_root: Folder on the node's own disk; where it has no room, `/tmp` and `/dev/shm` are
            looked at.
        progress: Told `(what, done, total)` while it takes time.

    Raises:
        EnvError: The pack is gone or damaged, or no disk of the node has room. Nothing half-made
            remains then.
    """
    with linked(pack, node_root, progress=progress) as found:
        return found.env


def linked(pack: Path, node_root: Path, *, progress: Progress = no_progress) -> InUse:
    """As `localise`; and the env is not swept while the answer is open."""
    name = pack.stem
    found = find(name, node_root)
    if found is not None:
        return found
    folder = first_fit(node_root)
    stage = stage_for(folder.envs / name)

    def done() -> bool:
        here = find(name, node_root)
        if here is not None:
            here.close()
        return here is not None

    def told(_host: str) -> None:
        progress("waiting for another pilot on this node, which links the same env", 0, None)

    with claim(folder.claims / f"{name}.claim", stage, done=done, told=told) as mine:
        if mine:
            folder.sweep()
            _link(pack, stage, node_root, progress)
    found = find(name, node_root)
    if found is None:
        raise EnvError(
            f"The env {name} was linked on this node", "it is gone again", "run it again"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Linking:
    """One env on its way to a node's disk."""

    pack: Pack
    file: Path
    folder: NodeFolder
    stage: Path
    final: Path
    progress: Progress

    @property
    def incoming(self) -> Path:
        """What must be there only while it is linked; in the stage, so that it goes with it."""
        return self.stage / _INCOMING


def _link(file: Path, stage: Path, node_root: Path, progress: Progress) -> None:
    pack = _read(file)
    source = str(pack.record.get("spec") or pack.key)
    folder, room = choose(source, node_root, lambda folder: _needed(pack, folder))
    final = folder.envs / pack.name
    if folder.envs != stage.parent:
        stage = stage_for(final)
    with room_for(source, final, needed=room, todo=WHAT_TO_DO):
        if final.exists():
            discard(final)  # it was whole once, and somebody took its record away
        with staged(final, stage) as publish:
            linking = _Linking(pack, file, folder, stage, final, progress)
            linking.incoming.mkdir(mode=0o700)
            _fill(linking)
            shutil.rmtree(linking.incoming)
            write_record(stage, _record(pack, final))
            publish()


def _fill(linking: _Linking) -> None:
    pack = linking.pack
    extras = _fetch(linking, pack.extras_in.pieces)[0]
    _install(linking)
    remove_files(linking.stage, pack.extras.removed)
    linking.progress("unpacking what pip and scripts added", 0, None)
    unpack_extras(
        extras,
        linking.stage,
        rewritten=frozenset(pack.extras.rewritten),
        old=pack.prefix,
        new=str(linking.final),
    )


def _install(linking: _Linking) -> None:
    """Link the archives' packages; from scratch when the node's cache turns out to be damaged."""
    pieces = [piece for bundle in linking.pack.bundles for piece in bundle.pieces]
    missing = [piece for piece in pieces if not linking.folder.has(piece.sha256)]
    linking.folder.cache.mkdir(parents=True, exist_ok=True)
    try:
        _install_with(linking, missing, linking.folder.cache)
    except RattlerFailed as failed:
        raise_if_no_room(failed.text)
    else:
        for piece in missing:
            linking.folder.note(piece.sha256)
        return
    _clear(linking.stage)
    try:
        _install_with(linking, pieces, linking.incoming / "cache")
    except RattlerFailed as failed:
        raise_if_no_room(failed.text)
        raise EnvError(
            f"The env {linking.pack.key} was to be linked in {linking.folder.envs}",
            failed.text,
            f"remove {linking.folder.path} on the node {os.uname().nodename}, then run it again",
        ) from None


def _install_with(linking: _Linking, pieces: Iterable[Piece], cache: Path) -> None:
    taken = list(pieces)
    files = dict(zip((p.url for p in taken), map(str, _fetch(linking, taken)), strict=True))
    lock = linking.incoming / "lock.yml"
    lock.write_text(linking.pack.lock, encoding="utf-8")
    with RattlerProcess(linking.progress) as rattler:
        rattler.call(
            "install",
            lock=str(lock),
            stage=str(linking.stage),
            prefix=str(linking.final),
            cache=[str(cache)],
            archives=files,
            offline=True,
            scripts=False,  # what they did travels in the extras
        )


def _fetch(linking: _Linking, pieces: Iterable[Piece]) -> list[Path]:
    """Copy pieces out of their bundles; each bundle is opened once."""
    wanted = list(pieces)
    homes = {
        piece: bundle_of(linking.file, bundle)
        for bundle in (*linking.pack.bundles, linking.pack.extras_in)
        for piece in bundle.pieces
    }
    with ExitStack() as stack, ThreadPoolExecutor(COPIERS) as threads:
        handles: dict[Path, int] = {}
        for path in dict.fromkeys(homes[piece] for piece in wanted):
            handles[path] = _open(path)
            stack.callback(os.close, handles[path])
        targets = [_place(linking.incoming, piece) for piece in wanted]
        copies = threads.map(
            lambda piece, target: _copy(handles[homes[piece]], homes[piece], piece, target),
            wanted,
            targets,
        )
        total, done = sum(piece.size for piece in wanted), 0
        for piece, _ in zip(wanted, copies, strict=True):
            done += piece.size
            linking.progress("copying packages to this node", done, total)
    return targets


def _place(incoming: Path, piece: Piece) -> Path:
    folder = incoming / piece.sha256
    folder.mkdir(exist_ok=True)
    return folder / Path(piece.file_name).name


def _copy(handle: int, bundle: Path, piece: Piece, target: Path) -> None:
    digest, at, end = hashlib.sha256(), piece.offset, piece.offset + piece.size
    with target.open("wb") as file:
        while at < end and (data := os.pread(handle, min(CHUNK, end - at), at)):
            digest.update(data)
            file.write(data)
            at += len(data)
    if digest.hexdigest() != piece.sha256:
        raise EnvError(
            f"{piece.file_name} was read from the depot",
            f"the file {bundle} is damaged: at byte {piece.offset} it holds something else",
            "remove that file and the envs that need it (`hpcburst env remove KEY`), then run it "
            "again",
        )


def _open(bundle: Path) -> int:
    try:
        return os.open(bundle, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _gone(bundle, error) from error


def _read(pack: Path) -> Pack:
    try:
        return read_pack(pack)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _gone(pack, error) from error


def _gone(path: Path, error: Exception) -> EnvError:
    found = "it was taken away" if isinstance(error, FileNotFoundError) else str(error)
    return EnvError(
        f"The env in {path} was to be linked on the node {os.uname().nodename}",
        found,
        "run it again: the env is built anew then; if that does not help, see that this node sees "
        "the folder",
    )


def _clear(stage: Path) -> None:
    """Empty a stage, which must stay the same folder."""
    for path in stage.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != _INCOMING:
                shutil.rmtree(path)
        else:
            path.unlink()


def _needed(pack: Pack, folder: NodeFolder) -> Room:
    """Room for linking: packages that are not there, what is written for the prefix, archives."""
    pieces = [piece for bundle in pack.bundles for piece in bundle.pieces]
    missing = sum(piece.size for piece in pieces if not folder.has(piece.sha256))
    part = missing / (pack.archives or 1)
    added = sum(piece.size for piece in pack.extras_in.pieces)
    size = pack.extras.size * part + pack.extras.copied + missing + 4 * added
    return Room(int(size * MARGIN) + (1 << 20), int(pack.extras.files * MARGIN * 1.5) + 1000)


def _record(pack: Pack, prefix: Path) -> EnvRecord:
    names = {field.name for field in fields(EnvRecord)}
    built = EnvRecord(**{name: value for name, value in pack.record.items() if name in names})
    return replace(
        built,
        prefix=str(prefix),
        made=time.time(),
        host=os.uname().nodename,
        activation=relocated(pack.activation, pack.prefix, str(prefix)),
    )
