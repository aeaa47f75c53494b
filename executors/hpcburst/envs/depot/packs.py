"""Packs: all that a node must know to link one env on its own disk, in one file."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.depot.extras import Extras

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """One archive in a bundle.

    Attributes:
        url: Where it came from; the lock names it so.
        file_name: What it is called.
        sha256: Digest of it in hex.
        offset: Its first byte in the bundle.
        size: Its bytes.
    """

    url: str
    file_name: str
    sha256: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file of pieces.

    Attributes:
        name: Digest in hex of the whole file, and its name.
        pieces: Those of its pieces that an env needs.
    """

    name: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """All that a node must know to link an env.

    Attributes:
        key: The env's key.
        name: Name of this pack: the key, and a digest, since a key can be built again.
        prefix: The prefix the env was built at; its extras and activation name it.
        lock: Text of its lock.
        bundles: Where its archives are.
        extras_in: The bundle that holds its extras.
        extras: What that is.
        activation: What activating the env changes, at `prefix`.
        record: The env's record, as it was when it was published.
    """

    key: str
    name: str
    prefix: str
    lock: str
    bundles: tuple[Bundle, ...]
    extras_in: Bundle
    extras: Extras
    activation: Mapping[str, str | None] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def archives(self) -> int:
        """Bytes of all its archives."""
        return sum(piece.size for bundle in self.bundles for piece in bundle.pieces)


def digest_of(pack: Pack) -> str:
    """What differs between two packs that are not the same, in hex."""
    return hashlib.sha256(json.dumps(asdict(pack), sort_keys=True).encode()).hexdigest()


def pack_as_text(pack: Pack) -> str:
    """What `read_pack` reads."""
    return json.dumps({"schema": SCHEMA, **asdict(pack)})


def read_pack(path: Path) -> Pack:
    """The pack in a file, with one open and nothing else that a file server is asked.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a pack, or of a newer hpcburst.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(handle, 1 << 20):
            parts.append(part)
    finally:
        os.close(handle)
    raw = json.loads(b"".join(parts))
    if raw.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} is not a pack that this version of hpcburst can read")
    raw["bundles"] = tuple(map(_bundle, raw["bundles"]))
    raw["extras_in"] = _bundle(raw["extras_in"])
    raw["extras"] = Extras(**{k: _frozen(v) for k, v in raw["extras"].items()})
    return Pack(**raw)


def bundle_of(pack_file: Path, bundle: Bundle) -> Path:
    """Where a bundle is, as seen from the file of a pack that names it."""
    return pack_file.parent.parent / "bundles" / bundle.name


def _bundle(raw: Mapping[str, Any]) -> Bundle:
    return Bundle(raw["name"], tuple(Piece(**piece) for piece in raw["pieces"]))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
