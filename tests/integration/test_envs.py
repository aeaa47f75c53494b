"""Envs built for real, from a local channel: once, whole, by whoever comes first."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from hpcburst.envs.building.builders import Workshop, builder_for
from hpcburst.envs.building.solve import write_lock
from hpcburst.envs.child.process import RattlerProcess
from hpcburst.envs.conda_standin import install_standin, with_conda_on_path
from hpcburst.envs.specs.places import resolve_env
from hpcburst.envs.specs.spec import EnvSpec
from hpcburst.envs.store import EnvStore
from hpcburst.errors import EnvError
from hpcburst.policy.model import EnvSettings
from hpcburst.workers.activation import replay

pytestmark = pytest.mark.channel

DEADLINE_S = 60
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A root whose package cache stays warm over the tests of this file."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def store(tmp_path, packages, channel_url):
    """A store of its own, in which no env is built yet."""
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    (root / "pkgs").symlink_to(packages)
    return EnvStore(root, EnvSettings(mirror={"conda-forge": channel_url}))


def environment_file(folder: Path, *dependencies: str, **more: object) -> Path:
    """An environment file with these dependencies."""
    path = folder / "environment.yml"
    document = {"channels": ["conda-forge"], "dependencies": list(dependencies), **more}
    path.write_text(json.dumps(document))
    return path


def run_in(env, *argv: str) -> str:
    """The output of a program of an env, run on a node with a plain environment."""
    environ = replay(env.activation, {"PATH": "/usr/bin:/bin"})
    program = shutil.which(argv[0], path=environ["PATH"])
    assert program, f"{argv[0]} is not in the env"
    done = subprocess.run(
        [program, *argv[1:]], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def left_over(root: Path) -> list[str]:
    """Names of everything unfinished under a root."""
    hidden = [path.name for path in (root / "envs").glob(".*")]
    return hidden + [path.name for path in (root / "locks").glob("*.claim")]


def minors(channel_url: str) -> list[str]:
    """The Python minors a channel has, oldest first."""
    listed = Path(channel_url.removeprefix("file://")).glob("*/python-3.*.conda")
    found = {re.match(r"python-(3\.\d+)", path.name)[1] for path in listed}
    return sorted(found, key=lambda minor: int(minor.partition(".")[2]))


def test_an_env_file_becomes_an_env(store, tmp_path):
    """The Python of the env runs, and imports what the file asked for."""
    env = store.ensure(environment_file(tmp_path, f"python {RUNNING}.*", "numpy", "app1"))
    code = "import sys, numpy, toylib; print(sys.prefix, toylib.__version__)"
    assert run_in(env, "python", "-c", code) == f"{env.prefix} 1.0"
    assert left_over(store.root) == []


def test_asking_again_is_free(store, tmp_path):
    """The second request is answered from memory; another process finds the env as it is."""
    path = environment_file(tmp_path, "toylib 2.*")
    env = store.ensure(path)
    began = time.perf_counter()
    assert store.ensure(path) is env
    assert time.perf_counter() - began < 0.05
    (record,) = store.list()
    other = EnvStore(store.root, store.settings)
    assert other.ensure(path) == env
    assert other.list() == (record,)


def test_an_env_that_somebody_else_removed_is_built_again(store, tmp_path):
    """A flow that runs for days does not hand out an env that was taken away meanwhile."""
    path = environment_file(tmp_path, "hpctool")
    first = store.ensure(path)
    EnvStore(store.root, store.settings).remove(first.key)
    again = store.ensure(path)
    assert again == first
    assert Path(again.prefix, "bin/hpctool").exists()


def test_a_changed_file_is_another_env(store, tmp_path):
    """An edited file is read anew: the old env stays, the new one is built beside it."""
    one = store.ensure(environment_file(tmp_path, "toylib 1.*"))
    two = store.ensure(environment_file(tmp_path, "toylib 2.*", "app2"))
    assert one.key != two.key
    assert {record.key for record in store.list()} == {one.key, two.key}


def test_the_first_lock_wins(store, tmp_path):
    """Once a solution is written everybody builds that one, whatever a solver would say today."""
    path = environment_file(tmp_path, "toylib", f"python {RUNNING}.*")
    key = store.preview(path).key
    first = EnvSpec(store.read(path).channels, ("toylib 1.*", f"python {RUNNING}.*"))
    lock = store.root / "locks" / f"{key}.lock.yml"
    lock.parent.mkdir()
    with RattlerProcess() as rattler:
        shop = Workshop(rattler, tmp_path / "repodata", tmp_path / "incoming")
        where = {"builder": builder_for("rattler", shop), "source": "first"}
        assert write_lock(first, lock, **where)
        kept = lock.read_bytes()
        assert write_lock(store.read(path), lock, **where) == ()
    assert lock.read_bytes() == kept
    env = store.ensure(path)
    assert run_in(env, "python", "-c", "import toylib; print(toylib.__version__)") == "1.0"


def test_locks_hold_exact_archives(store, tmp_path):
    """A lock is in rattler's format and names archives with their digests."""
    env = store.ensure(environment_file(tmp_path, "toylib 2.*"))
    text = (store.root / "locks" / f"{env.key}.lock.yml").read_text()
    assert text.startswith("version: ")
    assert re.search(r"toylib-2\.0-\S+\.conda", text)
    assert re.search(r"sha256: [0-9a-f]{64}", text)


BUILDER = """
import os, sys, time
from hpcburst.envs.store import EnvStore
from hpcburst.policy.model import EnvSettings

def progress(what, done, total):
    if sys.argv[4:] == ["halt"] and what == "linking packages":
        print("halted", flush=True)
        time.sleep(600)

store = EnvStore(sys.argv[1], EnvSettings(mirror={"conda-forge": sys.argv[2]}), progress=progress)
print(store.ensure(sys.argv[3]).prefix, flush=True)
"""


def start_builder(store, path: Path, *flags: str) -> subprocess.Popen:
    """Another process that builds the same env."""
    channel = store.settings.mirror["conda-forge"]
    argv = [sys.executable, "-c", BUILDER, str(store.root), channel, str(path), *flags]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_eight_builders_at_once_make_one_env(store, tmp_path):
    """Eight processes that need the same env at the same time all get the same good one."""
    path = environment_file(tmp_path, f"python {RUNNING}.*", "app2")
    builders = [start_builder(store, path) for _ in range(8)]
    prefixes = {builder.communicate(timeout=DEADLINE_S)[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0] * 8
    (record,) = store.list()
    assert prefixes == {record.prefix}
    assert run_in(store.ensure(path), "python", "-c", "import app2; print('good')") == "good"
    assert left_over(store.root) == []


def test_a_builder_killed_in_the_middle_leaves_no_harm(store, tmp_path):
    """After SIGKILL in the middle of a build the next one succeeds, at once, and tidies up."""
    path = environment_file(tmp_path, f"python {RUNNING}.*", "toylib 2.*")
    with start_builder(store, path, "halt") as builder:
        assert builder.stdout.readline() == "halted\n"
        children = psutil.Process(builder.pid).children()
        assert children
        builder.kill()
        builder.wait(DEADLINE_S)
    assert store.list() == ()
    assert len(left_over(store.root)) == 2, "a stage and a claim are what a killed builder leaves"
    _gone, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert not alive, "the child of a killed builder lives on"
    began = time.monotonic()
    env = store.ensure(path)
    assert time.monotonic() - began < DEADLINE_S / 2
    assert run_in(env, "python", "-c", "import toylib; print('good')") == "good"
    assert left_over(store.root) == []


def test_an_interrupted_build_leaves_nothing(store, tmp_path):
    """Ctrl-C in the middle of a build takes stage, claim and child process away."""
    path = environment_file(tmp_path, f"python {RUNNING}.*", "toylib 2.*")
    children = []

    def interrupt(what: str, done: int, total: int | None) -> None:
        if what == "linking packages":
            children.extend(psutil.Process().children())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EnvStore(store.root, store.settings, progress=interrupt).ensure(path)
    assert left_over(store.root) == []
    _gone, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert not alive
    assert store.ensure(path)


def test_an_override_makes_another_env(store, tmp_path, monkeypatch):
    """CONDA_OVERRIDE_CUDA on a login node solves for the nodes' driver, and that is another env."""
    path = environment_file(tmp_path, "hpctool")
    here = store.preview(path).key
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.4")
    assert store.preview(path).key != here
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "1..2")
    with pytest.raises(EnvError, match="CONDA_OVERRIDE"):
        store.preview(path)


def test_threads_share_one_build(store, tmp_path):
    """Threads that ask for the same env get the same object; it is built once."""
    path = environment_file(tmp_path, "toylib 2.*", "hpctool")
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.ensure(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(found) == 4
    assert all(env is found[0] for env in found)


def test_packages_that_cannot_be_together_are_named(store, tmp_path):
    """The answer to an unsatisfiable file names the file and the packages in each other's way."""
    path = environment_file(tmp_path, "app1", "app2")
    with pytest.raises(EnvError) as caught:
        store.ensure(path)
    text = str(caught.value)
    assert all(word in text for word in (str(path), "app1", "app2", "toylib", "two envs"))
    assert store.list() == ()
    assert left_over(store.root) == []


def test_a_package_nobody_has_is_named(store, tmp_path):
    """The answer to a misspelt package names it."""
    with pytest.raises(EnvError, match="heck the name and versions of nosuchthing"):
        store.ensure(environment_file(tmp_path, "nosuchthing"))


def test_a_version_only_rattler_can_judge_is_an_answer(store, tmp_path):
    """What looks like a version and is none is refused with the entry."""
    with pytest.raises(EnvError, match=r"'toylib 1\.\.2'"):
        store.ensure(environment_file(tmp_path, "toylib 1..2"))


@pytest.mark.parametrize("channel", ["file:///no/such/channel", "http://127.0.0.1:9/channel"])
def test_a_channel_that_does_not_answer_is_named(store, tmp_path, channel):
    """An unreachable channel is named; the password in its URL is not."""
    url = channel.replace("http://", "http://me:s3cret@")
    path = environment_file(tmp_path, "toylib", channels=[url])
    with pytest.raises(EnvError, match="does not answer") as caught:
        store.ensure(path)
    assert channel.partition("://")[2] in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_unknown_file_is_answered_with_the_places_tried(store, tmp_path, monkeypatch):
    """A file that is nowhere is answered with every place that was looked at."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvError) as caught:
        resolve_env("envs/none.yml", [tmp_path / "flows"])
    assert str(tmp_path / "flows/envs/none.yml") in str(caught.value)
    assert str(tmp_path / "envs/none.yml") in str(caught.value)
    with pytest.raises(EnvError, match="no such file"):
        store.ensure("none.yml")


def test_variables_and_scripts_of_the_env_are_seen(store, tmp_path):
    """Packages' variables and scripts, and the file's own variables, reach the task unchanged."""
    value = "it costs $5 & `more`"
    path = environment_file(tmp_path, "hpctool", variables={"HPCTOOL_THREADS": "8", "PRICE": value})
    env = store.ensure(path)
    assert env.activation["HPCTOOL_HOME"] == f"{env.prefix}/share/hpctool"
    assert env.activation["HPCTOOL_THREADS"] == "8"
    assert env.activation["PRICE"] == value
    assert env.prefix in run_in(env, "hpctool")


def test_an_env_that_is_there_already_is_taken_as_it_is(store, tmp_path):
    """A prefix made by somebody else is used where it is, and not written to."""
    made = store.place(environment_file(tmp_path, f"python {RUNNING}.*"), tmp_path / "theirs")
    (Path(made.prefix) / "conda-meta/hpcburst.json").unlink()
    before = sorted(Path(made.prefix).rglob("*"))
    env = store.ensure(made.prefix)
    assert env.prefix == made.prefix
    assert env.key != made.key
    assert run_in(env, "python", "-c", "import sys; print(sys.prefix)") == made.prefix
    assert sorted(Path(made.prefix).rglob("*")) == before
    with pytest.raises(EnvError, match="neither packages"):
        store.ensure(tmp_path)


def test_an_env_can_be_placed_where_the_caller_wants_it(store, tmp_path):
    """The same spec at another prefix has the same key, and never overwrites what is there."""
    path = environment_file(tmp_path, "hpctool")
    env = store.ensure(path)
    placed = store.place(path, tmp_path / "p")
    assert placed.key == env.key
    assert str(tmp_path / "p") in run_in(placed, "hpctool")
    assert store.place(path, tmp_path / "p").prefix == placed.prefix
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(EnvError, match="not empty"):
        store.place(path, tmp_path / "full")
    with pytest.raises(EnvError, match="is there"):
        store.place(environment_file(tmp_path, "toylib"), tmp_path / "p")
    assert (tmp_path / "full/file").exists()


def test_a_damaged_env_is_built_again(store, tmp_path):
    """An env whose record was deleted is not trusted: it is built anew, from the same lock."""
    path = environment_file(tmp_path, "hpctool")
    env = store.ensure(path)
    (Path(env.prefix) / "conda-meta/hpcburst.json").unlink()
    (Path(env.prefix) / "bin/hpctool").unlink()
    again = EnvStore(store.root, store.settings).ensure(path)
    assert again == env
    assert run_in(again, "hpctool")


def test_an_env_is_compiled_and_readable(store, tmp_path):
    """Pure Python packages are byte-compiled for their final place, metadata is for all to read."""
    env = store.ensure(environment_file(tmp_path, f"python {RUNNING}.*", "toylib 2.*"))
    (compiled,) = Path(env.prefix).glob("lib/python3*/site-packages/toylib/__pycache__/*.pyc")
    assert env.prefix.encode() in compiled.read_bytes()
    modes = {p.stat().st_mode & 0o777 for p in Path(env.prefix, "conda-meta").glob("*.json")}
    assert modes == {0o644}


def test_envs_are_listed_and_removed(store, tmp_path):
    """A removed env is gone and can be built again from its lock; an unknown key lists the keys."""
    path = environment_file(tmp_path, "hpctool")
    env = store.ensure(path)
    assert store.find(env.key).spec == "environment.yml"
    assert [record.key for record in store.list()] == [env.key]
    assert store.remove(env.key).prefix == env.prefix
    assert not Path(env.prefix).exists()
    assert store.list() == ()
    assert (store.root / "locks" / f"{env.key}.lock.yml").exists()
    assert store.ensure(path) == env
    store.remove(env.key, lock_too=True)
    assert list((store.root / "locks").iterdir()) == []
    with pytest.raises(EnvError, match="keys there are: none"):
        store.remove(env.key)


def test_a_preview_writes_nothing(tmp_path, channel_url):
    """A preview names the packages and leaves the root as it was: absent."""
    store = EnvStore(tmp_path / "root", EnvSettings(mirror={"conda-forge": channel_url}))
    preview = store.preview(environment_file(tmp_path, "app1"))
    assert not preview.built
    assert {"app1", "toylib"} <= {package.name for package in preview.packages}
    assert not (tmp_path / "root").exists()


def test_the_root_is_its_owners_alone(tmp_path, channel_url):
    """A root we make is 0700; one that everybody may write to is refused."""
    path = environment_file(tmp_path, "hpctool")
    store = EnvStore(tmp_path / "new", EnvSettings(mirror={"conda-forge": channel_url}))
    store.ensure(path)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(EnvError, match="verybody may write there"):
        EnvStore(tmp_path / "open", EnvSettings(mirror={"conda-forge": channel_url})).ensure(path)


def make_wheel(folder: Path) -> None:
    """A wheel `pipped` with a console script, in a folder to find links in."""
    files = {
        "pipped.py": "import sys\ndef main():\n    print('pipped in', sys.prefix)\n",
        "pipped-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pipped\nVersion: 1.0\n",
        "pipped-1.0.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        "pipped-1.0.dist-info/entry_points.txt": "[console_scripts]\npipped = pipped:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, "pipped-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(folder / "pipped-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, "pipped-1.0.dist-info/RECORD": record}.items():
            wheel.writestr(name, text)


def test_the_pip_section_is_installed(store, tmp_path):
    """Pip requirements work too, and their scripts start with the env's final Python."""
    pytest.importorskip("uv")
    make_wheel(tmp_path)
    pip = ["--no-index", f"--find-links {tmp_path}", "pipped ==1.0"]
    path = environment_file(tmp_path, f"python {RUNNING}.*", {"pip": pip})
    env = store.ensure(path)
    assert run_in(env, "pipped") == f"pipped in {env.prefix}"
    stages = [f for f in Path(env.prefix, "bin").iterdir() if b"/.b-" in f.read_bytes()]
    assert stages == []


def test_a_pip_requirement_nobody_has_is_an_answer(store, tmp_path):
    """When uv fails its words are shown, and no env remains."""
    pytest.importorskip("uv")
    pip = ["--no-index", f"--find-links {tmp_path}", "nosuchwheel"]
    with pytest.raises(EnvError, match="nosuchwheel"):
        store.ensure(environment_file(tmp_path, f"python {RUNNING}.*", {"pip": pip}))
    assert left_over(store.root) == []
    assert store.list() == ()


def test_a_full_disk_is_an_answer_and_leaves_no_half_env(small_disk, tmp_path, channel_url):
    """Out of space, the answer says where and how much is free; nothing half-built remains."""
    store = EnvStore(small_disk / "root", EnvSettings(mirror={"conda-forge": channel_url}))
    path = environment_file(tmp_path, f"python {RUNNING}.*", "numpy")
    with pytest.raises(EnvError, match=r"(?s)he disk is full.* \d+ MB of \d+ MB") as caught:
        store.ensure(path)
    assert str(store.root / "envs") in str(caught.value)
    assert store.list() == ()
    assert left_over(store.root) == []


def plain_path() -> str:
    """A PATH without any conda."""
    entries = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if not Path(entry, "conda").exists())


def test_the_standin_is_used_only_where_there_is_no_conda(tmp_path):
    """The stand-in comes last on PATH: a real conda wins."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "conda").write_text("#!/bin/sh\necho real\n")
    (real / "conda").chmod(0o755)
    found = with_conda_on_path({"PATH": f"/usr/bin:{real}"}, tmp_path / "standin")
    assert shutil.which("conda", path=found["PATH"]) == str(real / "conda")
    bare = with_conda_on_path({"PATH": "/usr/bin"}, tmp_path / "standin")
    assert shutil.which("conda", path=bare["PATH"]) == str(tmp_path / "standin/bin/conda")
    assert with_conda_on_path(bare, tmp_path / "standin") == bare


def test_the_standin_answers_without_python(tmp_path, monkeypatch):
    """Version, info, config and clean are answered though no Python can be started."""
    monkeypatch.setattr(sys, "executable", "/no/python")
    conda = install_standin(tmp_path / "standin") / "conda"

    def answer(*argv: str) -> str:
        done = subprocess.run([conda, *argv], capture_output=True, text=True, check=True)
        return done.stdout

    assert re.fullmatch(r"conda \d+\.\d+\.\d+\n", answer("--version"))
    info = json.loads(answer("info", "--json"))
    assert info["conda_prefix"] == str(tmp_path / "standin")
    assert info["platform"].startswith(("linux-", "osx-"))
    priority = json.loads(answer("config", "--get", "channel_priority", "--json"))
    assert priority["get"] == {"channel_priority": "strict"}
    assert answer("clean", "-y", "--tarballs") == ""
    refused = subprocess.run([conda, "install", "x"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "stand-in" in refused.stderr


def test_the_standin_makes_the_same_env_from_a_pin_file(tmp_path, packages, channel_url):
    """What `conda list --explicit` prints of an env, `conda create` makes again elsewhere."""
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root/pkgs").symlink_to(packages)
    environ = {
        **os.environ,
        "HPCBURST_ENV_ROOT": str(tmp_path / "root"),
        "HPCBURST_CHANNEL_MIRROR": json.dumps({"conda-forge": channel_url}),
    }
    conda = install_standin(tmp_path / "standin") / "conda"

    def answer(*argv: object) -> str:
        done = subprocess.run(
            [conda, *map(str, argv)], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    file = environment_file(tmp_path, "app1")
    flags = ("--quiet", "--no-default-packages")
    answer("env", "create", *flags, "--file", file, "--prefix", tmp_path / "one")
    pin = tmp_path / "one.pin.txt"
    pin.write_text(answer("list", "--explicit", "--prefix", tmp_path / "one"))
    answer("create", *flags, "--file", pin, "--prefix", tmp_path / "two", "--yes")
    exported = [answer("env", "export", "--prefix", tmp_path / name) for name in ("one", "two")]
    assert exported[0] == exported[1]
    assert "toylib=1.0=" in exported[0]


def test_unmodified_snakemake_runs_rules_in_their_envs(tmp_path, packages, channel_url):
    """`snakemake --sdm conda` runs each rule in its own Python, on a machine without conda."""
    snakemake = Path(sys.executable).with_name("snakemake")
    if not snakemake.exists():
        pytest.skip("snakemake is not installed")
    old, new = minors(channel_url)[0], minors(channel_url)[-1]
    for name, minor in (("one", old), ("two", new)):
        (tmp_path / name).mkdir()
        variables = {"FROM_FILE": f"this is $({name})"}
        environment_file(
            tmp_path / name, f"python {minor}.*", "hpctool", variables=variables
        )  # fmt: skip
    rule = """
        rule {name}:
            output: "{name}.txt"
            conda: "{name}/environment.yml"
            shell: "python -V > {{output}}; hpctool >> {{output}}; "
                   "echo $FROM_FILE $HPCTOOL_HOME $CONDA_DEFAULT_ENV >> {{output}}"
    """
    rules = "\n".join(textwrap.dedent(rule.format(name=name)) for name in ("one", "two"))
    (tmp_path / "Snakefile").write_text(
        f'rule all:\n    input: "one.txt", "two.txt"\n{rules}', encoding="utf-8"
    )
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root/pkgs").symlink_to(packages)
    environ = with_conda_on_path(
        {
            **os.environ,
            "PATH": plain_path(),
            "HPCBURST_ENV_ROOT": str(tmp_path / "root"),
            "HPCBURST_CHANNEL_MIRROR": json.dumps({"conda-forge": channel_url}),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        tmp_path / "standin",
    )
    argv = [str(snakemake), "--sdm", "conda", "--cores", "2"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, minor in (("one", old), ("two", new)):
        text = (tmp_path / f"{name}.txt").read_text()
        assert f"Python {minor}." in text
        (prefix,) = set(re.findall(r"\S+/\.snakemake/conda/[0-9a-f]+_(?=\n|$)", text))
        assert f"this is $({name}) {prefix}/share/hpctool {prefix}" in text


def test_env_verbs_of_the_command_line(tmp_path, channel_url, capsys):
    """`hpcburst env create`, `list` and `remove` work, print JSON when asked and act only then."""
    import dask.config

    from hpcburst.cli.main import main

    def run(*argv: str):
        assert main(["env", *argv, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    path = str(environment_file(tmp_path, "hpctool"))
    section = {"shared-root": str(tmp_path), "envs": {"mirror": {"conda-forge": channel_url}}}
    with dask.config.set(hpcburst=section):
        assert run("create", path, "--dry-run")["built"] is False
        assert run("list") == []
        made = run("create", path)
        assert Path(made["prefix"]).is_dir()
        assert [row["key"] for row in run("list")] == [made["key"]]
        assert run("remove", made["key"], "--dry-run")["key"] == made["key"]
        assert Path(made["prefix"]).is_dir()
        run("remove", made["key"])
        assert not Path(made["prefix"]).exists()
        assert main(["env", "remove", made["key"]]) == 1
        assert "no such env" in capsys.readouterr().err
