"""Archives on their way from channels to envs: whole, checked, resumed, private, offline."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpcburst.envs.building.channels import channel_answers
from hpcburst.envs.child import downloading, fetching
from hpcburst.envs.child.credentials import ticket_for
from hpcburst.envs.child.fetching import Fetch, Wanted
from hpcburst.envs.child.process import RattlerFailed, RattlerProcess
from hpcburst.envs.child.refusals import (
    ArchiveDamaged,
    ArchiveGone,
    ArchiveRefused,
    ServerUnreachable,
)
from hpcburst_recipes.channel.archive import Package, native_subdir, new_stage, pack
from hpcburst_recipes.channel.smoke import index_channel
from support.processes import wait_until
from support.webchannel import basic, serving

BIG = 3_000_000
"""Bytes that do not compress: enough to be cut in the middle several times."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A channel of tiny packages and a larger one, none of which needs Python."""
    channel, work = tmp_path_factory.mktemp("chan"), tmp_path_factory.mktemp("w")
    noise = random.Random(1).randbytes(BIG)
    _pack(channel, work, Package("big", "1.0", "0", depends=("small",)), {"share/big": noise})
    _pack(channel, work, Package("small", "2.1", "h1_3"), {"share/small": b"small\n"})
    _pack(channel, work, Package("data", "1.0", "0", noarch="generic"), {"share/data": b"d\n"})
    gpu = Package("gpuapp", "1.0", "0", depends=("__cuda >=12",))
    _pack(channel, work, gpu, {"share/gpuapp": b"g\n"})
    script = {"bin/.scripted-post-link.sh": b"#!/bin/sh\nexit 3\n"}
    _pack(channel, work, Package("scripted", "1.0", "0"), script)
    index_channel(channel)
    return channel


def _pack(channel, work, package, files):
    stage = new_stage(work, package.name)
    for path, content in files.items():
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).write_bytes(content)
        (stage / path).chmod(0o755 if path.endswith(".sh") else 0o644)
    pack(package, stage, channel)


@pytest.fixture
def web(folder):
    with serving(folder) as channel:
        yield channel


@pytest.fixture
def rattler():
    with RattlerProcess() as process:
        yield process


@pytest.fixture
def place(tmp_path):
    """Folders to work in."""
    for name in ("incoming", "repodata", "cache"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """No pauses between tries."""
    monkeypatch.setattr(downloading, "PAUSES_S", (0.0,))


def _lock(rattler, url, place, *specs, offline=False):
    lock = place / "env.lock.yml"
    rattler.call(
        "solve",
        lock=str(lock),
        repodata=str(place / "repodata"),
        channels=[url],
        conda=list(specs or ("big", "data")),
        offline=offline,
    )
    return str(lock)


def _fetch(rattler, lock, place, cache=(), **more):
    folder = str(place / "incoming")
    return rattler.call("fetch", lock=lock, folder=folder, cache=list(cache), **more)["files"]


def _install(rattler, lock, place, name="env", cache="cache", **more):
    stage = place / name
    where = {"stage": str(stage), "prefix": "/where/it/goes", "cache": [str(place / cache)]}
    rattler.call("install", lock=lock, **where, **more)
    return stage


def _tree(prefix):
    return {
        str(path.relative_to(prefix)): (path.stat().st_mode, path.read_bytes())
        for path in prefix.rglob("*")
        if path.is_file()
    }


def _here(folder, told=lambda *_: None, another_way=None, **more):
    """A round of fetching in this process."""

    def no_other_way(url, path):
        raise OSError(f"no other way to {url}")

    return Fetch(folder, told, another_way or no_other_way, **more)


def _wanted(web, folder, name="big-1.0-0.conda", subdir=None):
    subdir = subdir or native_subdir()
    content = (folder / subdir / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Wanted(f"{web.url}/{subdir}/{name}", digest, size=len(content))


def _parts(folder):
    return [path.name for path in folder.rglob("*.part")]


def test_every_archive_of_a_lock_becomes_a_whole_file_named_by_its_digest(web, rattler, place):
    """Archives are fetched once, whole and checked; fetching again asks the server nothing."""
    lock = _lock(rattler, web.url, place)
    files = _fetch(rattler, lock, place)
    packages = rattler.call("packages", lock=lock)["packages"]
    assert sorted(p["name"] for p in packages) == ["big", "data", "small"]
    for package in packages:
        path = Path(files[package["url"]])
        assert path == place / "incoming" / package["sha256"] / package["file_name"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == package["sha256"]
        assert path.stat().st_size == package["size"]
    assert not _parts(place)
    before = len(web.asked)
    assert _fetch(rattler, lock, place) == files
    assert len(web.asked) == before


def test_progress_counts_bytes_up_to_all_of_them(web, place):
    """While archives come, the bytes that are there and all bytes are told."""
    told = []
    with RattlerProcess(lambda *event: told.append(event)) as rattler:
        lock = _lock(rattler, web.url, place)
        total = sum(p["size"] for p in rattler.call("packages", lock=lock)["packages"])
        _fetch(rattler, lock, place)
    assert told[-1] == ("downloading", total, total) or told[-1] == ["downloading", total, total]


def test_a_connection_cut_in_the_middle_is_continued_where_it_stopped(web, rattler, place, folder):
    """After a cut only the rest is asked for, again and again if need be."""
    lock = _lock(rattler, web.url, place)
    web.cut = 3
    files = _fetch(rattler, lock, place)
    ranges = [asked.range for asked in web.archives_asked("big-")]
    assert ranges == ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    size = (folder / native_subdir() / "big-1.0-0.conda").stat().st_size
    assert web.sent["big-1.0-0.conda"] == size
    assert not _parts(place)
    assert len(files) == 3


def test_a_server_that_ignores_ranges_still_delivers(web, folder, place, quick):
    """Where continuing is not possible, the archive comes from the start and is right."""
    web.ranges, web.cut = False, 2
    archive = _wanted(web, folder)
    files = _here(place / "incoming").run([archive])
    assert archive.is_right(files[archive.url])
    assert [asked.status for asked in web.archives_asked()] == [200, 200, 200]


def test_a_fetch_that_was_killed_goes_on_in_the_next_run(web, rattler, place, folder):
    """kill -9 in the middle costs what was not yet written, and nothing else."""
    lock = _lock(rattler, web.url, place, "big")
    web.hold.clear()
    code = "from hpcburst.envs.child.process import *; import sys\n"
    code += "with RattlerProcess() as r: "
    code += "r.call('fetch', lock=sys.argv[1], folder=sys.argv[2], cache=[])"
    argv = [sys.executable, "-c", code, lock, str(place / "incoming")]
    driver = subprocess.Popen(argv, start_new_session=True)
    try:
        wait_until(lambda: _written(place) >= web.cut_bytes, "the first bytes came")
        child = int(_parts_pid(place))
        os.kill(child, signal.SIGKILL)
        driver.wait(20)
    finally:
        driver.kill()
        driver.wait()
    web.hold.set()
    _fetch(rattler, lock, place)
    assert web.archives_asked("big-")[-1].range == f"bytes={web.cut_bytes}-"
    assert not _parts(place)


def _written(place):
    return sum(path.stat().st_size for path in place.rglob("big*.part"))


def _parts_pid(place):
    (part,) = place.rglob("big*.part")
    return part.name.removesuffix(".part").rsplit("-", 2)[1]


def test_closing_the_process_ends_a_download_and_keeps_what_came(web, rattler, place):
    """Ctrl-C in the middle of a download ends it at once; the next run goes on from there."""
    lock = _lock(rattler, web.url, place, "big")
    web.hold.clear()

    def interrupt(what, _done, _total):
        if what == "downloading":
            wait_until(lambda: _written(place) >= web.cut_bytes, "the first bytes came")
            raise KeyboardInterrupt

    interrupted = RattlerProcess(interrupt)
    with pytest.raises(KeyboardInterrupt):
        _fetch(interrupted, lock, place)
    assert interrupted._process is None
    web.hold.set()
    _fetch(rattler, lock, place)
    assert web.archives_asked("big-")[-1].range == f"bytes={web.cut_bytes}-"


def test_a_dismissed_process_ends_by_itself_and_a_later_call_is_answered():
    """Who lets rattler go early neither waits for its end nor has to know whether it is needed."""
    with RattlerProcess() as rattler:
        platform = rattler.call("machine")["platform"]
        first = rattler._process
        rattler.dismiss()
        wait_until(lambda: first.poll() is not None, "the dismissed process ended")
        assert rattler.call("machine")["platform"] == platform
        assert rattler._process is not first


def test_a_process_loads_only_what_its_task_needs():
    """An env whose packages are there is not kept waiting for what downloads and deletes need."""
    names = "import sys; print(*sys.modules)"
    argv = [sys.executable, "-P", "-c"]
    bare, child = (
        set(subprocess.check_output([*argv, code + names], text=True).split())
        for code in ("", "import hpcburst.envs.child.__main__; ")
    )
    needless = {"asyncio", "hpcburst.envs.child.fetching", "rattler", "secrets", "shutil", "ssl"}
    assert not needless & (child - bare)


def test_other_bytes_than_the_lock_names_are_thrown_away_and_fetched_once_more(
    web, folder, place, quick
):
    """A damaged download is made again, once; a wrong archive never gets its name."""
    archive = _wanted(web, folder)
    web.other_bytes = 1
    files = _here(place / "incoming").run([archive])
    assert archive.is_right(files[archive.url])
    files[archive.url].unlink()
    web.other_bytes = 2
    with pytest.raises(ArchiveDamaged, match=r"big-1\.0-0\.conda.*sha256"):
        _here(place / "incoming").run([archive])
    assert not [path for path in (place / "incoming").rglob("*") if path.is_file()]


def test_a_file_that_was_damaged_on_disk_is_fetched_again(web, folder, place):
    """A file with the right name and other content is not taken for the archive."""
    archive = _wanted(web, folder)
    path = _here(place / "incoming").run([archive])[archive.url]
    path.write_bytes(bytes(archive.size))
    _here(place / "incoming").run([archive])
    assert archive.is_right(path)


def test_an_archive_that_is_gone_is_named_and_not_asked_for_again(web, folder, place):
    """404 is an answer, not a trouble to retry."""
    archive = Wanted(f"{web.url}/{native_subdir()}/gone-1-0.conda", "0" * 64)
    with pytest.raises(ArchiveGone, match=r"gone-1-0\.conda: 404"):
        _here(place / "incoming").run([archive])
    assert len(web.asked) == 1
    assert not _parts(place)


def test_a_server_in_trouble_is_asked_again_a_bounded_number_of_times(web, folder, place, quick):
    """Passing trouble is waited out; lasting trouble is told, with the server's answer."""
    archive = _wanted(web, folder)
    web.failing = [503, 500]
    assert archive.is_right(_here(place / "incoming").run([archive])[archive.url])
    other = _wanted(web, folder, "small-2.1-h1_3.conda")
    web.failing = [503] * 50
    with pytest.raises(ServerUnreachable, match="503"):
        _here(place / "incoming").run([other])
    assert len(web.archives_asked("small-")) == downloading.TRIES


def test_one_failure_ends_the_round_and_keeps_what_the_others_have(web, folder, place, quick):
    """An archive that cannot be had is told at once, and half of another one is not lost."""
    archive = _wanted(web, folder)
    gone = Wanted("s3://bucket/gone-1-0.conda", "0" * 64)
    some_came = threading.Event()

    def told(done, _total):
        if done >= web.cut_bytes:
            some_came.set()
            wait_until(fetch._stop.is_set, "the round was ended")

    def another_way(url, path):
        assert some_came.wait(20)
        raise ArchiveGone(url)

    fetch = _here(place / "incoming", told, another_way)
    with pytest.raises(ArchiveGone):
        fetch.run([archive, gone])
    (part,) = place.rglob("big-*")
    assert part.name == "big-1.0-0.conda.part"
    assert web.cut_bytes <= part.stat().st_size < archive.size


def test_two_processes_may_fetch_the_same_archives_at_once(web, rattler, place):
    """Fetching together costs nothing but traffic: both get whole files."""
    lock = _lock(rattler, web.url, place)
    web.cut = 4
    answers = []

    def fetch():
        with RattlerProcess() as process:
            answers.append(_fetch(process, lock, place))

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[0] == answers[1]
    for package in rattler.call("packages", lock=lock)["packages"]:
        content = Path(answers[0][package["url"]]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == package["sha256"]
    assert not _parts(place)


def test_a_full_disk_is_told_as_such_and_no_half_archive_stays(web, folder, place, monkeypatch):
    """When there is no room, the system's own answer comes through, and the room is given back."""

    def no_room(self, chunk):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloading.Download, "_write", no_room)
    with pytest.raises(OSError, match="No space left"):
        _here(place / "incoming").run([_wanted(web, folder)])
    assert not _parts(place)


def test_an_old_part_of_another_node_is_taken_over_and_a_fresh_one_is_not(web, folder, place):
    """What a vanished node has fetched is of use; what a living one writes is left alone."""
    archive = _wanted(web, folder)
    target = archive.place_in(place / "incoming")
    target.parent.mkdir()
    content = (folder / native_subdir() / "big-1.0-0.conda").read_bytes()
    fresh = target.with_name(target.name + ".othernode-1-aa.part")
    fresh.write_bytes(content[:1000])
    old = target.with_name(target.name + ".othernode-2-bb.part")
    old.write_bytes(content[:2000])
    os.utime(old, (1, 1))
    _here(place / "incoming").run([archive])
    assert [asked.range for asked in web.archives_asked()] == ["bytes=2000-"]
    assert _parts(place) == [fresh.name]


# --- private channels and mirrors

USER, PASSWORD, TOKEN = "me", "s3cr:t/@", "tk-0123"


def _auth_file(place, monkeypatch, host, known):
    path = place / "auth.json"
    path.write_text(json.dumps({host: known}))
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(path))


def _by_basic_file(web, place, monkeypatch):
    web.authorization = basic(USER, PASSWORD)
    known = {"BasicHTTP": {"username": USER, "password": PASSWORD}}
    _auth_file(place, monkeypatch, "127.0.0.1", known)
    return web.url


def _by_bearer_file(web, place, monkeypatch):
    web.authorization = f"Bearer {TOKEN}"
    _auth_file(place, monkeypatch, "127.0.0.1", {"BearerToken": TOKEN})
    return web.url


def _by_token_file(web, place, monkeypatch):
    web.token = TOKEN
    _auth_file(place, monkeypatch, "127.0.0.1", {"CondaToken": TOKEN})
    return web.url


def _by_netrc(web, place, monkeypatch):
    web.authorization = basic(USER, PASSWORD)
    path = place / "netrc"
    path.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    return web.url


def _by_url(web, place, monkeypatch):
    web.authorization = basic(USER, PASSWORD)
    return web.url.replace("://", f"://{USER}:s3cr%3At%2F%40@")


def _by_token_in_url(web, place, monkeypatch):
    web.token = TOKEN
    return web.url.replace(web.host, f"{web.host}/t/{TOKEN}")


WAYS = [_by_basic_file, _by_bearer_file, _by_token_file, _by_netrc, _by_url, _by_token_in_url]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.lstrip("_"))
def test_a_private_channel_is_used_with_the_credentials_rattler_knows(
    folder, place, monkeypatch, way
):
    """Solving, fetching and linking work with each way to say who one is, without conda."""
    with serving(folder, mount="/private/chan") as web:
        url = way(web, place, monkeypatch)
        with RattlerProcess() as rattler:
            lock = _lock(rattler, url, place, "small", "data")
            files = _fetch(rattler, lock, place)
            stage = _install(rattler, lock, place, archives=files)
        assert (stage / "share/small").read_bytes() == b"small\n"
        assert all(asked.status == 200 for asked in web.archives_asked())
        assert len(web.archives_asked()) == 2


def test_a_private_channel_answers_to_its_credentials(folder, place, monkeypatch):
    """Whether a channel can be used is asked as the person who will use it."""
    with serving(folder, mount="/private/chan") as web:
        url = _by_basic_file(web, place, monkeypatch)
        assert channel_answers(url)
        assert channel_answers(_by_url(web, place, monkeypatch))
        monkeypatch.delenv("RATTLER_AUTH_FILE")
        assert not channel_answers(url)


def test_credentials_are_found_as_rattler_files_them(place, monkeypatch):
    """The host itself goes before a wildcard, and a near wildcard before a wide one."""
    path = place / "auth.json"
    known = {
        "*.example.org": {"BearerToken": "wide"},
        "*.repo.example.org": {"BearerToken": "near"},
        "own.example.org": {"CondaToken": "mine"},
        "desk.example.org": {"OAuth": {"access_token": "only for rattler"}},
    }
    path.write_text(json.dumps(known))
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(path))
    assert ticket_for("https://x.example.org/a").authorization == "Bearer wide"
    assert ticket_for("https://a.repo.example.org/a").authorization == "Bearer near"
    assert ticket_for("https://repo.example.org/a").authorization == "Bearer near"
    assert ticket_for("https://own.example.org/a").url == "https://own.example.org/t/mine/a"
    assert ticket_for("https://own.example.org/t/x/a").url == "https://own.example.org/t/x/a"
    assert ticket_for("https://desk.example.org/a").authorization == ""
    assert ticket_for("https://example.com/a").authorization == ""


def test_refused_credentials_are_told_without_telling_them(web, folder, place):
    """401 names the archive and neither password nor token, after rattler's own way was tried."""
    web.authorization = "Bearer something else"
    archive = _wanted(web, folder)
    secret = Wanted(archive.url.replace("://", "://me:hushhush@"), archive.sha256)
    tried = []

    def another_way(url, path):
        tried.append(url)
        raise OSError("keyring: hushhush")

    with pytest.raises(ArchiveRefused, match="401") as caught:
        _here(place / "incoming", another_way=another_way).run([secret])
    assert "hushhush" not in str(caught.value)
    assert tried == [secret.url]


@pytest.mark.parametrize("scheme", ["http", "oci", "s3"])
def test_what_we_cannot_fetch_rattler_may(web, folder, place, scheme):
    """Other schemes, and credentials that only rattler has, are left to rattler's own client."""
    web.authorization = "Bearer in the keyring"
    archive = _wanted(web, folder)
    archive = Wanted(archive.url.replace("http:", f"{scheme}:"), archive.sha256, size=archive.size)

    def another_way(url, path):
        path.write_bytes((folder / native_subdir() / "big-1.0-0.conda").read_bytes())

    files = _here(place / "incoming", another_way=another_way).run([archive])
    assert archive.is_right(files[archive.url])
    assert not _parts(place)


def test_credentials_do_not_follow_a_redirect_to_another_server(folder, place):
    """A mirror that redirects to a storage service gets the password; the service does not."""
    with serving(folder) as storage, serving(folder) as front:
        front.authorization = basic(USER, PASSWORD)
        front.elsewhere = storage.url
        archive = _wanted(front, folder)
        known = Wanted(archive.url.replace("://", f"://{USER}:s3cr%3At%2F%40@"), archive.sha256)
        files = _here(place / "incoming").run([known])
        assert known.is_right(files[known.url])
        assert front.archives_asked()[0].headers["authorization"] == basic(USER, PASSWORD)
        assert all("authorization" not in asked.headers for asked in storage.asked)


def test_a_mirror_stands_in_for_a_channel_with_credentials_of_its_own(
    folder, place, monkeypatch, rattler
):
    """With `hpcburst.envs.mirror`, a channel's name leads to the mirror and its password."""
    from hpcburst.envs.specs.reading import read_spec

    with serving(folder, mount="/mirror/tools") as web:
        web.authorization = basic(USER, PASSWORD)
        file = place / "environment.yml"
        file.write_text("channels: [tools]\ndependencies: [small]\n")
        url = _by_url(web, place, monkeypatch)
        spec = read_spec(file, mirror={"tools": url})
        lock = _lock(rattler, *spec.channels, place, *spec.conda)
        files = _fetch(rattler, lock, place)
        assert [Path(path).name for path in files.values()] == ["small-2.1-h1_3.conda"]


def test_a_proxy_of_the_environment_is_used(web, folder, place, monkeypatch):
    """Where the only way out is a proxy, archives come through it."""
    archive = Wanted(f"http://channel.invalid/{native_subdir()}/small-2.1-h1_3.conda")
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    downloading._opener.cache_clear()
    try:
        files = _here(place / "incoming").run([archive])
    finally:
        downloading._opener.cache_clear()
    assert files[archive.url].stat().st_size > 0
    assert web.asked[-1].headers["host"] == "channel.invalid"


# --- what is there already


def test_extracted_packages_are_not_fetched_again(web, rattler, place):
    """A package cache that holds a package saves its download."""
    lock = _lock(rattler, web.url, place)
    _install(rattler, lock, place)
    before = len(web.archives_asked())
    assert _fetch(rattler, lock, place, [str(place / "cache")]) == {}
    assert len(web.archives_asked()) == before
    assert len(_fetch(rattler, lock, place)) == 3


def test_a_package_cache_that_lost_files_is_mended_by_downloading(web, rattler, place):
    """A damaged entry in the package cache does not break an installation."""
    lock = _lock(rattler, web.url, place)
    _install(rattler, lock, place)
    (place / "cache/small-2.1-h1_3/share/small").unlink()
    assert _fetch(rattler, lock, place, [str(place / "cache")]) == {}
    stage = place / "again"
    (stage / "mine").mkdir(parents=True)
    _install(rattler, lock, place, "again")
    assert (stage / "share/small").read_bytes() == b"small\n"
    assert (stage / "mine").is_dir()
    (stage / "mine").rmdir()
    assert _tree(stage) == _tree(place / "env")


def test_an_entry_of_another_archive_of_the_same_name_is_not_taken_for_it(web, rattler, place):
    """Packages of one name from two channels are told apart by digest."""
    lock = _lock(rattler, web.url, place, "small")
    _install(rattler, lock, place)
    text = Path(lock).read_text()
    (package,) = rattler.call("packages", lock=lock)["packages"]
    Path(lock).write_text(text.replace(package["sha256"], "0" * 64))
    with pytest.raises(RattlerFailed, match="ArchiveDamaged"):
        _fetch(rattler, lock, place, [str(place / "cache")])


def test_installing_from_files_gives_the_same_bytes_and_names_the_channel(web, rattler, place):
    """An env linked from fetched archives is the one linked from the channel, byte for byte."""
    lock = _lock(rattler, web.url, place)
    files = _fetch(rattler, lock, place)
    before = len(web.archives_asked())
    given = _install(rattler, lock, place, "given", archives=files)
    assert len(web.archives_asked()) == before
    for path in (place / "cache").iterdir():
        path.rename(path.with_name(path.name + ".gone"))
    plain = _install(rattler, lock, place, "plain")
    assert len(web.archives_asked()) == before + 3
    assert _tree(given) == _tree(plain)
    meta = json.loads((given / "conda-meta/big-1.0-0.json").read_text())
    assert meta["url"] == f"{web.url}/{native_subdir()}/big-1.0-0.conda"


def test_a_local_channel_is_used_in_place(folder, rattler, place):
    """Archives of a `file://` channel are not copied."""
    lock = _lock(rattler, folder.as_uri(), place)
    files = _fetch(rattler, lock, place)
    assert files
    assert all(url == Path(path).as_uri() for url, path in files.items())
    assert not list((place / "incoming").iterdir())
    stage = _install(rattler, lock, place, archives=files)
    assert (stage / "share/big").stat().st_size == BIG


def test_a_failing_link_script_fails_the_installation(folder, rattler, place):
    """A package whose own script failed is not passed off as installed."""
    lock = _lock(rattler, folder.as_uri(), place, "scripted")
    with pytest.raises(RattlerFailed, match=r"LinkScriptFailed.*scripted"):
        _install(rattler, lock, place)


# --- offline


def test_offline_everything_works_from_what_is_there(web, rattler, place):
    """Once solved and fetched, an env is built again without a single request."""
    files = _fetch(rattler, _lock(rattler, web.url, place), place)
    before = len(web.asked)
    with RattlerProcess() as fresh:
        lock = _lock(fresh, web.url, place, offline=True)
        assert _fetch(fresh, lock, place, offline=True) == files
        stage = _install(fresh, lock, place, archives=files, offline=True)
        again = _install(fresh, lock, place, "again", offline=True)
    assert _tree(stage) == _tree(again)
    assert len(web.asked) == before


def test_offline_what_is_missing_is_named_and_nothing_is_asked(web, rattler, place):
    """Without a network the answer comes at once, and says what is not there."""
    lock = _lock(rattler, web.url, place)
    before = len(web.asked)
    with pytest.raises(RattlerFailed, match=r"Offline.*big-1\.0-0\.conda"):
        _fetch(rattler, lock, place, offline=True)
    with pytest.raises(RattlerFailed, match=r"Offline.*big-1\.0-0\.conda"):
        _install(rattler, lock, place, offline=True)
    other = place / "other"
    (other / "repodata").mkdir(parents=True)
    with RattlerProcess() as fresh, pytest.raises(RattlerFailed, match="Offline"):
        _lock(fresh, web.url, other, offline=True)
    assert len(web.asked) == before


def test_offline_a_damaged_cache_is_told_and_nothing_is_asked(web, rattler, place):
    """Even a package cache that lost files does not bring the network back."""
    lock = _lock(rattler, web.url, place, "small")
    _install(rattler, lock, place)
    (place / "cache/small-2.1-h1_3/share/small").unlink()
    before = len(web.asked)
    with pytest.raises(RattlerFailed, match=r"Offline.*small-2\.1"):
        _install(rattler, lock, place, "again", offline=True)
    assert len(web.asked) == before


# --- exact archives


def _row(web, name, folder, subdir=None, **known):
    url = f"{web.url}/{subdir or native_subdir()}/{name}"
    return {"url": url, "sha256": "", "md5": "", "depends": [], "size": 0, **known}


def _lock_archives(rattler, place, rows, **more):
    lock = place / "exact.lock.yml"
    answer = rattler.call(
        "lock_archives", lock=str(lock), archives=rows, folder=str(place / "incoming"), **more
    )
    return str(lock), {p["name"]: p for p in answer["packages"]}


def test_bare_urls_become_a_lock_without_any_list_of_a_channel(web, rattler, place, folder):
    """An `@EXPLICIT` file is locked from its archives alone: their digests and what they need."""
    rows = [
        _row(web, "big-1.0-0.conda", folder),
        _row(web, "small-2.1-h1_3.conda", folder),
        _row(web, "data-1.0-0.conda", folder, "noarch"),
    ]
    lock, packages = _lock_archives(rattler, place, rows)
    content = (folder / native_subdir() / "big-1.0-0.conda").read_bytes()
    assert packages["big"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert packages["big"]["size"] == len(content)
    assert not [asked for asked in web.asked if "repodata" in asked.path]
    assert "depends:\n  - small" in Path(lock).read_text()
    before = len(web.asked)
    stage = _install(rattler, lock, place, archives=_fetch(rattler, lock, place))
    assert len(web.asked) == before
    assert json.loads((stage / "conda-meta/data-1.0-0.json").read_text())["noarch"] == "generic"


def test_a_list_that_says_enough_is_locked_without_fetching(web, rattler, place, folder):
    """A lock file of another tool, complete in itself, becomes ours without a download."""
    wanted = _wanted(web, folder)
    known = {"sha256": wanted.sha256, "depends": ["small >=2"], "size": wanted.size}
    lock, packages = _lock_archives(rattler, place, [_row(web, "big-1.0-0.conda", folder, **known)])
    assert web.asked == []
    assert packages["big"]["sha256"] == wanted.sha256
    assert "small >=2" in Path(lock).read_text()
    stage = _install(rattler, lock, place, archives=_fetch(rattler, lock, place))
    assert (stage / "share/big").stat().st_size == BIG


def test_an_old_digest_is_checked_and_kept(web, rattler, place, folder):
    """Lists with md5 are as good: it is checked, kept, and the newer digest is added."""
    content = (folder / native_subdir() / "small-2.1-h1_3.conda").read_bytes()
    md5 = hashlib.md5(content).hexdigest()  # noqa: S324 - that is what old lists hold
    row = _row(web, "small-2.1-h1_3.conda", folder, md5=md5)
    _lock, packages = _lock_archives(rattler, place, [row])
    assert packages["small"]["md5"] == md5
    assert packages["small"]["sha256"] == hashlib.sha256(content).hexdigest()
    with pytest.raises(RattlerFailed, match=r"ArchiveDamaged.*md5 0000"):
        _lock_archives(rattler, place, [{**row, "md5": "0" * 32}])


def test_archives_of_another_platform_are_refused_by_name(web, rattler, place, folder):
    """A list made on a Mac is refused before anything is fetched, and says which archives."""
    rows = [_row(web, "big-1.0-0.conda", folder, "osx-arm64")]
    with pytest.raises(RattlerFailed, match=r"OtherPlatform.*big-1\.0-0\.conda \(osx-arm64\)"):
        _lock_archives(rattler, place, rows)
    assert web.asked == []


def test_one_package_twice_is_refused(web, rattler, place, folder):
    """Two archives of one package cannot be in one env."""
    rows = [_row(web, "small-2.1-h1_3.conda", folder)] * 2
    with pytest.raises(RattlerFailed, match="small: more than one"):
        _lock_archives(rattler, place, rows)


def test_offline_exact_archives_come_from_what_is_there(web, rattler, place, folder):
    """Without a network, a list is locked from archives fetched before, or refused by name."""
    wanted = _wanted(web, folder, "small-2.1-h1_3.conda")
    rows = [_row(web, "small-2.1-h1_3.conda", folder, sha256=wanted.sha256)]
    with pytest.raises(RattlerFailed, match=r"Offline.*small-2\.1"):
        _lock_archives(rattler, place, rows, offline=True)
    assert web.asked == []
    _lock_archives(rattler, place, rows)
    before = len(web.asked)
    _lock_archives(rattler, place, rows, offline=True)
    assert len(web.asked) == before


# --- what the machine offers


def test_a_gpu_env_solves_on_a_node_without_a_gpu(folder, place, monkeypatch):
    """CONDA_OVERRIDE_CUDA makes this machine seem one with that driver; without it, it is not."""
    monkeypatch.delenv("CONDA_OVERRIDE_CUDA", raising=False)
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "")
    with (
        RattlerProcess() as rattler,
        pytest.raises(RattlerFailed, match=r"(?s)SolverError.*__cuda"),
    ):
        _lock(rattler, folder.as_uri(), place, "gpuapp")
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.4")
    with RattlerProcess() as rattler:
        lock = _lock(rattler, folder.as_uri(), place, "gpuapp")
        assert "__cuda=12.4" in str(rattler.call("machine")["virtual_packages"])
    assert "gpuapp" in Path(lock).read_text()


def test_the_number_of_connections_is_bounded(folder, place, web):
    """However many archives are wanted, a mirror sees only so many connections at once."""
    web.hold.clear()
    web.cut_bytes = 10
    names = sorted(path.name for path in (folder / native_subdir()).glob("*.conda"))
    archives = [_wanted(web, folder, name) for name in names]
    archives += [Wanted(f"{archives[0].url}?{n}", archives[0].sha256) for n in range(9)]
    fetch = threading.Thread(target=lambda: _here(place / "incoming").run(archives))
    fetch.start()
    wait_until(lambda: len(web.asked) >= fetching.CONNECTIONS, "connections came")
    assert len(web.asked) == fetching.CONNECTIONS
    web.hold.set()
    fetch.join()
    assert len(web.asked) == len(archives)
