"""Files from strangers: specs, locks and site files that were written to do harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcburst.envs.child.fetching import Wanted
from hpcburst.envs.child.refusals import FetchFailed
from hpcburst.envs.specs.reading import read_spec
from hpcburst.errors import BurstError
from hpcburst.policy.load import load_site

CANARY = "planted-by-a-file"

LONGEST_S = 20.0
"""More than any of these takes, on a full machine too."""

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

SPECS = {
    "a tag that runs": f"dependencies: !!python/object/apply:os.system ['touch {CANARY}']\n",
    "a tag of its own": "dependencies: !env [python]\n",
    "anchors that grow": BOMB + "dependencies: *i\n",
    "an anchor in itself": "dependencies: &a [*a]\n",
    "depth": "dependencies: " + "[" * 20_000,
    "depth of names": "dependencies: " + "{a: " * 20_000,
    "a huge number": f"dependencies: [{'9' * 100_000}]\n",
    "a number for a name": "dependencies: [1e99999]\n",
    "a name twice": "dependencies: [python]\ndependencies: [evil]\n",
    "two documents": "dependencies: [python]\n---\ndependencies: [evil]\n",
    "a command as a package": f"dependencies: ['$(touch {CANARY})']\n",
    "an option as a package": "dependencies: ['--help']\n",
    "a newline in a package": 'dependencies: ["python\\n--index-url=http://x"]\n',
    "a command as a channel": f"channels: ['`touch {CANARY}`']\ndependencies: [python]\n",
    "a channel of another kind": "channels: ['gopher://x']\ndependencies: [python]\n",
    "an option for pip": "dependencies: [python, {pip: ['--target=/']}]\n",
    "a prefix": "prefix: /etc\ndependencies: ['']\n",
    "nothing": "",
    "bytes": "\x01\x02\x03",
    "a list": "- a\n- b\n",
    "a merge": "a: &a {dependencies: [x]}\n<<: [*a, *a]\n",
}

LOCKS = {
    "explicit.txt": "@EXPLICIT\nhttps://x/linux-64/../../../../etc/passwd\n",
    "slashes.txt": "@EXPLICIT\nhttps://x/linux-64/..%2f..%2f..%2fetc%2fa-1-0.conda\n",
    "dots.txt": "@EXPLICIT\nhttps://x/linux-64/..\n",
    "command.txt": f"@EXPLICIT\nhttps://x/linux-64/$(touch {CANARY})-1-0.conda\n",
    "option.txt": "@EXPLICIT\n--help\n",
    "scheme.txt": "@EXPLICIT\nssh://-oProxyCommand=id/linux-64/a-1-0.conda\n",
    "digest.txt": "@EXPLICIT\nhttps://x/linux-64/a-1-0.conda#../../x\n",
    "conda-lock.yml": "version: 1\nmetadata: {platforms: [linux-64]}\npackage:\n"
    "- {name: a, version: '1', manager: conda, platform: linux-64, url: '../../../x', hash: {}}\n",
    "pixi.lock": "version: 6\nenvironments: {default: {channels: [], packages: {linux-64: "
    "[{conda: '../../../../etc/passwd'}]}}}\npackages: []\n",
    "pixi.toml": "[workspace]\nchannels = ['../..']\nplatforms = ['linux-64']\n"
    f"[dependencies]\n'$(touch {CANARY})' = '*'\n",
    "deep.toml": "[workspace]\na = " + "[" * 5000,
}


def _refused_or_harmless(path: Path, inside: Path) -> str:
    """Read a spec; what harm came of it."""
    begun = time.monotonic()
    nameless = False
    try:
        for archive in read_spec(path).explicit:
            _check_place(archive.url, inside)
    except BurstError as error:
        nameless = path.name not in str(error)
    took_s = time.monotonic() - begun
    slow = f"{took_s:.0f} s" if took_s > LONGEST_S else ""
    return "the error does not name the file" if nameless else slow


def _check_place(url: str, inside: Path) -> None:
    """An archive is put where its digest says, below the folder of archives, or is refused."""
    try:
        place = Wanted(url).place_in(inside)
    except FetchFailed:
        return
    assert Path(os.path.normpath(place)).is_relative_to(inside), place


@pytest.mark.parametrize("kind", SPECS)
def test_a_hostile_spec_is_an_error(tmp_path, monkeypatch, tally, kind):
    """An environment file with tags, bombs, commands or options in it is refused with its name, or
    read as the plain data it is: at once, and nothing of it is run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "environment.yml"
    path.write_text(SPECS[kind])
    harm = _refused_or_harmless(path, tmp_path / "incoming")
    tally.note("specs", kind, harm or (tmp_path / CANARY).exists())


@pytest.mark.parametrize("name", LOCKS)
def test_a_hostile_lock_stays_in_its_folder(tmp_path, monkeypatch, tally, name):
    """What a lock names is put below the store's own folder, whatever its URL ends in."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_text(LOCKS[name])
    harm = _refused_or_harmless(path, tmp_path / "incoming")
    tally.note("locks", name, harm or (tmp_path / CANARY).exists())


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "link to itself", "large", "latin"])
def test_what_is_no_text_file_is_not_waited_for(tmp_path, tally, kind):
    """A pipe, a device, a folder, a link to itself, a huge file or one of another encoding in the
    place of a spec is an error at once."""
    path = tmp_path / "environment.yml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(10**10)
    else:
        path.write_bytes(b"dependencies: [\xe9]\n")
    with pytest.raises(BurstError):
        read_spec(path)
    tally.note("specs", kind, brought=False)


SITES: dict[str, dict[str, object]] = {
    "unknown key": {"hooks": "id"},
    "a command as a host": {"host": {"$(id)": 1}},
    "a huge number": {"max-jobs": 10**400},
    "a huge text": {"max-jobs": "9" * 100_000},
    "no number": {"max-jobs": "nan"},
    "endless": {"budget": "inf"},
    "less than nothing": {"max-pending": -1},
    "queues that are none": {"queues": [1]},
    "a queue that is none": {"queues": {"a": "b"}},
    "a huge queue": {"scheduler": "local", "queues": {"a": {"cores": "9" * 100}}},
    "a scheduler that is none": {"scheduler": "; id"},
    "a folder of nobody's": {"shared-root": "~nobody-of-that-name/x"},
    "a time that is none": {"idle-timeout": "1" * 10_000},
    "a pilot that is none": {"pilot": {"cores": [1]}},
    "channels that are none": {"envs": {"channels": "x"}},
    "a builder that is none": {"envs": {"builder": "sh"}},
    "words of a batch system": {"scheduler": "local", "dialect": {"disk": "$(id)"}},
}


@pytest.mark.parametrize("kind", SITES)
def test_a_site_that_cannot_be_meant_is_refused(tally, kind):
    """A site file's keys and values are checked; the error says which one and what it may be."""
    with pytest.raises(BurstError) as refused:
        load_site(SITES[kind])
    assert len(str(refused.value)) < 200_000
    tally.note("site files", kind, brought=False)
