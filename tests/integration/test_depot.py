"""Envs linked by nodes on their own disks, from packs on the shared file system."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hpcburst.envs.building.build import RECORD, read_record
from hpcburst.envs.building.solve import Package
from hpcburst.envs.child.process import RattlerProcess
from hpcburst.envs.depot import node_disk
from hpcburst.envs.depot.depot import MAX_BUNDLES, Depot
from hpcburst.envs.depot.extras import CannotMove
from hpcburst.envs.depot.localise import localise
from hpcburst.envs.depot.packs import bundle_of, read_pack
from hpcburst.envs.store import EnvStore
from hpcburst.errors import EnvError
from hpcburst.policy.model import EnvSettings
from hpcburst.results import Fault
from hpcburst.tasks import Burst, Command, Env
from hpcburst.workers.activation import replay
from hpcburst.workers.local_envs import LocalEnvs
from hpcburst.workers.work import Workplace

pytestmark = pytest.mark.channel

DEADLINE_S = 60
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
MOST_CALLS = 20
VARIABLES = {"GREETING": "hello $USER", "BOTH": "a&b"}


@pytest.fixture(scope="module")
def store(tmp_path_factory, channel_url):
    """A store whose envs lie under its root."""
    root = tmp_path_factory.mktemp("root")
    root.chmod(0o700)
    settings = EnvSettings(mirror={"conda-forge": channel_url}, place="shared")
    return EnvStore(root, settings)


@pytest.fixture(scope="module")
def built(store, tmp_path_factory):
    """An env with two conda packages that need Python, a tool, a pip package and variables."""
    folder = tmp_path_factory.mktemp("spec")
    make_wheel(folder)
    pip = ["--no-index", f"--find-links {folder}", "pipped ==1.0"]
    needs = [f"python {RUNNING}.*", "numpy", "app1", "hpctool", {"pip": pip}]
    return store.ensure(environment_file(folder, *needs, variables=VARIABLES))


@pytest.fixture(scope="module")
def packed(store, built):
    """The file of that env's pack."""
    return publish(Depot(store.root / "depot"), store, built)


@pytest.fixture
def depot(tmp_path):
    """A depot in which nothing is published."""
    (tmp_path / "shared").mkdir()
    return Depot(tmp_path / "shared/depot")


@pytest.fixture
def node(monkeypatch):
    """The only disk of a node; its path is short, or scripts begin in another way than built."""
    monkeypatch.setattr(node_disk, "FALLBACKS", ())
    with tempfile.TemporaryDirectory(prefix="node-") as folder:
        yield Path(folder)


def environment_file(folder: Path, *dependencies: object, **more: object) -> Path:
    """An environment file with these dependencies."""
    path = folder / "environment.yml"
    document = {"channels": ["conda-forge"], "dependencies": list(dependencies), **more}
    path.write_text(json.dumps(document))
    return path


def make_wheel(folder: Path) -> None:
    """A wheel `pipped` with a console script, in a folder to find links in."""
    info = "pipped-1.0.dist-info"
    wheel_text = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {
        "pipped.py": "import sys\ndef main():\n    print('pipped in', sys.prefix)\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: pipped\nVersion: 1.0\n",
        f"{info}/WHEEL": wheel_text,
        f"{info}/entry_points.txt": "[console_scripts]\npipped = pipped:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / "pipped-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


def archives(store, key: str) -> tuple[Path, dict[str, str], list[Package]]:
    """A lock, its archives and its packages."""
    lock = store.root / "locks" / f"{key}.lock.yml"
    with RattlerProcess() as rattler:
        rows = rattler.call("packages", lock=str(lock))["packages"]
        incoming = str(store.root / "incoming")
        files = rattler.call("fetch", lock=str(lock), folder=incoming, cache=[])["files"]
    return lock, files, [Package.from_row(row) for row in rows]


def publish(depot: Depot, store, env, *, prefix: Path | None = None, **more: object) -> Path:
    """Publish a built env; returns the file of its pack."""
    lock, files, packages = archives(store, env.key)
    record = replace(read_record(Path(env.prefix)), activation=env.activation)
    known = {"lock": lock, "files": files, "packages": packages, "record": record, **more}
    return depot.publish(env.key, prefix=prefix or Path(env.prefix), **known)


def run_in(env, *argv: str) -> str:
    """The output of a program of an env, run with a plain environment."""
    environ = replay(env.activation, {"PATH": "/usr/bin:/bin"})
    program = shutil.which(argv[0], path=environ["PATH"])
    assert program, f"{argv[0]} is not in the env"
    done = subprocess.run(
        [program, *argv[1:]], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def half_made(node: Path) -> list[str]:
    """Names of everything unfinished on a node."""
    found = node.glob("hpcburst-*/envs/.*"), node.glob("hpcburst-*/claims/*")
    return [path.name for paths in found for path in paths]


def linked_envs(node: Path) -> list[Path]:
    """The envs on a node."""
    return list(node.glob("hpcburst-*/envs/[!.]*"))


def contents(prefix: Path) -> dict[str, bytes]:
    """All files of a prefix, with its own path, and what paths are padded with, taken out.

    Records of the packages differ by when and from where they were linked; byte code names the
    place it was compiled at, which Python corrects, and when its source was written.
    """
    found = {}
    for base, folders, files in os.walk(prefix):
        for name in files + folders:
            path = Path(base, name)
            relative = str(path.relative_to(prefix))
            if path.is_symlink():
                found[relative] = os.fsencode(path.readlink())
            elif path.is_file():
                data = path.read_bytes()
                data = data[16:] if relative.endswith(".pyc") else data
                found[relative] = data.replace(b"\0", b"")
            else:
                found[relative] = b"a folder"
    for relative in [name for name in found if re.fullmatch(r"conda-meta/.*\.json", name)]:
        found[relative] = b"a record"
    return found


def test_an_env_works_on_a_nodes_own_disk(packed, built, node):
    """Python, numpy, tools, pip's scripts and the activation are those of the node's own copy."""
    env = localise(packed, node)
    assert env.key == built.key
    assert env.prefix.startswith(f"{node}/hpcburst-{os.getuid()}/envs/{built.key}")
    code = "import sys, numpy, app1, toylib; print(sys.prefix, numpy.ones(3).sum())"
    assert run_in(env, "python", "-c", code) == f"{env.prefix} 3.0"
    assert run_in(env, "hpctool") == f"prefix is {env.prefix}"
    assert run_in(env, "pipped") == f"pipped in {env.prefix}"
    assert env.activation["HPCTOOL_HOME"] == f"{env.prefix}/share/hpctool"
    assert {name: env.activation[name] for name in VARIABLES} == VARIABLES
    assert built.prefix not in json.dumps(dict(env.activation))
    assert env.pack == ""
    assert half_made(node) == []


def test_a_linked_env_equals_the_built_one(packed, built, node):
    """File for file, but for the prefix in them, a node has what the builder made."""
    env = localise(packed, node)
    ours, theirs = contents(Path(env.prefix)), contents(Path(built.prefix))
    assert sorted(ours) == sorted(theirs)
    old, new = built.prefix.encode(), env.prefix.encode()
    code = [name for name in ours if name.endswith(".pyc")]
    for name in set(ours) - set(code):
        assert ours[name].replace(new, old) == theirs[name], name
    assert any("toylib" in name for name in code)
    assert [name for name in code if ours[name] != theirs[name]] == []


def test_byte_code_is_used_as_it_came(packed, node):
    """Python on the node loads the byte code that came along and compiles nothing again."""
    env = localise(packed, node)
    code = "import pipped, toylib; print(pipped.main.__code__.co_filename)"
    found = run_in(env, "python", "-v", "-c", code + "; import sys; sys.stdout.flush()")
    assert found == f"{env.prefix}/lib/python{RUNNING}/site-packages/pipped.py"
    done = subprocess.run(
        [f"{env.prefix}/bin/python", "-v", "-c", code], capture_output=True, text=True, check=True
    )
    assert len(re.findall(r"# \S+/__pycache__/(?:pipped|toylib\S*)\S* matches", done.stderr)) >= 1
    assert not re.search(r"# wrote .*(?:pipped|toylib)", done.stderr)


def test_a_prefix_in_source_code_reaches_no_byte_code(store, built, depot, node):
    """A module that spells the prefix out tells the node's prefix, not the builder's."""
    module = Path(built.prefix, f"lib/python{RUNNING}/site-packages/where.py")
    module.write_text(f"here = {built.prefix!r}\n")
    argv = [f"{built.prefix}/bin/python", "-c", "import where"]
    try:
        subprocess.run(argv, check=True)
        env = localise(publish(depot, store, built), node)
    finally:
        module.unlink()
        shutil.rmtree(module.parent / "__pycache__")
    assert run_in(env, "python", "-c", "import where; print(where.here)") == env.prefix


LOCALISE = """
import sys
from pathlib import Path
from hpcburst.envs.depot.localise import localise

def progress(what, done, total):
    if sys.argv[3:] == [what]:
        print("halted", flush=True)
        sys.stdin.read()

print(localise(Path(sys.argv[1]), Path(sys.argv[2]), progress=progress).prefix, flush=True)
"""


def pilot(packed: Path, node: Path, *halt: str, under: tuple[str, ...] = ()) -> subprocess.Popen:
    """Another process on the node that needs the env."""
    argv = [*under, sys.executable, "-c", LOCALISE, str(packed), str(node), *halt]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


METADATA = "trace=%file,%desc"
DATA = {"read", "pread64", "readv", "lseek", "write", "mmap", "poll", "epoll_wait", "select"}


def shared_calls(packed: Path, node: Path, trace: Path, shared: Path) -> list[str]:
    """All system calls that ask the shared file system about a name or a file, in one `localise`.

    `-y` shows the path of each descriptor, so calls on open files count as those on names do;
    reading their contents does not.
    """
    under = ("strace", "-f", "-y", "-qq", "-e", METADATA, "-o", str(trace))
    with pilot(packed, node, under=under) as process:
        assert process.communicate(timeout=DEADLINE_S)[0].startswith(str(node))
    lines = trace.read_text(errors="replace").splitlines()[1:]  # the start itself names the pack
    calls = [line.split(maxsplit=1)[1] for line in lines if str(shared) in line]
    return [call for call in calls if call.partition("(")[0] not in DATA]


def test_a_node_asks_the_shared_file_system_seldom(store, built, depot, node, tmp_path):
    """First use of an env costs at most 20 calls on the shared file system, later use none."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed; it counts the calls")
    for part in ("hpctool", "toylib 1.*", f"numpy,python {RUNNING}.*"):
        publish(depot, store, store.ensure(environment_file(tmp_path, *part.split(","))))
    packed = publish(depot, store, built)
    assert len(read_pack(packed).bundles) >= 3, "archives are where other envs put them"
    first = shared_calls(packed, node, tmp_path / "first", depot.folder)
    assert 0 < len(first) <= MOST_CALLS, "\n".join(first)
    assert 2 * (MAX_BUNDLES + len(["the pack", "its extras"])) <= MOST_CALLS
    assert shared_calls(packed, node, tmp_path / "again", depot.folder) == []


def test_pilots_of_one_node_link_an_env_once(packed, store, node, tmp_path):
    """Four pilots that need an env at the same time share one, and one of them links it."""
    pilots = [pilot(packed, node) for _ in range(4)]
    prefixes = {each.communicate(timeout=DEADLINE_S)[0].strip() for each in pilots}
    assert [each.returncode for each in pilots] == [0] * 4
    assert prefixes == {str(path) for path in linked_envs(node)}
    assert len(prefixes) == 1
    assert half_made(node) == []


@pytest.mark.parametrize("step", ["copying packages to this node", "linking packages"])
def test_a_pilot_killed_in_the_middle_does_no_harm(packed, node, step):
    """After SIGKILL in the middle of linking, the next pilot links the env, at once, and tidies."""
    with pilot(packed, node, step) as killed:
        assert killed.stdout.readline() == "halted\n"
        children = psutil.Process(killed.pid).children()
        killed.kill()
        killed.wait(DEADLINE_S)
    assert linked_envs(node) == []
    assert half_made(node)
    _gone, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert not alive
    began = time.monotonic()
    env = localise(packed, node)
    assert time.monotonic() - began < DEADLINE_S / 2
    assert run_in(env, "hpctool")
    assert half_made(node) == []


def test_a_damaged_archive_is_named(store, built, depot, node):
    """One changed byte in the depot is found by the node, and the file named."""
    packed = publish(depot, store, built)
    bundle = bundle_of(packed, read_pack(packed).bundles[0])
    with bundle.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(EnvError, match="is damaged") as caught:
        localise(packed, node)
    assert str(bundle) in str(caught.value)
    assert linked_envs(node) == []
    assert half_made(node) == []


def test_a_damaged_archive_is_not_published(store, built, depot, tmp_path):
    """An archive that is not what the lock says never reaches the depot."""
    lock, files, packages = archives(store, built.key)
    url, path = next(iter(files.items()))
    copy = tmp_path / Path(path).name
    copy.write_bytes(Path(path).read_bytes()[:-1])
    more = {"lock": lock, "packages": packages, "record": read_record(Path(built.prefix))}
    with pytest.raises(EnvError, match="is damaged"):
        depot.publish(built.key, prefix=Path(built.prefix), files={**files, url: str(copy)}, **more)
    assert depot.read(built.key) is None


def test_a_damaged_cache_of_the_node_is_done_without(packed, built, store, node, depot, tmp_path):
    """Packages that a clean-up service took from the node's cache are taken from the depot anew."""
    localise(packed, node)
    for folder in node.glob("hpcburst-*/pkgs/*/cache/hpctool*"):
        if folder.is_dir():
            shutil.rmtree(folder)
            folder.mkdir()
    other = store.ensure(environment_file(tmp_path, "hpctool"))
    env = localise(publish(depot, store, other), node)
    assert run_in(env, "hpctool") == f"prefix is {env.prefix}"


def test_a_node_without_room_says_where_and_how_much(packed, small_disk, monkeypatch):
    """When no disk has room the answer names each, what is free there and what is needed."""
    monkeypatch.setattr(node_disk, "FALLBACKS", (small_disk / "tmp",))
    with pytest.raises(EnvError) as caught:
        localise(packed, small_disk / "scratch")
    text = str(caught.value)
    for folder in ("scratch", "tmp"):
        assert re.search(rf"{small_disk}/{folder}/\S+: \d+ MB .* are free and \d+ MB", text), text
    assert "hpcburst.node-root" in text
    assert "hpcburst.envs.place: shared" in text
    assert linked_envs(small_disk / "scratch") + linked_envs(small_disk / "tmp") == []


def test_another_disk_is_taken_when_the_first_is_full(packed, small_disk, tmp_path, monkeypatch):
    """A node whose own folder is too small links envs in the next one, and finds them there."""
    monkeypatch.setattr(node_disk, "FALLBACKS", (tmp_path / "larger",))
    env = localise(packed, small_disk)
    assert env.prefix.startswith(str(tmp_path / "larger"))
    assert run_in(env, "hpctool")
    assert localise(packed, small_disk) == env
    assert half_made(small_disk) + half_made(tmp_path / "larger") == []


def test_a_disk_that_fills_up_meanwhile_is_an_answer(packed, small_disk, monkeypatch):
    """Out of space in the middle of linking, nothing half-made remains and the disk is named."""
    monkeypatch.setattr(node_disk, "FALLBACKS", ())
    monkeypatch.setattr(node_disk, "free_room", lambda _folder: node_disk.Room(10**12, 10**12))
    with pytest.raises(
        EnvError, match=r"(?s)disk is full.*are needed.* \d+ MB of \d+ MB"
    ) as caught:
        localise(packed, small_disk)
    assert str(small_disk) in str(caught.value)
    assert linked_envs(small_disk) == []
    assert half_made(small_disk) == []


def test_envs_share_archives(store, built, depot, tmp_path):
    """What two envs have in common is in the depot once."""
    publish(depot, store, built)
    before = {path.name: path.stat().st_size for path in (depot.folder / "bundles").iterdir()}
    other = store.ensure(environment_file(tmp_path, f"python {RUNNING}.*", "numpy", "app2"))
    pack = read_pack(publish(depot, store, other))
    added = [p for p in (depot.folder / "bundles").iterdir() if p.name not in before]
    assert sum(path.stat().st_size for path in added) < 0.02 * sum(before.values())
    names = {piece.file_name for bundle in pack.bundles for piece in bundle.pieces}
    assert {name.partition("-")[0] for name in names} == {"python", "numpy", "app2", "toylib"}
    digests = {piece.sha256 for bundle in pack.bundles for piece in bundle.pieces}
    assert digests == {package.sha256 for package in archives(store, other.key)[2]}


def test_what_is_removed_is_swept_and_what_is_shared_stays(store, built, depot, node, tmp_path):
    """A removed env's archives go with the next sweep; those another env needs stay."""
    other = store.ensure(environment_file(tmp_path, f"python {RUNNING}.*", "numpy", "app2"))
    publish(depot, store, other)
    packed = publish(depot, store, built)
    assert depot.sweep(grace_s=0) == []
    assert depot.remove(other.key)
    assert not depot.remove(other.key)
    assert [pack.key for pack in depot.published()] == [built.key]
    gone = depot.sweep(grace_s=0)
    assert len(gone) == 1, "the extras of the removed env, and nothing else"
    assert run_in(localise(packed, node), "hpctool")
    assert depot.remove(built.key)
    assert depot.sweep() == [], "nothing is swept while somebody may be about to refer to it"
    depot.sweep(grace_s=0)
    left = [path for path in depot.folder.rglob("*") if not path.is_dir()]
    assert left == []


def test_an_env_that_was_removed_is_an_answer(store, built, depot, node):
    """A pilot that was told of a pack which is gone says so."""
    packed = publish(depot, store, built)
    depot.remove(built.key)
    with pytest.raises(EnvError, match="taken away"):
        localise(packed, node)
    assert half_made(node) == []


def test_the_first_publisher_stays(store, built, depot):
    """Publishing an env again changes nothing, and leaves nothing behind."""
    packed = publish(depot, store, built)
    before = sorted(depot.folder.rglob("*"))
    assert publish(depot, store, built) == packed
    assert sorted(depot.folder.rglob("*")) == before
    found = depot.read(built.key)
    assert depot.path(found) == packed
    assert found.prefix == built.prefix


def test_an_env_built_anew_is_not_mistaken_for_the_old_one(store, built, depot, node):
    """After an env was removed and published again with other contents, nodes link it again."""
    old = localise(publish(depot, store, built), node)
    depot.remove(built.key)
    added = Path(built.prefix, "share/added")
    added.write_text("new")
    try:
        new = localise(publish(depot, store, built), node)
    finally:
        added.unlink()
    assert new.key == old.key
    assert Path(new.prefix, "share/added").read_text() == "new"


def test_private_envs_are_their_owners_alone(store, built, depot):
    """An env that may hold secrets is written for its owner only; another one for all to read."""
    secret = publish(depot, store, built, private=True)
    shown = depot.folder / "bundles"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in shown.iterdir()} == {0o600}
    depot.remove(built.key)
    depot.sweep(grace_s=0)
    assert publish(depot, store, built).stat().st_mode & 0o777 == 0o644
    assert {path.stat().st_mode & 0o777 for path in shown.iterdir()} == {0o644}


def test_changes_of_scripts_travel_along(store, tmp_path, depot, node):
    """Files that a script changed, removed, linked or left empty are so on the node too."""
    env = store.place(environment_file(tmp_path, "hpctool"), tmp_path / "changed")
    prefix = Path(env.prefix)
    (prefix / "share/hpctool/data.txt").unlink()
    (prefix / "share/hpctool/lib.sh").write_text(f"# changed in {prefix}\n")
    (prefix / "share/link").symlink_to(prefix / "share/hpctool")
    (prefix / "share/none").mkdir()
    packed = publish(depot, store, env)
    here = Path(localise(packed, node).prefix)
    assert not (here / "share/hpctool/data.txt").exists()
    assert (here / "share/hpctool/lib.sh").read_text() == f"# changed in {here}\n"
    assert (here / "share/link").readlink() == here / "share/hpctool"
    assert (here / "share/none").is_dir()
    (cached,) = node.glob("hpcburst-*/pkgs/*/cache/hpctool*/share/hpctool/lib.sh")
    assert cached.read_text() == "# sourced\n", "the node's cache was written to"


def test_paths_inside_of_binaries_are_refused(store, tmp_path, depot):
    """An env with its prefix in a binary that no archive brought cannot be moved; it is named."""
    env = store.place(environment_file(tmp_path, "hpctool"), tmp_path / "fixed")
    Path(env.prefix, "share/compiled").write_bytes(b"\0" + env.prefix.encode() + b"\0")
    with pytest.raises(CannotMove, match="share/compiled"):
        publish(depot, store, env)
    assert depot.read(env.key) is None


def test_a_folder_of_somebody_else_is_not_used(packed, tmp_path, monkeypatch):
    """An env that others could have put under our name is neither run nor written to."""
    monkeypatch.setattr(node_disk, "FALLBACKS", (tmp_path / "ours",))
    name = f"hpcburst-{os.getuid()}"
    env = localise(packed, tmp_path / "theirs")
    (tmp_path / "theirs" / name).chmod(0o777)
    found = localise(packed, tmp_path / "theirs")
    assert found.prefix.startswith(str(tmp_path / "ours"))
    assert env.prefix != found.prefix


def test_envs_nobody_used_for_a_week_are_swept(packed, store, node, depot, tmp_path):
    """Linking another env takes away those unused for a week, but none that a pilot holds."""
    week = node_disk.WEEK_S + 60
    old, held = localise(packed, node), LocalEnvs(node)
    age(old, week)
    other = store.ensure(environment_file(tmp_path, "hpctool"))
    second = publish(depot, store, other)
    held.here(Env(old.key, "", pack=str(packed)))
    age(old, week)
    localise(second, node)
    assert Path(old.prefix).exists()
    held.close()
    age(old, week)
    third = store.ensure(environment_file(tmp_path, "toylib 2.*"))
    localise(publish(depot, store, third), node)
    assert not Path(old.prefix).exists()
    assert run_in(localise(second, node), "hpctool")


def age(env, seconds: float) -> None:
    """Make an env look as if it was last used so long ago."""
    then = time.time() - seconds
    os.utime(Path(env.prefix, RECORD), (then, then))


def test_a_pilot_runs_commands_in_its_nodes_env(packed, built, tmp_path, node):
    """Commands run in the env's environment, on the node's own copy of it."""
    workplace = Workplace(tmp_path / "pilot", {"PATH": "/usr/bin:/bin"}, node_root=node)
    lines = []
    command = Command(("hpctool",), str(tmp_path), {"PATH": "/usr/bin:/bin"})
    burst = Burst("tool", command, env=Env(built.key, built.prefix, built.activation, str(packed)))
    try:
        outcome = workplace.do(burst, never(), lines.append)
    finally:
        workplace.close()
    assert outcome.ok, outcome.failure
    (prefix,) = linked_envs(node)
    assert [line.text for line in lines] == [f"prefix is {prefix}"]


def test_a_pilot_tells_why_it_has_no_env(tmp_path, node):
    """The user reads the answer itself when a node cannot link an env."""
    workplace = Workplace(tmp_path / "pilot", {"PATH": "/usr/bin:/bin"}, node_root=node)
    command = Command(("hpctool",), str(tmp_path), {})
    burst = Burst("tool", command, env=Env("key", "", {}, str(tmp_path / "depot/packs/key.json")))
    try:
        outcome = workplace.do(burst, never(), lambda _line: None)
    finally:
        workplace.close()
    assert outcome.failure.fault is Fault.ENV
    assert "was taken away" in outcome.failure.message
    assert "The pilot failed" not in outcome.failure.message


def never():
    """An event that is not set."""
    import threading

    return threading.Event()
