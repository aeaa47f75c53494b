"""One suite over all builders: whoever builds, the lock, the key, the files and the record agree.

Conda, mamba, micromamba and pixi are the real ones where they are on PATH; else stand-ins that note
what they are told and work by py-rattler.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpcburst.envs.building.build import read_record
from hpcburst.envs.building.builders import BUILDERS
from hpcburst.envs.building.solve import packages_in, preview
from hpcburst.envs.child.process import RattlerProcess
from hpcburst.envs.specs.spec import Archive, EnvSpec
from hpcburst.errors import EnvError
from support.builders import LOG, calls, install_tool
from support.webchannel import basic, serving
from support.workbench import (
    BOOKKEEPING,
    RUNNING,
    Bench,
    compiled_names,
    contents,
    python_in,
    records,
    wheel,
)

pytestmark = pytest.mark.channel


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A PATH on which every builder is found: the real one, or its stand-in."""
    folder = tmp_path_factory.mktemp("tools")
    missing = [name for name in BUILDERS[1:] if shutil.which(name) is None]
    for name in missing:
        install_tool(folder / "bin", name)
    with pytest.MonkeyPatch.context() as patch:
        if missing:
            patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv(LOG, str(folder / "log"))
        yield folder / "log"


@pytest.fixture(scope="module")
def rattler():
    """One rattler process for all tests."""
    with RattlerProcess() as process:
        yield process


@pytest.fixture(scope="module")
def bench(tmp_path_factory, rattler, tools, channel_url):
    """A root whose caches stay warm over the tests of this file."""
    return Bench(tmp_path_factory.mktemp("root"), rattler, channel_url, tools)


@pytest.fixture(params=BUILDERS)
def name(request):
    """Each builder in turn."""
    return request.param


@pytest.fixture(scope="module")
def by_rattler(bench):
    """The env that rattler builds, and its lock."""
    spec = bench.spec(variables={"ANSWER": "42"})
    lock = bench.lock(spec, "rattler")
    return spec, lock, bench.build(spec, lock, "rattler", "by-rattler")


def is_standin(tool: str) -> bool:
    """Whether a tool is not the real one."""
    return str(TESTS) in Path(shutil.which(tool)).read_text(errors="replace")


TESTS = Path(__file__).resolve().parents[1]


def test_every_builder_locks_the_same_archives(bench, by_rattler, name):
    """Each builder chooses the same archives, and writes them in the same format."""
    spec, lock, _prefix = by_rattler
    expected = bench.archives(lock)
    other = bench.lock(spec, name)
    assert bench.archives(other) == expected
    assert re.match(r"version: [67]\b", other.read_text())
    assert len(expected) == 3


def test_every_builder_gives_the_same_files(bench, by_rattler, name):
    """The envs are equal, file for file, wherever they are and whoever built them."""
    spec, lock, expected = by_rattler
    prefix = bench.build(spec, lock, name)
    try:
        assert contents(prefix) == contents(expected)
        assert records(prefix) == records(expected)
        assert all(path.startswith(f"{prefix}/") for path in compiled_names(prefix))
        traces = [p for p in prefix.rglob("*") if p.is_file() and b"/.b-" in p.read_bytes()]
        assert [p for p in traces if str(p.relative_to(prefix)) not in BOOKKEEPING] == []
        environ = {"PATH": "/usr/bin:/bin"}
        tool = prefix / "bin/hpctool"
        said = subprocess.run([tool], env=environ, capture_output=True, text=True, check=True)
        assert said.stdout == f"prefix is {prefix}\n"
    finally:
        shutil.rmtree(prefix)


def test_the_record_names_the_builder(bench, by_rattler, name):
    """Key and record are the same but for the builder's name, and when and where it built."""
    spec, lock, expected = by_rattler
    prefix = bench.build(spec, lock, name)
    record, first = read_record(prefix), read_record(expected)
    shutil.rmtree(prefix)
    assert record.builder == name
    assert record == replace(first, builder=name, prefix=str(prefix), made=record.made)


def test_a_conflict_is_an_answer(bench, name):
    """Packages that cannot be together are named, whoever looks for a solution."""
    with pytest.raises(EnvError, match=r"toylib.*(?s:.)*two envs") as caught:
        bench.lock(bench.spec("app1", "app2"), name)
    assert "app1" in str(caught.value)
    assert "app2" in str(caught.value)
    assert "environment.yml" in str(caught.value)


def test_a_package_nobody_has_is_an_answer(bench, name):
    """A misspelt package is named, whoever looks for it."""
    with pytest.raises(EnvError, match=r"nosuchthing(?s:.)*[Cc]heck the name and versions of"):
        bench.lock(bench.spec("nosuchthing"), name)


def test_a_failed_solve_leaves_no_lock(bench, name):
    """After a refusal nothing is left where locks are."""
    with pytest.raises(EnvError):
        bench.lock(bench.spec("nosuchthing"), name)
    locks = bench.root / "locks"
    assert not (locks / f"{bench.key(bench.spec('nosuchthing'))}.lock.yml").exists()
    assert [p.name for p in locks.iterdir() if p.name.startswith(".")] == []


def test_an_archive_that_is_gone_is_an_answer(bench, by_rattler, name, tmp_path):
    """A lock whose archives are nowhere any more is an answer that names the env's file."""
    spec, lock, _prefix = by_rattler
    text = lock.read_text().replace("hpctool-1.2.3-0", "hpctool-1.2.4-0")
    (tmp_path / "gone.lock.yml").write_text(text.replace("version: 1.2.3", "version: 1.2.4"))
    with pytest.raises(EnvError, match=r"environment\.yml"):
        bench.build(spec, tmp_path / "gone.lock.yml", name)


def test_exact_archives_are_locked_as_they_are(bench, by_rattler, name):
    """A spec of exact archives becomes a lock of just these, whoever builds; nobody solves."""
    _spec, lock, _prefix = by_rattler
    rows = packages_in(lock, bench.rattler)
    spec = EnvSpec(explicit=tuple(Archive(row["url"], md5=row["md5"]) for row in rows))
    before = len(calls(bench.log))
    assert bench.archives(bench.lock(spec, name)) == bench.archives(lock)
    shown = preview(spec, builder=bench.builder(name), source="explicit.txt")
    assert {(p.name, p.version, p.build) for p in shown} == {
        (row["name"], row["version"], row["build"]) for row in rows
    }
    assert len(calls(bench.log)) == before


def test_offline_is_passed_on(bench, name, by_rattler):
    """Where nothing may be fetched the tool is told so; with warm caches that is enough."""
    spec, lock, _prefix = by_rattler
    before = len(calls(bench.log))
    bench.lock(spec, name, offline=True)
    prefix = bench.build(spec, lock, name, offline=True)
    shutil.rmtree(prefix)
    told = calls(bench.log)[before:]
    if name != "rattler" and is_standin(name):
        assert len(told) >= 2
        for call in told:
            words = call.argv
            assert "--offline" in words or call.environ.get("PIXI_OFFLINE") or "info" in words


def test_passwords_are_not_in_the_words_of_a_command(bench, channel_url, name, tmp_path):
    """A private channel's password works, and is in no command line and no message."""
    folder = channel_url.removeprefix("file://")
    with serving(folder, authorization=basic("me", "s3cret"), mount="/private/chan") as web:
        url = web.url.replace("http://", "http://me:s3cret@")
        spec = EnvSpec((url,), ("hpctool",))
        before = len(calls(bench.log))
        prefix = bench.build(spec, bench.lock(spec, name), name)
        assert (prefix / "bin/hpctool").exists()
        with pytest.raises(EnvError) as caught:
            bench.lock(EnvSpec((url,), (f"{url}::nosuchthing",)), name)
    assert "s3cret" not in str(caught.value)
    assert not any("s3cret" in word for call in calls(bench.log)[before:] for word in call.argv)
    assert prefix.stat().st_mode & 0o777 == 0o700
    private = [p for p in prefix.rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    assert {p.stat().st_mode & 0o077 for p in private} <= {0}
    shutil.rmtree(prefix)


def test_a_chosen_tool_that_is_not_there_is_an_answer(bench, monkeypatch):
    """A builder that is not on PATH is an answer that says where it was looked for."""
    monkeypatch.setenv("PATH", "/no/such/bin")
    with pytest.raises(EnvError, match=r"micromamba.*/no/such/bin"):
        bench.builder("micromamba")
    with pytest.raises(EnvError, match="rattler, conda, mamba, micromamba, pixi"):
        bench.builder("apt")


def test_the_active_env_and_settings_do_not_reach_the_tool(bench, monkeypatch, tmp_path):
    """An active env, a chosen platform or pinned packages of the shell change no solution."""
    if not is_standin("conda"):
        pytest.skip("the real conda tells nobody")
    for variable in ("CONDA_PREFIX", "CONDA_SUBDIR", "CONDA_CHANNELS", "CONDA_PINNED_PACKAGES"):
        monkeypatch.setenv(variable, "something")
    monkeypatch.setenv("CONDA_SSL_VERIFY", "/site/ca.pem")
    bench.lock(bench.spec("hpctool"), "conda")
    environ = calls(bench.log)[-1].environ
    assert "something" not in environ.values()
    assert environ["CONDA_SSL_VERIFY"] == "/site/ca.pem"
    assert environ["CONDA_REGISTER_ENVS"] == "false"


SECOND = """
import asyncio, os, sys
from rattler import LockFile, install
lock = LockFile.from_path(sys.argv[1])
packages = lock.default_environment().packages(lock.platforms()[0])
records = [package.repo_data_record() for package in packages]
asyncio.run(install(records, target_prefix=sys.argv[2], cache_dir=sys.argv[3]))
os._exit(0)  # rattler's threads now and then crash an interpreter that ends beside them
"""


def test_the_prefix_equals_a_second_independent_installation(bench, tmp_path):
    """An env holds what rattler alone installs from its lock, byte for byte, and nothing else."""
    spec = bench.spec(f"python {RUNNING}.*", "numpy", "app1", "hpctool")
    lock = bench.lock(spec, "rattler")
    prefix = bench.build(spec, lock, "rattler", "first")
    second = tmp_path / "a-longer-way" / "to" / "second"
    argv = [sys.executable, "-c", SECOND, lock, second, tmp_path / "cache"]
    subprocess.run(list(map(str, argv)), check=True)
    ours, theirs = contents(prefix), contents(second)
    added = {place for place in ours if place not in theirs}
    noarch = {p for p in added if "/__pycache__" in p}
    assert added == noarch, "only compiled Python is added"
    assert set(theirs) <= set(ours)
    modes = {p for p in theirs if ours[p] != theirs[p]}
    assert modes == set(), {p: (ours[p], theirs[p]) for p in modes}


VERSION = "import pipped; print(pipped.VERSION)"


def test_pip_versions_are_locked_with_the_env(bench, name, tmp_path):
    """What pip chose once is built again later, by anybody, though the index has newer ones."""
    pytest.importorskip("uv")
    wheel(tmp_path, "1.0")
    pip = ("--no-index", f"--find-links {tmp_path}", "pipped")
    spec = bench.spec(f"python {RUNNING}.*", pip=pip)
    lock = bench.lock(spec, "rattler")
    prefix = bench.build(spec, lock, "rattler")
    assert python_in(prefix, VERSION) == "1.0"
    said = subprocess.run([prefix / "bin/pipped"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(prefix)
    shutil.rmtree(prefix)
    wheel(tmp_path, "2.0")
    again = bench.build(spec, lock, name)
    assert python_in(again, VERSION) == "1.0"
    shutil.rmtree(again)
    (kept,) = (bench.root / "locks").glob(f"{bench.key(spec)}.*.pylock.toml")
    kept.unlink()
    assert python_in(bench.build(spec, lock, "rattler", "anew"), VERSION) == "2.0"
    kept.unlink()
