"""A channel made from this machine's Python installs with rattler, runs, and is made only once."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcburst.envs.building.channels import channel_answers
from hpcburst.errors import EnvError
from hpcburst_recipes.channel import (
    build_channel,
    find_pythons,
    interpreters,
)
from support.testchannel import add_tiny_packages

pytestmark = pytest.mark.channel

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def running_python():
    return next(python for python in find_pythons() if python.minor == MINOR)


@pytest.fixture(scope="module")
def built(tmp_path_factory, running_python):
    """The channel, its folder, and what it was asked for with."""
    folder = tmp_path_factory.mktemp("local") / "channel"
    steps = []
    request = {
        "pythons": [running_python],
        "requirements": {MINOR: ["iniconfig"]},
        "also": ("tiny", add_tiny_packages),
    }
    channel = build_channel(folder, **request, progress=lambda *step: steps.append(step))
    return channel, folder, request, steps


def install(channel, specs, prefix):
    from rattler import Gateway, VirtualPackage, install, solve

    async def both():
        records = await solve(
            [channel.url],
            specs,
            gateway=Gateway(cache_dir=prefix.parent / "repodata"),
            virtual_packages=VirtualPackage.detect(),
        )
        cache = prefix.parent / "packages"
        await install(records, prefix, cache_dir=cache, show_progress=False)

    asyncio.run(both())


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def prefix(built, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("env") / "prefix"
    install(built[0], [f"python {MINOR}.*", "iniconfig", "app1", "hpctool"], prefix)
    return prefix


def test_the_python_of_an_env_is_at_home_there(prefix, running_python):
    """Nothing it loads comes from the interpreter it was made from, nor from a build folder."""
    program = (
        "import json, sys, sysconfig, %s\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(json.dumps([sys.prefix, sysconfig.get_path('stdlib'), sys.path, maps]))"
    )
    modules = ", ".join(running_python.modules)
    facts = json.loads(run(prefix / "bin/python", "-I", "-c", program % modules))
    home, stdlib, path, maps = facts
    assert home == str(prefix)
    assert stdlib.startswith(str(prefix))
    assert all(folder.startswith(str(prefix)) for folder in path)
    if running_python.base_prefix != "/usr":
        assert running_python.base_prefix not in maps


def test_wheels_and_tiny_packages_are_importable(prefix):
    """What was asked for is there, in the version that fits together."""
    program = "import iniconfig, app1, toylib; print(toylib.who())"
    assert run(prefix / "bin/python", "-I", "-c", program) == "toylib 1.0"
    assert run(prefix / "bin/hpctool") == f"prefix is {prefix}"


def test_an_env_compiles_nothing_at_its_first_import(prefix):
    """The bytecode that comes along is used, whatever became of the file times."""
    site = prefix / f"lib/python{MINOR}/site-packages/iniconfig"
    program = "import iniconfig, argparse; print(iniconfig.__cached__, argparse.__cached__)"
    before = {path: path.stat().st_mtime_ns for path in prefix.rglob("*.pyc")}
    (site / "__init__.py").touch()
    run(prefix / "bin/python", "-I", "-c", program)
    fresh = {path: path.stat().st_mtime_ns for path in site.rglob("*.pyc")}
    assert fresh
    assert fresh.items() <= before.items()


def test_a_second_call_is_instant(built):
    """The same request returns the same channel in under 50 ms, and says nothing was done."""
    channel, folder, request, _ = built
    steps = []
    start = time.perf_counter()
    again = build_channel(folder, **request, progress=lambda *step: steps.append(step))
    assert time.perf_counter() - start < 0.05
    assert again == channel
    assert not steps


def test_a_channel_that_lost_an_archive_is_not_taken_for_whole(built, tmp_path):
    """A channel that somebody cleaned up in is built again."""
    from hpcburst_recipes.channel.publish import read_stamp

    channel, folder, _, _ = built
    digest = json.loads((folder / "channel.json").read_text())["digest"]
    assert read_stamp(folder, digest) == channel
    archive = next(folder.glob("*/iniconfig-*.conda"))
    hidden = archive.rename(tmp_path / archive.name)
    try:
        assert read_stamp(folder, digest) is None
    finally:
        hidden.rename(archive)


def test_progress_counts_up_to_all_steps(built):
    """The caller can show a bar: every step is told once, the last one completes the count."""
    steps = built[3]
    assert [done for _, done, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][1] == steps[-1][2]


def test_nothing_is_left_beside_the_channel(built):
    """Building leaves the channel, private to its owner, and no scratch folder."""
    _, folder, _, _ = built
    assert [path.name for path in folder.parent.iterdir()] == ["channel"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert channel_answers(built[0].url)


def test_an_unreachable_index_is_an_answer(tmp_path, running_python, monkeypatch):
    """Without PyPI the error carries pip's last words and names the setting for a mirror."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(EnvError, match="PIP_INDEX_URL") as caught:
        build_channel(
            tmp_path / "channel",
            pythons=[running_python],
            requirements={MINOR: ["no-such-project-iniconfig"]},
        )
    assert caught.value.tail
    assert list(tmp_path.iterdir()) == []


def test_packages_that_do_not_fit_are_refused_in_one_env(built, tmp_path):
    """app1 and app2 need different toylibs; the conflict is named."""
    with pytest.raises(Exception, match="toylib"):
        install(built[0], ["app1", "app2"], tmp_path / "prefix")


SYSTEM = Path("/usr/bin/python3").resolve()


@pytest.mark.skipif(not SYSTEM.exists(), reason="this system has no Python of its own")
def test_the_systems_own_python_is_movable_too(tmp_path):
    """Distributions lay Python out in their own ways; a copy finds its packages all the same."""
    python = interpreters._introduce(SYSTEM)
    assert python is not None
    requirements = {python.minor: ["iniconfig"]}
    channel = build_channel(tmp_path / "channel", pythons=[python], requirements=requirements)
    install(channel, [f"python {python.minor}.*", "iniconfig"], tmp_path / "prefix")
    program = "import iniconfig; print(iniconfig.__file__)"
    place = run(tmp_path / "prefix/bin/python", "-I", "-c", program)
    assert place.startswith(str(tmp_path / "prefix"))
