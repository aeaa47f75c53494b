"""What nobody uses is taken away; what somebody may use never is."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.building.build import EnvRecord, write_record
from hpcburst.envs.keeping.retention import DAY_S, HOUR_S, Inode, Rule, Thing, decide, freed
from hpcburst.envs.keeping.sizes import measure, size_of
from hpcburst.envs.keeping.upkeep import collect, drop_entry, last_used, mark_used
from hpcburst.errors import EnvError

NOW = 2e9
PACKAGES = ("python-3.12.1-0", "numpy-2.0-0", "left-1.0-0")
KINDS = ("package", "bundle", "lock", "note", "stage", "claim", "archive", "index")

ages = st.floats(0, 90 * DAY_S)
keys = st.sampled_from([f"key{number}" for number in range(6)])
envs = st.builds(
    lambda kind, key, age, needs: Thing(kind, key, (), NOW - age, needs),
    st.sampled_from(["env", "pack"]),
    keys,
    ages,
    st.frozensets(st.sampled_from(PACKAGES)),
)
others = st.builds(
    lambda kind, name, age: Thing(kind, name, (), NOW - age),
    st.sampled_from(KINDS),
    st.one_of(keys, st.sampled_from(PACKAGES)),
    ages,
)
stores = st.lists(st.one_of(envs, others), max_size=20)
rules = st.builds(
    Rule,
    st.just(NOW),
    st.floats(0, 60 * DAY_S),
    st.frozensets(keys, max_size=2),
    st.booleans(),
    st.booleans(),
)


@given(stores, rules)
def test_envs_go_by_age_alone(things, rule):
    """An env goes exactly when it was not used for so long and nobody asked to keep it."""
    for thing, verdict in zip(things, decide(things, rule), strict=True):
        if thing.kind in ("env", "pack"):
            old = NOW - thing.used >= rule.older_than_s
            assert verdict.goes == (old and thing.name not in rule.keep)


@given(stores, rules)
def test_what_a_staying_env_needs_stays(things, rule):
    """No package, bundle or lock goes that an env which stays was made from."""
    verdicts = decide(things, rule)
    staying = [
        thing
        for thing, verdict in zip(things, verdicts, strict=True)
        if thing.kind in ("env", "pack") and not verdict.goes
    ]
    needed = {name for thing in staying for name in thing.needs}
    for verdict in verdicts:
        if verdict.goes:
            assert verdict.kind not in ("package", "bundle") or verdict.name not in needed
            assert verdict.kind != "lock" or verdict.name not in {t.name for t in staying}


@given(stores, rules)
def test_what_may_be_in_the_making_stays(things, rule):
    """Packages stay while an env is built, and locks unless somebody asked for them to go."""
    for verdict in decide(things, rule):
        if verdict.goes:
            assert not (verdict.kind == "package" and rule.building)
            assert not (verdict.kind == "lock" and not rule.locks)
            assert not (verdict.kind in ("stage", "claim") and verdict.age_s < 60)


@given(stores, rules)
def test_each_thing_has_a_verdict_with_a_reason(things, rule):
    """Nothing is passed over in silence: each thing has its verdict and the reason in words."""
    verdicts = decide(things, rule)
    assert [(v.kind, v.name) for v in verdicts] == [(t.kind, t.name) for t in things]
    assert all(verdict.why for verdict in verdicts)


@given(stores, rules, st.floats(0, 30 * DAY_S))
def test_patience_takes_less(things, rule, more_s):
    """Who asks for a greater age never loses an env that would have stayed with a smaller one."""
    patient = Rule(NOW, rule.older_than_s + more_s, rule.keep, rule.locks, rule.building)
    less = decide(things, patient)
    for thing, verdict, later in zip(things, decide(things, rule), less, strict=True):
        if thing.kind in ("env", "pack", "package", "bundle") and later.goes:
            assert verdict.goes


@st.composite
def forests(draw):
    """Trees that share files, each file with its true number of names and perhaps one elsewhere."""
    names = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=30))
    elsewhere = draw(st.frozensets(st.integers(0, 8)))
    links = {i: sum(inode == i for _, inode in names) + (i in elsewhere) for i in range(9)}
    trees = [[Inode((1, i), links[i], 100 + i) for tree, i in names if tree == t] for t in range(4)]
    return trees, elsewhere


@given(forests())
def test_hard_links_are_counted_once(forest):
    """What is freed in all is each file once, without those that have a name elsewhere."""
    trees, elsewhere = forest
    held = {inode.identity[1] for tree in trees for inode in tree} - elsewhere
    found = freed(trees)
    assert sum(count for count, _ in found) == sum(100 + i for i in held)
    assert sum(files for _, files in found) == len(held)


@pytest.fixture
def root(tmp_path):
    """A store with an old env and a new one; they share a package, and each has its own too."""
    for name in ("shared-1.0-0", "only_old-1.0-0", "only_new-1.0-0"):
        _package(tmp_path, name)
    _env(tmp_path, "aaaa", "shared-1.0-0", "only_old-1.0-0", age_s=40 * DAY_S)
    _env(tmp_path, "bbbb", "shared-1.0-0", "only_new-1.0-0", age_s=2 * DAY_S)
    (tmp_path / "locks").mkdir()
    for key in ("aaaa", "bbbb"):
        _write(tmp_path / f"locks/{key}.lock.yml", b"version: 7", 50 * DAY_S)
    return tmp_path


def _package(root: Path, name: str) -> None:
    _write(root / "pkgs" / name / "info/index.json", b"{}", 50 * DAY_S)
    _write(root / "pkgs" / name / "lib/data", name.encode() * 1000, 50 * DAY_S)
    _write(root / "pkgs" / f"{name}.lock", b"", 50 * DAY_S)
    _age(root / "pkgs" / name, 50 * DAY_S)


def _env(root: Path, key: str, *packages: str, age_s: float) -> None:
    prefix = root / "envs" / key
    (prefix / "conda-meta").mkdir(parents=True)
    for package in packages:
        (prefix / package).hardlink_to(root / "pkgs" / package / "lib/data")
        text = f'{{"name": "x", "extracted_package_dir": "{root}/pkgs/{package}"}}'
        (prefix / f"conda-meta/{package}.json").write_text(text)
    write_record(prefix, EnvRecord(key, str(prefix), made=time.time() - age_s))


def _write(path: Path, data: bytes, age_s: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    _age(path, age_s)


def _age(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


def _rule(**more) -> Rule:
    return Rule(time.time(), **more)


def _gone(found) -> set[str]:
    return {row.name for row in found.gone}


def test_old_envs_go_with_what_only_they_used(root):
    """The env of last month goes, with its package; the one in use keeps all it was linked from."""
    found = collect(root, _rule())
    assert _gone(found) == {"aaaa", "only_old-1.0-0"}
    assert not (root / "envs/aaaa").exists()
    assert sorted(path.name for path in (root / "pkgs").iterdir() if path.is_dir()) == [
        "only_new-1.0-0",
        "shared-1.0-0",
    ]
    assert (root / "locks/aaaa.lock.yml").exists()


def test_the_account_is_what_the_disk_says(root):
    """The bytes and files that are said to be freed are those that the disk has more then."""
    before = measure(root)
    found = collect(root, _rule(locks=True))
    after = measure(root)
    assert found.freed_bytes == before.held_bytes - after.held_bytes > 0
    assert found.freed_files == before.files - after.files


def test_a_dry_run_says_the_same_and_does_nothing(root):
    """What `--dry-run` announces is what then happens, and until then all is there."""
    names = sorted(root.rglob("*"))
    said = collect(root, _rule(), dry_run=True)
    assert sorted(root.rglob("*")) == names
    done = collect(root, _rule())
    assert _gone(said) == _gone(done)
    assert (said.freed_bytes, said.freed_files) == (done.freed_bytes, done.freed_files)


def test_envs_of_running_jobs_are_protected(root):
    """An age below the longest job is refused, with the age that is possible in the answer."""
    with pytest.raises(EnvError, match="at least 3 days"):
        collect(root, _rule(older_than_s=2 * DAY_S), least_s=3 * DAY_S)
    assert (root / "envs/aaaa").exists()


def test_an_env_that_is_used_again_meanwhile_stays(root):
    """A run that asks for an env between the decision and the act keeps it, and that is said."""

    def progress(what: str, done: int, total: int | None) -> None:
        if what == "counting files":
            mark_used(root, "aaaa")

    found = collect(root, _rule(), progress=progress)
    (row,) = [row for row in found.verdicts if row.kind == "env" and row.name == "aaaa"]
    assert row.goes
    assert "used" in row.failed
    assert (root / "envs/aaaa").exists()


def test_kept_envs_stay(root):
    """An env that is to be kept stays however old it is, with its packages."""
    assert _gone(collect(root, _rule(keep=frozenset({"aaaa"})))) == set()


def test_locks_go_only_when_asked_for(root):
    """A lock without env stays, so that the same packages can be had again, unless asked for."""
    collect(root, _rule())
    assert _gone(collect(root, _rule(locks=True))) == {"aaaa"}
    assert not (root / "locks/aaaa.lock.yml").exists()
    assert (root / "locks/bbbb.lock.yml").exists()


def test_packages_stay_while_somebody_installs(root):
    """While an installer holds the package cache, no package goes."""
    lock = root / "pkgs/.cache.lock"
    with lock.open("w") as installer:
        fcntl.flock(installer, fcntl.LOCK_EX)
        found = collect(root, _rule())
    assert _gone(found) == {"aaaa"}
    assert _gone(collect(root, _rule())) == {"only_old-1.0-0"}


def test_packages_stay_while_an_env_is_built(root):
    """While a builder gives signs of life, no package goes, and its claim stays."""
    (root / "locks/cccc.claim").write_text("{}")
    assert _gone(collect(root, _rule())) == {"aaaa"}
    assert (root / "locks/cccc.claim").exists()


def test_what_dead_builders_left_goes(root):
    """Stages, claims, half-fetched archives and old listings of channels go; young ones stay."""
    for name in ("envs/.b-0123456789/x", "incoming/abc/x.part", "repodata/conda.json"):
        _write(root / name, b"data", 40 * DAY_S)
        _age((root / name).parent, 40 * DAY_S)
    _write(root / "locks/dddd.claim", b"{}", 40 * DAY_S)
    _write(root / "incoming/young/x.part", b"data", HOUR_S)
    found = collect(root, _rule(keep=frozenset({"aaaa"})))
    assert _gone(found) == {".b-0123456789", "abc", "conda", "dddd.claim"}
    assert (root / "incoming/young/x.part").exists()
    assert (root / "pkgs/only_old-1.0-0").exists()


def test_an_empty_root_is_no_error(tmp_path):
    """There may be nothing to take away, not even the folder."""
    assert collect(tmp_path / "nothing", _rule()).verdicts == ()
    assert not (tmp_path / "nothing").exists()


def test_use_is_noted_at_most_once_an_hour(root):
    """Many runs of an env cost the file server one look each, and one write an hour."""
    assert last_used(root, "aaaa") is None
    mark_used(root, "aaaa")
    note = root / "used/aaaa"
    assert last_used(root, "aaaa") == note.stat().st_mtime
    _age(note, HOUR_S / 2)
    half_an_hour_ago = note.stat().st_mtime
    mark_used(root, "aaaa")
    assert note.stat().st_mtime == half_an_hour_ago
    _age(note, 2 * HOUR_S)
    mark_used(root, "aaaa")
    assert time.time() - note.stat().st_mtime < HOUR_S


def test_a_use_keeps_an_old_env(root):
    """An env that was built long ago and used lately stays."""
    mark_used(root, "aaaa")
    assert _gone(collect(root, _rule())) == set()


def test_noting_a_use_never_fails(tmp_path):
    """A root that is missing, or cannot be written to, is no reason to stop a run."""
    mark_used(tmp_path / "nothing", "aaaa")
    (tmp_path / "file").write_text("")
    mark_used(tmp_path / "file", "aaaa")
    mark_used(Path("/proc"), "aaaa")


def test_notes_on_envs_that_are_gone_go_too(root):
    """Notes on sizes and uses do not outlive their env for ever."""
    for folder in ("used", "sizes"):
        _write(root / folder / "eeee", b"", 60 * DAY_S)
    assert "eeee" in _gone(collect(root, _rule()))
    assert not (root / "used/eeee").exists()
    assert not (root / "sizes/eeee").exists()


def test_a_size_is_measured_once(root):
    """The second who asks for an env's size is answered from a note, until it is built anew."""
    record = EnvRecord("bbbb", str(root / "envs/bbbb"), made=1.0)
    size = size_of(root, record)
    assert size == measure(root / "envs/bbbb")
    (root / "envs/bbbb/more").write_bytes(b"x" * 100_000)
    assert size_of(root, record) == size
    anew = EnvRecord("bbbb", str(root / "envs/bbbb"), made=2.0)
    assert size_of(root, anew).held_bytes > size.held_bytes


def test_an_entry_of_the_package_cache_can_be_dropped(root):
    """A damaged package is out of the cache at once, and dropping it again is no error."""
    entry = root / "pkgs/shared-1.0-0"
    assert drop_entry(entry)
    assert not entry.exists()
    assert not drop_entry(entry)
    assert [path.name for path in (root / "pkgs").glob("*shared*")] == []
