"""Envs that many want at once, on unkind file systems: one env, no damage, little disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hpcburst.envs.store import EnvStore
from hpcburst.policy.model import EnvSettings
from support.noflock import compiler, without_flock

pytestmark = pytest.mark.channel

DEADLINE_S = 120
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"

BUILDER = """
import sys, time
from hpcburst.envs.store import EnvStore
from hpcburst.policy.model import EnvSettings

def progress(what, done, total):
    if sys.argv[4:] == ["halt"] and what == "linking packages":
        print("halted", flush=True)
        time.sleep(600)

store = EnvStore(sys.argv[1], EnvSettings(mirror={"conda-forge": sys.argv[2]}), progress=progress)
print(store.ensure(sys.argv[3]).prefix, flush=True)
"""


@pytest.fixture
def root(tmp_path):
    """An empty root, its owner's alone."""
    folder = tmp_path / "root"
    folder.mkdir(mode=0o700)
    return folder


def environment_file(folder: Path, name: str, *dependencies: str, **variables: str) -> Path:
    path = folder / f"{name}.yml"
    document = {"channels": ["conda-forge"], "dependencies": list(dependencies)}
    path.write_text(json.dumps({**document, "variables": variables}))
    return path


def start_builder(root: Path, channel: str, path: Path, *flags: str, environ=None):
    argv = [sys.executable, "-c", BUILDER, str(root), channel, str(path), *flags]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ)


def outputs(builders) -> set[str]:
    """The prefixes that builders print; all of them must end well."""
    prefixes = {builder.communicate(timeout=DEADLINE_S)[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0] * len(builders)
    return prefixes


def unfinished(root: Path) -> list[str]:
    """Stages, claims and half-written files under a root."""
    hidden = [path.name for name in ("envs", "locks") for path in (root / name).glob(".*")]
    return hidden + [path.name for path in (root / "locks").glob("*.claim")]


def files_of(folder: Path) -> dict[tuple[int, int], int]:
    """The inodes below a folder and the bytes each takes on disk."""
    found = {}
    for base, _folders, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(base, name))  # noqa: PTH118 - quick
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found


def test_eight_builders_of_which_one_is_killed_make_one_good_env(root, tmp_path, channel_url):
    """The one that builds is killed: the seven that wait make one good env, and tidy up."""
    path = environment_file(tmp_path, "e", f"python {RUNNING}.*", "numpy", "app2")
    first = start_builder(root, channel_url, path, "halt")
    with first:
        assert first.stdout.readline() == "halted\n"
        others = [start_builder(root, channel_url, path) for _ in range(7)]
        children = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        first.wait(DEADLINE_S)
    prefixes = outputs(others)

    (record,) = EnvStore(root).list()
    assert prefixes == {record.prefix}
    program = "import app2, numpy; print(numpy.zeros(3).sum())"
    python = f"{record.prefix}/bin/python"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0.0\n"
    assert unfinished(root) == []
    _gone, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert not alive


@pytest.mark.skipif(compiler() is None, reason="a C compiler makes the library that hides flock")
def test_builders_need_no_flock(root, tmp_path, channel_url):
    """On a shared file system without flock, several builders at once make one good env."""
    environ = without_flock(root, tmp_path) | {"TMPDIR": str(tmp_path)}
    look = f"import fcntl; fcntl.flock(open({str(root / 'look')!r}, 'w'), fcntl.LOCK_EX)"
    seen = subprocess.run(
        [sys.executable, "-c", look], env=environ, capture_output=True, text=True, check=False
    )
    assert "Function not implemented" in seen.stderr, "flock was not hidden"

    path = environment_file(tmp_path, "e", f"python {RUNNING}.*", "app1", "hpctool")
    builders = [start_builder(root, channel_url, path, environ=environ) for _ in range(3)]
    (prefix,) = outputs(builders)
    subprocess.run([f"{prefix}/bin/python", "-c", "import app1"], check=True)
    assert unfinished(root) == []


def test_ten_envs_cost_little_more_than_one_cache(root, tmp_path, channel_url):
    """Ten envs that share packages take less than 1.3 times the disk of the package cache."""
    store = EnvStore(root, EnvSettings(mirror={"conda-forge": channel_url}))
    for number in range(10):
        extra = ["toylib 1.*", "toylib 2.*", "app1", "app2", "hpctool"][number % 5]
        packages = (f"python {RUNNING}.*", "numpy", extra)
        store.ensure(environment_file(tmp_path, "e", *packages, NUMBER=str(number)))
    assert len(store.list()) == 10

    cache = files_of(root / "pkgs")
    everything = cache | files_of(root / "envs")
    assert sum(everything.values()) < 1.3 * sum(cache.values())
