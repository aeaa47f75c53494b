"""From a lock to an env: compiled, open to its readers, seen to work, with its pip packages."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hpcburst.envs.building.build import build
from hpcburst.envs.building.relocate import moved_text, relocate
from hpcburst.envs.building.solve import packages_in
from hpcburst.envs.child.process import RattlerProcess
from hpcburst.envs.specs.spec import Archive, EnvSpec
from hpcburst.errors import EnvError
from support.webchannel import serving
from support.workbench import RUNNING, Bench, compiled_names, python_in, wheel

pytestmark = pytest.mark.channel

VERSION = "import pipped; print(pipped.VERSION)"


@pytest.fixture(scope="module")
def bench(tmp_path_factory, channel_url):
    """A root whose caches stay warm over the tests of this file."""
    with RattlerProcess() as process:
        yield Bench(tmp_path_factory.mktemp("root"), process, channel_url)


@pytest.fixture(scope="module")
def by_rattler(bench):
    """The env that rattler builds, and its lock."""
    spec = bench.spec()
    lock = bench.lock(spec, "rattler")
    return spec, lock, bench.build(spec, lock, "rattler", "by-rattler")


def test_files_and_folders_are_open_to_readers(by_rattler):
    """Everybody who may enter can read and run all of an env; only its owner may write."""
    _spec, _lock, prefix = by_rattler
    for path in [prefix, *prefix.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o777
            assert mode in ((0o755,) if path.is_dir() else (0o755, 0o644)), path


def test_nothing_is_left_to_compile(bench, by_rattler):
    """No task has to compile a package of its env: all are, for their final place."""
    _spec, _lock, prefix = by_rattler
    sources = list(prefix.glob("lib/python3*/site-packages/**/*.py"))
    compiled = compiled_names(prefix)
    assert sources
    assert {str(path) for path in sources} <= compiled


def test_archives_are_kept_only_when_they_are_wanted(bench, by_rattler, channel_url):
    """Fetched archives are gone after a build, unless they are asked for; a channel's never."""
    spec, lock, _prefix = by_rattler
    with serving(channel_url.removeprefix("file://")) as web:
        other = EnvSpec((web.url,), ("hpctool",))
        lock = bench.lock(other, "rattler")
        plan = bench.plan(other, lock, "kept", keep_archives=True)
        kept = build(plan, bench.builder("rattler"))
        assert {Path(path).name for path in kept.values()} == {"hpctool-1.2.3-0.conda"}
        assert all(Path(path).exists() for path in kept.values())
        shutil.rmtree(plan.prefix)
        gone = replace(bench.plan(other, lock, "kept"), archives=kept)
        assert build(gone, bench.builder("rattler")) == {}
        assert not any(Path(path).exists() for path in kept.values())
    url = next(iter(bench.archives(bench.lock(spec, "rattler"))))[0]
    assert Path(url.removeprefix("file://")).exists()


def test_archives_that_another_builder_took_away_are_fetched_again(bench, channel_url):
    """Two builders share what is fetched; the one that is done first may clean up."""
    with serving(channel_url.removeprefix("file://")) as web:
        spec = EnvSpec((web.url,), ("toylib 2.*", "hpctool"))
        lock = bench.lock(spec, "rattler")
        for entry in (bench.root / "pkgs").iterdir():
            if entry.name.startswith("hpctool"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        plan = bench.plan(spec, lock, "shared")
        (archive,) = [url for url, _ in bench.archives(lock) if "hpctool" in url]
        build(replace(plan, archives={archive: "/no/such/file"}), bench.builder("rattler"))
        assert (plan.prefix / "bin/hpctool").exists()


def test_a_wheel_with_other_bytes_than_locked_is_refused(bench, tmp_path, monkeypatch):
    """A file that changed on the index since it was locked is not installed."""
    pytest.importorskip("uv")
    wheel(tmp_path, "3.0")
    spec = bench.spec(f"python {RUNNING}.*", pip=("--no-index", f"-f {tmp_path}", "pipped ==3.0"))
    lock = bench.lock(spec, "rattler")
    shutil.rmtree(bench.build(spec, lock, "rattler"))
    wheel(tmp_path, "3.0", code="print('other bytes')")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "of another user"))
    with pytest.raises(EnvError, match="Hash mismatch"):
        bench.build(spec, lock, "rattler")


def test_pip_lines_of_a_lock_are_exact(bench, tmp_path):
    """From a lock come exact pip lines: nothing is chosen, what they need is not added."""
    pytest.importorskip("uv")
    path = wheel(tmp_path, "4.0", needs="Requires-Dist: nosuchthing\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    conda = packages_in(bench.lock(bench.spec(f"python {RUNNING}.*"), "rattler"), bench.rattler)
    archives = tuple(Archive(row["url"], sha256=row["sha256"]) for row in conda)
    line = f"pipped @ {path.as_uri()}#sha256={digest}"
    spec = EnvSpec(explicit=archives, pip=(line,))
    prefix = bench.build(spec, bench.lock(spec, "rattler"), "rattler")
    assert python_in(prefix, VERSION) == "4.0"
    other = replace(spec, pip=(line.replace(digest, "0" * 64),))
    with pytest.raises(EnvError, match="Hash mismatch"):
        bench.build(other, bench.lock(other, "rattler"), "rattler")


def test_an_env_that_does_not_work_is_refused_with_its_traceback(bench, tmp_path):
    """A package that was asked for and cannot be imported is no env: the traceback says why."""
    pytest.importorskip("uv")
    wheel(tmp_path, "5.0", code="import nosuchmodule")
    spec = bench.spec(f"python {RUNNING}.*", pip=("--no-index", f"-f {tmp_path}", "pipped ==5.0"))
    lock = bench.lock(spec, "rattler")
    with pytest.raises(EnvError, match=r"import pipped(?s:.)*No module named 'nosuchmodule'"):
        bench.build(spec, lock, "rattler")


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('libcuda.so.1: cannot open shared object file: No such file')",
        "raise RuntimeError('no GPU here')",
        "import os; os.environ['R_HOME']",
        "raise SystemExit(3)",
    ],
)
def test_what_only_nodes_have_is_not_missed(bench, tmp_path, code):
    """Drivers, displays and variables that a login node lacks do not fail a build."""
    pytest.importorskip("uv")
    wheel(tmp_path, "6.0", code=code)
    spec = bench.spec(f"python {RUNNING}.*", pip=("--no-index", f"-f {tmp_path}", "pipped ==6.0"))
    prefix = bench.build(spec, bench.lock(spec, "rattler"), "rattler")
    assert (prefix / "bin/pipped").exists()


def test_seeing_an_env_work_takes_one_core(bench, tmp_path):
    """Libraries start no thread for each core of a login node only because a build imports them."""
    pytest.importorskip("uv")
    wheel(tmp_path, "7.0", code="import os; assert os.environ['OMP_NUM_THREADS'] == '1'")
    spec = bench.spec(f"python {RUNNING}.*", pip=("--no-index", f"-f {tmp_path}", "pipped ==7.0"))
    assert bench.build(spec, bench.lock(spec, "rattler"), "rattler").exists()


def test_binary_files_may_get_a_shorter_path_and_never_a_longer_one(tmp_path):
    """A shorter path is filled up with NULs, so that nothing behind it moves."""
    binary = b"\x7fELF\0/a/stage/lib:/a/stage/bin\0\0rest"
    moved = moved_text(binary, b"/a/stage", b"/env")
    assert moved == b"\x7fELF\0/env/lib:/env/bin\0" + b"\0" * 9 + b"rest"
    assert len(moved) == len(binary)
    with pytest.raises(ValueError, match="longer"):
        moved_text(binary, b"/a/stage", b"/a/much/longer/prefix")


def test_relocation_leaves_files_of_a_cache_alone(tmp_path):
    """A file with another hard link belongs to a package cache, and is not written to."""
    (tmp_path / "cache").write_text("/a/stage")
    (tmp_path / "env").mkdir()
    os.link(tmp_path / "cache", tmp_path / "env/linked")
    (tmp_path / "env/own").write_text("#!/a/stage/bin/python\n")
    (tmp_path / "env/link").symlink_to("/a/stage/lib")
    changed = relocate(tmp_path / "env", Path("/a/stage"), Path("/env"))
    assert sorted(path.name for path in changed) == ["link", "own"]
    assert (tmp_path / "cache").read_text() == "/a/stage"
    assert (tmp_path / "env/own").read_text() == "#!/env/bin/python\n"
    assert (tmp_path / "env/link").readlink() == Path("/env/lib")
