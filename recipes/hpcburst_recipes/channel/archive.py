"""Packs a staged prefix into a `.conda` archive: a zip of two zstd-compressed tar files."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
import time
import zipfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACEHOLDER_LENGTH = 255
"""Characters of a staging path. A prefix that a file names can be replaced by any shorter one."""

LEVEL = 3
"""zstd level: a local channel is written once and read once, so speed goes before size."""


@dataclass(frozen=True, slots=True)
class Package:
    """What a conda package says about itself.

    Attributes:
        name: Its conda name.
        version: Its version.
        build: Its build string; tells the variants of a version apart.
        depends: Match specs of what it needs.
        constrains: Match specs that others must satisfy when they are there.
        noarch: "python" for pure Python packages that fit any minor, else None.
        license: Its licence, as its author states it.
    """

    name: str
    version: str
    build: str
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: str | None = None
    license: str = ""

    @property
    def stem(self) -> str:
        """The archive's name without its ending."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def subdir(self) -> str:
        """The channel's sub-folder it lies in."""
        return "noarch" if self.noarch else native_subdir()


def native_subdir() -> str:
    """This machine's sub-folder of a channel: "linux-64", "linux-aarch64"."""
    machine = platform.machine()
    return f"linux-{ {'x86_64': '64'}.get(machine, machine) }"


def new_stage(work: Path, name: str) -> Path:
    """Make an empty staging prefix whose path is exactly `PLACEHOLDER_LENGTH` characters long.

    The path itself is the placeholder: whatever is written into the stage and names it is found by
    `pack` and rewritten at install.

    Raises:
        EnvError: `work` is too long a path for that.
    """
    base = str(work / name)
    room = PLACEHOLDER_LENGTH - len(base) - 1
    if room < 1:
        raise EnvError(
            f"packing {name} needs a working folder with a short path",
            f"{base} has {len(base)} characters, {PLACEHOLDER_LENGTH - 2} is the most",
            "set TMPDIR to a folder with a shorter path",
        )
    stage = work / name / ("placehold_" * 26)[:room]
    stage.mkdir(parents=True)
    return stage


def pack(package: Package, stage: Path, channel: Path) -> Path:
    """Write the archive of a staged prefix into its sub-folder of the channel.

    Returns:
        The archive.
    """
    files = sorted(path for path in stage.rglob("*") if path.is_symlink() or path.is_file())
    rows = [_row(path, stage) for path in files]
    folder = channel / package.subdir
    folder.mkdir(exist_ok=True)
    archive = folder / f"{package.stem}.conda"
    with zipfile.ZipFile(archive, "x", compression=zipfile.ZIP_STORED) as box:
        box.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        with _component(box, f"pkg-{package.stem}.tar.zst") as tar:
            for path in files:
                tar.add(path, path.relative_to(stage).as_posix(), filter=_anonymous)
        with _component(box, f"info-{package.stem}.tar.zst") as tar:
            for name, text in _info(package, rows):
                _add_text(tar, f"info/{name}", text)
    return archive


def _row(path: Path, stage: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"_path": path.relative_to(stage).as_posix()}
    if path.is_symlink():
        return row | {
            "path_type": "softlink",
            "size_in_bytes": 0,
            "sha256": hashlib.sha256(b"").hexdigest(),
        }
    data = path.read_bytes()
    row |= {
        "path_type": "hardlink",
        "size_in_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if str(stage).encode() in data:
        row["prefix_placeholder"] = str(stage)
        row["file_mode"] = "binary" if b"\0" in data else "text"
    return row


def _info(package: Package, rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    index = asdict(package) | {
        "build_number": 0,
        "subdir": package.subdir,
        "timestamp": int(time.time() * 1000),
    }
    if not package.noarch:
        del index["noarch"]
    yield "index.json", json.dumps(index, indent=1)
    yield "paths.json", json.dumps({"paths": rows, "paths_version": 1})
    yield "files", "".join(f"{row['_path']}\n" for row in rows)
    yield "about.json", json.dumps({"summary": f"{package.name}, repackaged on this machine"})
    if package.noarch == "python":
        link = {"noarch": {"type": "python"}, "package_metadata_version": 1}
        yield "link.json", json.dumps(link)


@contextmanager
def _component(box: zipfile.ZipFile, name: str) -> Iterator[tarfile.TarFile]:
    """A tar file, compressed on its way into a member of the zip."""
    with (
        box.open(name, "w", force_zip64=True) as member,
        _zstd_writer(member) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as tar,
    ):
        yield tar


def _zstd_writer(target: IO[bytes]) -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        try:
            from backports import zstd
        except ImportError:
            raise EnvError(
                "a local conda channel needs backports.zstd to write archives",
                "it is not installed",
                'install it with: python -m pip install "hpcburst[demo]"',
            ) from None
    return zstd.open(target, "wb", level=LEVEL)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mtime = int(time.time())
    tar.addfile(member, io.BytesIO(data))
