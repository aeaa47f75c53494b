"""A check of an env finds every file that is not as it was installed, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.building.build import EnvRecord, write_record
from hpcburst.envs.keeping.contents import File, read_contents
from hpcburst.envs.keeping.verify import Seen, judge, verify

SITE = "lib/python3.12/site-packages"
OLD_S = 1e9


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Prefix:
    """A prefix linked from a package cache, as installers leave them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "envs" / "0123456789abcdef0123"
        self.cache = folder / "pkgs"
        self.meta = self.path / "conda-meta"
        self.meta.mkdir(parents=True)
        self.count = 0

    def install(self, name: str, files: dict[str, bytes | str], **more: object) -> None:
        """Install a package: bytes are files, hard-linked; text is where a link leads."""
        entry = self.cache / f"{name}-1.0-0"
        rows = [self._link(entry, path, data, more) for path, data in files.items()]
        record = {
            "name": name,
            "version": "1.0",
            "build": "0",
            "channel": "https://conda.anaconda.org/conda-forge/",
            "extracted_package_dir": str(entry),
            "paths_data": {"paths_version": 1, "paths": rows},
            **more,
        }
        (self.meta / f"{name}-1.0-0.json").write_text(json.dumps(record))
        self.count += 1
        self.finish()

    def finish(self) -> None:
        made = EnvRecord(self.path.name, str(self.path), packages=self.count, made=time.time())
        write_record(self.path, made)

    def _link(self, entry: Path, path: str, data: bytes | str, more: dict) -> dict[str, object]:
        kept = path
        if more.get("noarch") == "python":
            kept = path.replace("lib/python3.12/", "")
        source, target = entry / kept, self.path / path
        source.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            source.symlink_to(data)
            target.symlink_to(data)
            digests = {"sha256": sha256(b""), "sha256_in_prefix": sha256(data.encode())}
            return {"_path": path, "path_type": "softlink", **digests, "size_in_bytes": 0}
        source.write_bytes(data)
        os.utime(source, (OLD_S, OLD_S))
        target.hardlink_to(source)
        size = {"sha256": sha256(data), "size_in_bytes": len(data)}
        return {"_path": path, "path_type": "hardlink", **size}

    def pip_install(self, name: str, files: dict[str, bytes], script: bytes = b"") -> None:
        """Install a wheel; the script is as pip wrote it, before the env was moved to its place."""
        site = self.path / SITE
        info = f"{name}-2.0.dist-info"
        rows = []
        for path, data in {**files, f"{info}/METADATA": b"Name: x"}.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(data)}")
        if script:
            (self.path / "bin").mkdir(exist_ok=True)
            moved = script.replace(b"STAGE", bytes(self.path))
            (self.path / "bin" / name).write_bytes(moved)
            digest = base64.urlsafe_b64encode(hashlib.sha256(script).digest()).decode()
            rows.append(f"../../../bin/{name},sha256={digest},{len(moved)}")
        rows += [f"{info}/RECORD,,", f"{name}/__pycache__/x.cpython-312.pyc,,"]
        (site / info / "RECORD").write_text("\n".join(rows) + "\n")


@pytest.fixture
def prefix(tmp_path):
    """A prefix with files, links and Python modules of two packages."""
    made = Prefix(tmp_path)
    files = {"bin/tool": b"\x7fELF tool", "lib/liba.so.1": b"library", "lib/liba.so": "liba.so.1"}
    made.install("toolkit", files)
    (made.path / "bin/tool").chmod(0o755)
    made.install("pure", {f"{SITE}/pure.py": b"x = 1\n"}, noarch="python")
    return made


def faults(prefix: Prefix, **options) -> dict[str, str]:
    return {fault.path: fault.kind for fault in verify(prefix.path, **options).faults}


def test_an_env_as_installed_is_good(prefix):
    """Nothing is found in an env that nobody touched, and the report says what was looked at."""
    report = verify(prefix.path)
    assert report.good
    assert (report.key, report.packages, report.files) == (prefix.path.name, 2, 4)
    assert verify(prefix.path, quick=True).good


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _swap(path: Path) -> None:
    path.write_bytes(b"!" + path.read_bytes()[1:])


def _delete(path: Path) -> None:
    path.unlink()


def _lock_out(path: Path) -> None:
    path.chmod(0o000)


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (_append, "changed"),
        (_swap, "changed"),
        (_delete, "missing"),
        (_lock_out, "unreadable"),
        (_make_folder, "changed"),
    ],
)
def test_harm_to_a_file_is_found(prefix, harm, kind, quick):
    """A file that was written to, lost, locked away or replaced is named, quickly and in full."""
    harm(prefix.path / "lib/liba.so.1")
    found = faults(prefix, quick=quick)
    assert found.pop("lib/liba.so", "wrong link") == "wrong link"  # it may lead nowhere now
    assert found == {"lib/liba.so.1": kind}


def test_a_change_that_hides_its_time_is_found_in_full(prefix):
    """Old times and the right size do not hide other bytes from a full check."""
    path = prefix.path / "lib/liba.so.1"
    _swap(path)
    os.utime(path, (OLD_S, OLD_S))
    assert faults(prefix) == {"lib/liba.so.1": "changed"}


def test_a_link_to_elsewhere_is_found(prefix):
    """A link that leads somewhere else is found, also when that place holds a good file."""
    link = prefix.path / "lib/liba.so"
    link.unlink()
    link.symlink_to("../bin/tool")
    (report,) = verify(prefix.path).faults
    assert (report.path, report.kind) == ("lib/liba.so", "wrong link")
    assert "liba.so.1" in report.found


def test_a_program_that_cannot_be_run_is_found(prefix):
    """A binary in bin/ without its executable bit is a fault: every task would fail on it."""
    (prefix.path / "bin/tool").chmod(0o644)
    assert faults(prefix) == {"bin/tool": "not executable"}


def test_byte_compiled_python_may_come_and_go(prefix):
    """What Python writes by itself is no harm."""
    rows = {f"{SITE}/__pycache__/pure.cpython-312.pyc": b"compiled"}
    prefix.install("compiled", rows)
    (prefix.path / f"{SITE}/__pycache__/pure.cpython-312.pyc").write_bytes(b"anew")
    (prefix.path / f"{SITE}/__pycache__/other.cpython-312.pyc").write_bytes(b"more")
    assert verify(prefix.path).good


@pytest.mark.parametrize("path", ["lib/liba.so.1", f"{SITE}/pure.py"])
def test_the_damaged_package_in_the_cache_is_named(prefix, path):
    """Writing into a hard-linked file harms the cache as well, and the report says which entry."""
    _append(prefix.path / path)
    (fault,) = verify(prefix.path).faults
    assert Path(fault.entry).parent == prefix.cache
    assert (Path(fault.entry) / path.replace("lib/python3.12/", "")).exists()


def test_a_file_of_its_own_does_not_accuse_the_cache(prefix):
    """A file that was replaced, not written into, leaves the cache whole: nothing is named."""
    path = prefix.path / "lib/liba.so.1"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b"more")
    report = verify(prefix.path)
    assert [fault.path for fault in report.faults] == ["lib/liba.so.1"]
    assert report.damaged_entries == ()


def test_pip_packages_are_checked_too(prefix):
    """A changed file of a pip package is found by pip's own record."""
    prefix.pip_install("wheel", {"wheel/__init__.py": b"y = 2\n"})
    assert verify(prefix.path).good
    _swap(prefix.path / SITE / "wheel/__init__.py")
    assert faults(prefix) == {f"{SITE}/wheel/__init__.py": "changed"}


def test_a_script_with_the_prefix_in_it_is_good(prefix):
    """Pip's scripts name their Python, and are rewritten when the env gets its final place."""
    prefix.pip_install("wheel", {"wheel/__init__.py": b""}, script=b"#!STAGE/bin/python\nrun()\n")
    assert verify(prefix.path).good
    (prefix.path / "bin/wheel").write_bytes(b"#!/usr/bin/python\n")
    assert faults(prefix) == {"bin/wheel": "changed"}


def test_a_record_that_cannot_be_read_is_found(prefix):
    """A package whose record is damaged cannot be trusted, and does not stop the check."""
    (prefix.path / "conda-meta/pure-1.0-0.json").write_text("{")
    assert faults(prefix) == {"conda-meta/pure-1.0-0.json": "record"}


def test_packages_that_came_or_went_are_found(prefix):
    """An env that somebody installed into, or took a package from, is not what was built."""
    (prefix.path / "conda-meta/pure-1.0-0.json").unlink()
    assert faults(prefix) == {"conda-meta": "record"}


def test_all_faults_of_a_large_env_are_found_in_order(prefix):
    """Many threads miss nothing, and the report does not depend on which one was faster."""
    names = [f"share/data/{number:04d}" for number in range(1000)]
    prefix.install("data", {name: name.encode() for name in names})
    harmed = names[::7]
    for name in harmed:
        (prefix.path / name).unlink()
    told = []
    report = verify(prefix.path, progress=lambda *words: told.append(words))
    assert [fault.path for fault in report.faults] == harmed
    assert told[-1] == ("verifying files", 1004, 1004)


def test_a_folder_without_records_has_no_faults(tmp_path):
    """A prefix that no package manager made, a virtual environment for one, has no faults."""
    report = verify(tmp_path)
    assert (report.good, report.files, report.key) == (True, 0, "")


def test_packages_say_where_they_came_from(prefix):
    """Conda's packages name their channel, pip's say pip; names are as people write them."""
    prefix.pip_install("My_Wheel", {"my_wheel.py": b""})
    packages, broken = read_contents(prefix.path)
    assert broken == ()
    assert [(p.name, p.version, p.channel.rstrip("/").rsplit("/")[-1]) for p in packages] == [
        ("pure", "1.0", "conda-forge"),
        ("toolkit", "1.0", "conda-forge"),
        ("my-wheel", "2.0", "pip"),
    ]


contents = st.binary(max_size=30)


@given(data=contents, other=contents, mode=st.sampled_from([0o644, 0o755, 0o444]))
def test_content_decides(data, other, mode):
    """A file is good exactly when its bytes are those that were installed."""
    file = File("share/x", sha256(data), len(data), original=sha256(data))
    seen = Seen("file", mode, len(other), 0.0, sha256(other))
    assert (judge(file, seen) is None) == (data == other)


@given(target=st.text("ab./", min_size=1), other=st.text("ab./", min_size=1))
def test_where_a_link_leads_decides(target, other):
    """A link is good exactly when it leads where it was made to lead, dangling or not."""
    file = File("lib/x", sha256(target.encode()), None, link=True, original=sha256(b""))
    seen = Seen("link", target=other, leads_somewhere=False, should_be=target)
    assert (judge(file, seen) is None) == (target == other)
