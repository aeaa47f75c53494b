"""Packs without a channel: sharing, bounds, and what may be in them."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcburst.envs.building.build import EnvRecord
from hpcburst.envs.building.room import Room, room_for
from hpcburst.envs.building.solve import Package
from hpcburst.envs.depot.depot import MAX_BUNDLES, Depot
from hpcburst.envs.depot.extras import CannotMove, find_extras, unpack_extras, write_extras
from hpcburst.envs.depot.packs import bundle_of, pack_as_text, read_pack
from hpcburst.errors import EnvError

HOLDER = "/placeholder" * 20


@pytest.fixture
def prefix(tmp_path):
    """An env of one package with one file."""
    return make_prefix(tmp_path / "built", {"share/data.txt": b"data"})


@pytest.fixture
def publish(tmp_path, prefix):
    """Publish an env whose archives are named; returns its pack's file."""
    depot = Depot(tmp_path / "depot")
    lock = tmp_path / "lock.yml"
    lock.write_text("version: 7\n")

    def with_archives(key: str, *names: str, **more: object) -> Path:
        packages, files = [], {}
        for name in names:
            file = tmp_path / f"{name}-1-0.conda"
            file.write_bytes(name.encode() * 100)
            url = f"https://channel/noarch/{file.name}"
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            packages.append(Package(name, "1", "0", 0, url, digest))
            files[url] = file
        known = {"lock": lock, "files": files, "packages": packages, "prefix": prefix}
        record = EnvRecord(key, str(prefix), activation={"PATH": f"{prefix}/bin:${{PATH}}"})
        return depot.publish(key, record=record, **{**known, **more})

    with_archives.depot = depot
    return with_archives


def make_prefix(folder: Path, files: dict[str, bytes], **row: object) -> Path:
    """A prefix with one package that brought these files."""
    rows = []
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        rows.append({"_path": name, "path_type": "hardlink", "sha256": digest, **row})
    (folder / "conda-meta").mkdir(parents=True, exist_ok=True)
    record = {"files": list(files), "paths_data": {"paths": rows}}
    (folder / "conda-meta/one-1-0.json").write_text(json.dumps(record))
    return folder


def archives_of(packed: Path) -> dict[str, bytes]:
    """The archives a node would read for a pack, by URL."""
    found = {}
    for bundle in read_pack(packed).bundles:
        data = bundle_of(packed, bundle).read_bytes()
        for piece in bundle.pieces:
            found[piece.url] = data[piece.offset : piece.offset + piece.size]
    return found


names = st.sets(st.sampled_from("abcdefghij"), min_size=1)


@given(st.lists(names, min_size=1, max_size=12))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_pack_is_whole_and_needs_few_files(publish, envs):
    """Whatever envs are published in whatever order, each finds all its archives in few bundles."""
    for number, wanted in enumerate(envs):
        key = f"key{number}"
        publish.depot.remove(key)
        packed = publish(key, *sorted(wanted))
        pack = read_pack(packed)
        assert len(pack.bundles) <= MAX_BUNDLES
        expected = {f"https://channel/noarch/{n}-1-0.conda": n.encode() * 100 for n in wanted}
        assert archives_of(packed) == expected


def test_an_env_with_archives_all_over_gets_a_new_bundle(publish):
    """Where too many bundles would be needed, the rest is written once more, together."""
    letters = "abcdefghijklmnop"
    for letter in letters:
        publish(f"key-{letter}", letter)
    packed = publish("all", *letters)
    assert len(read_pack(packed).bundles) == MAX_BUNDLES
    assert len(archives_of(packed)) == len(letters)


def test_equal_archives_from_elsewhere_are_shared_under_their_own_url(publish):
    """An archive from a mirror is the same archive; each env finds it by the URL in its lock."""
    publish("one", "a")
    digest = hashlib.sha256(b"a" * 100).hexdigest()
    mirrored = Package("a", "1", "0", 0, "https://mirror/noarch/a-1-0.conda", digest)
    packed = publish("two", packages=[mirrored])
    assert archives_of(packed) == {mirrored.url: b"a" * 100}
    assert read_pack(packed).bundles[0].name == publish.depot.read("one").bundles[0].name


def test_an_archive_nobody_has_is_named(publish):
    """A package that was neither fetched nor published before is an answer."""
    missing = Package("b", "1", "0", 0, "https://channel/noarch/b-1-0.conda", "0" * 64)
    with pytest.raises(EnvError, match=r"b-1-0\.conda"):
        publish("one", packages=[missing])


def test_hidden_archives_are_not_shared_with_others(publish):
    """An env for all to read never refers to a bundle that only one person can."""
    secret = read_pack(publish("one", "a", private=True))
    shown = read_pack(publish("two", "a", "b"))
    assert {b.name for b in secret.bundles}.isdisjoint(b.name for b in shown.bundles)


def test_a_pack_that_lost_a_bundle_is_published_again(publish):
    """An env whose archives were deleted by hand can be published anew."""
    packed = publish("one", "a")
    assert publish.depot.damaged(read_pack(packed)) == []
    bundle = bundle_of(packed, read_pack(packed).bundles[0])
    bundle.unlink()
    assert publish.depot.damaged(read_pack(packed)) == [bundle]
    again = publish("one", "a")
    assert archives_of(again) == {"https://channel/noarch/a-1-0.conda": b"a" * 100}


def test_a_pack_reads_as_it_was_written(publish):
    """What a node reads is what was published."""
    packed = publish("one", "a", "b")
    assert json.loads(pack_as_text(read_pack(packed))) == json.loads(packed.read_text())


def test_a_pack_of_a_newer_version_is_not_misread(publish):
    """A pack with another schema is refused, not guessed at."""
    packed = publish("one", "a")
    packed.write_text(json.dumps({**json.loads(packed.read_text()), "schema": 99}))
    assert publish.depot.read("one") is None


def test_what_archives_brought_is_not_kept_twice(prefix):
    """Extras are the files that are new or differ, and those that are gone are listed."""
    assert find_extras(prefix).added == ()
    (prefix / "share/data.txt").write_bytes(b"else")
    (prefix / "new").write_bytes(b"new")
    found = find_extras(prefix)
    assert found.added == ("new", "share/data.txt")
    (prefix / "share/data.txt").unlink()
    assert find_extras(prefix).removed == ("share/data.txt",)


@pytest.mark.parametrize("mode", ["text", "binary"])
def test_an_env_moved_by_another_tool_is_known_again(tmp_path, mode):
    """A file in which only the path was rewritten is the archive's, though no digest says so."""
    end = b"\0" * 9 if mode == "binary" else b"\n"
    data = b"start " + HOLDER.encode() + b"/lib:" + HOLDER.encode() + b"/x" + end + b"rest"
    more = {"prefix_placeholder": HOLDER, "file_mode": mode, "sha256_in_prefix": "0" * 64}
    prefix = make_prefix(tmp_path / "p", {"lib/one": data}, **more)
    here = str(prefix).encode()
    moved = data.replace(HOLDER.encode(), here)
    if mode == "binary":
        moved = moved.replace(end, end + b"\0" * (len(data) - len(moved)))
    (prefix / "lib/one").write_bytes(moved)
    assert find_extras(prefix).added == ()
    (prefix / "lib/one").write_bytes(moved.replace(b"rest", b"Rest"))
    if mode == "text":
        assert find_extras(prefix).added == ("lib/one",)
    else:
        with pytest.raises(CannotMove, match="lib/one"):
            find_extras(prefix)


def test_equal_prefixes_give_equal_extras(prefix):
    """Packing the same prefix twice gives the same bytes."""
    (prefix / "new").write_bytes(b"new" * 1000)
    found = [io.BytesIO(), io.BytesIO()]
    for each in found:
        write_extras(prefix, find_extras(prefix), each)
    assert found[0].getvalue() == found[1].getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member of a tar, as an attacker would write it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("/absolute")],
        [member("../beside")],
        [member("a/../../beside")],
        [member("link", tarfile.SYMTYPE, "../outside"), member("link/file")],
        [member("hard", tarfile.LNKTYPE, "../outside/file")],
        [member("device", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
)
def test_extras_are_written_inside_of_the_env_only(tmp_path, members):
    """A tar that would write elsewhere, or make anything but files, is refused."""
    packed, stage = tmp_path / "extras.tar", tmp_path / "stage"
    (tmp_path / "outside").mkdir()
    stage.mkdir()
    with tarfile.open(packed, "w") as tar:
        for info in members:
            tar.addfile(info)
    with pytest.raises(EnvError, match="elsewhere"):
        unpack_extras(packed, stage, rewritten=(), old="/old", new="/new")
    assert list((tmp_path / "outside").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["extras.tar", "outside", "stage"]


def test_a_file_shared_with_a_cache_is_replaced_not_written_to(tmp_path):
    """Extras take the place of a linked file; what else is linked to it stays as it was."""
    stage, cached = tmp_path / "stage", tmp_path / "cached"
    stage.mkdir()
    cached.write_text("old")
    (stage / "file").hardlink_to(cached)
    info = member("file")
    info.size = 3
    with tarfile.open(tmp_path / "extras.tar", "w") as tar:
        tar.addfile(info, io.BytesIO(b"new"))
    unpack_extras(tmp_path / "extras.tar", stage, rewritten=(), old="/old", new="/new")
    assert (stage / "file").read_text() == "new"
    assert cached.read_text() == "old"


def test_a_quota_is_told_from_a_full_disk(tmp_path):
    """The answer to a used-up quota says so, says how much was needed, and how to look it up."""
    import errno

    with (
        pytest.raises(EnvError, match=r"(?s)quota is used up.*12 MB and 34 files.*quota -s"),
        room_for("spec.yml", tmp_path / "env", needed=Room(12_000_000, 34)),
    ):
        raise OSError(errno.EDQUOT, "quota")
