"""The verbs of `hpcburst env`: what they say to people and to programs, and that it is true."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask.config
import pytest

from hpcburst.cli.env_build import side_by_side
from hpcburst.cli.env_progress import shown_progress
from hpcburst.cli.main import main
from hpcburst.errors import EnvError
from support.processes import wait_until

pytestmark = pytest.mark.channel

PROGRAM = Path(sys.executable).with_name("hpcburst")
SPECS = {
    "tool.yml": {"dependencies": ["hpctool"], "variables": {"MOOD": "good"}},
    "old.yml": {"dependencies": ["toylib 1.*", "app1"]},
    "also.yml": {"dependencies": ["toylib 1.*", "app1"], "variables": {"MOOD": "bad"}},
    "new.yml": {"dependencies": ["toylib 2.*", "app2"]},
    "bad.yml": {"dependencies": ["no-such-package"]},
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A package cache that stays warm over the tests of this file."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def folder(tmp_path, packages, channel_url, monkeypatch):
    """A working folder with specs, and a shared root of its own."""
    for name, more in SPECS.items():
        (tmp_path / name).write_text(json.dumps({"channels": ["conda-forge"], **more}))
    root = tmp_path / "shared/envs"
    root.mkdir(mode=0o700, parents=True)
    (root / "pkgs").symlink_to(packages)
    monkeypatch.chdir(tmp_path)
    section = {
        "shared-root": str(tmp_path / "shared"),
        "node-root": str(tmp_path / "node"),
        "envs": {"mirror": {"conda-forge": channel_url}},
    }
    with dask.config.set(hpcburst=section):
        yield tmp_path


@pytest.fixture
def fresh_packages(folder):
    """A package cache of the test's own: it is going to be damaged."""
    link = folder / "shared/envs/pkgs"
    link.unlink()
    link.mkdir()
    return link


@pytest.fixture
def env(folder, capsys):
    """Runs `hpcburst env ARGUMENTS`; gives its exit status, stdout and stderr."""

    def run(*argv: str):
        capsys.readouterr()
        status = main(["env", *argv])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def documents(env):
    """Runs `hpcburst env ARGUMENTS --json`, which must succeed; gives one document a line."""

    def run(*argv: str, status: int = 0):
        done = env(*argv, "--json")
        assert done[0] == status, done
        return [json.loads(line) for line in done[1].splitlines()]

    return run


@pytest.fixture
def document(env):
    """Runs `hpcburst env ARGUMENTS --json`, which must succeed; gives its one document."""

    def run(*argv: str, status: int = 0):
        done = env(*argv, "--json")
        assert done[0] == status, done
        return json.loads(done[1])

    return run


def names(packages) -> set[str]:
    return {package["name"] for package in packages}


# -- create ---------------------------------------------------------------------------------------


def test_create_builds_and_says_where(env):
    """One line with key and prefix, for people and scripts; the second time says the same."""
    status, out, _ = env("create", "tool.yml")
    key, prefix = out.split()
    assert status == 0
    assert Path(prefix, "bin/hpctool").exists()
    assert Path(prefix).name == key
    assert env("create", "tool.yml")[1] == out


def test_create_takes_several_specs(env, documents):
    """Several specs are built in one go; answers come in the order of the specs."""
    status, out, _ = env("create", "new.yml", "tool.yml", "old.yml")
    rows = [line.split() for line in out.splitlines()]
    assert status == 0
    assert [row[2] for row in rows] == ["new.yml", "tool.yml", "old.yml"]
    answers = documents("create", "new.yml", "tool.yml", "old.yml")
    assert [answer["key"] for answer in answers] == [row[0] for row in rows]
    assert all(Path(answer["prefix"]).is_dir() for answer in answers)


def test_a_spec_that_fails_stops_no_other(env):
    """One bad spec among several is told with its reason; the others are built, the exit is 1."""
    status, out, err = env("create", "bad.yml", "tool.yml")
    assert status == 1
    assert out.endswith("tool.yml\n")
    assert "no-such-package" in err
    assert "bad.yml" in err


def test_create_dry_run_builds_nothing(env, document, folder):
    """A dry run lists what would be chosen, and leaves nothing under the shared root."""
    before = sorted((folder / "shared").rglob("*"))
    status, out, _ = env("create", "new.yml", "--dry-run")
    assert status == 0
    assert "would be built" in out
    assert re.search(r"^  toylib +2\.0", out, re.MULTILINE)
    preview = document("create", "new.yml", "--dry-run")
    assert preview["built"] is False
    assert names(preview["packages"]) == {"python", "toylib", "app2"}
    assert sorted((folder / "shared").rglob("*")) == before


def test_create_at_a_prefix(document, folder):
    """`--prefix` builds at a place of the user's choice, which is then an env as any other."""
    made = document("create", "tool.yml", "--prefix", "here/tool")
    assert made["prefix"] == str(folder / "here/tool")
    assert document("show", "here/tool")["key"] == made["key"]
    assert document("verify", "here/tool")["good"] is True


def test_one_prefix_holds_one_env(env):
    """Two specs for one prefix are refused before anything is built."""
    status, _, err = env("create", "tool.yml", "old.yml", "--prefix", "here")
    assert status == 1
    assert "one by one" in err


def test_an_unknown_builder_is_refused(env, capsys):
    """A builder that does not exist is refused beside those that do."""
    with pytest.raises(SystemExit):
        env("create", "tool.yml", "--with", "pip")
    assert "micromamba" in capsys.readouterr().err


def test_a_builder_that_is_not_installed_is_named(env, monkeypatch):
    """`--with conda` on a machine without conda says that, and what to do."""
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, err = env("create", "tool.yml", "--with", "conda")
    assert status == 1
    assert "conda" in err
    assert "Traceback" not in err


def test_create_offline_uses_what_is_there(env):
    """Offline, an env that is built is found, since nothing must be fetched for it."""
    made = env("create", "tool.yml")[1]
    assert env("create", "tool.yml", "--offline")[:2] == (0, made)


def test_create_for_nodes_to_link(document):
    """`--place local` leaves a pack that nodes link the env from, and lists it as an env."""
    made = document("create", "tool.yml", "--place", "local")
    assert Path(made["pack"]).is_file()
    (row,) = document("list")
    assert row["key"] == made["key"]
    assert document("show", made["key"])["built"] is True
    assert document("verify", "--all")["good"] is True


# -- lock -----------------------------------------------------------------------------------------


def test_lock_chooses_without_building(document, folder):
    """A lock names the exact packages; no env is built for it."""
    locked = document("lock", "new.yml")
    assert names(locked["packages"]) == {"python", "toylib", "app2"}
    assert Path(locked["lock"]).read_text().startswith("version: ")
    assert document("list") == []
    assert list((folder / "shared/envs/envs").iterdir()) == []


def test_a_lock_beside_the_spec_is_a_spec(document, documents, folder):
    """`lock -o` writes a file to commit; who builds from it gets exactly those packages."""
    locked = document("lock", "new.yml", "-o", "new.lock.yml")
    assert locked["lock"] == str(folder / "new.lock.yml")
    made = document("create", "new.lock.yml")
    kept = {(p["name"], p["version"], p["build"]) for p in locked["packages"]}
    shown = document("show", made["key"])["packages"]
    assert {(p["name"], p["version"], p["build"]) for p in shown} == kept


def test_locking_again_changes_nothing(document):
    """The first lock stays: the same spec has the same packages tomorrow."""
    first = document("lock", "new.yml")
    text = Path(first["lock"]).read_bytes()
    again = document("lock", "new.yml")
    assert (again["written"], again["changes"]) == (False, [])
    assert Path(first["lock"]).read_bytes() == text


def test_lock_update_says_what_changed(env, document, folder):
    """`--update` chooses anew, and each package that changed is shown, old and new."""
    lock = Path(document("lock", "old.yml")["lock"])
    other = document("lock", "new.yml")
    lock.write_bytes(Path(other["lock"]).read_bytes())  # as if the channel had moved on
    changes = {row["name"]: row for row in document("lock", "old.yml", "--update")["changes"]}
    assert changes["toylib"]["old"].startswith("2.0")
    assert changes["toylib"]["new"].startswith("1.0")
    assert (changes["app1"]["old"], changes["app2"]["new"]) == ("", "")
    lock.write_bytes(Path(other["lock"]).read_bytes())
    out = env("lock", "old.yml", "--update")[1]
    assert re.search(r"toylib +2\.0 py_0 +-> +1\.0 py_0", out)


def test_lock_dry_run_writes_nothing(document, folder):
    """A dry run of `lock` shows the packages and writes no file."""
    found = document("lock", "new.yml", "-o", "new.lock.yml", "--dry-run")
    assert names(found["packages"]) == {"python", "toylib", "app2"}
    assert not (folder / "new.lock.yml").exists()
    assert not (folder / "shared/envs/locks").exists()


def test_a_lock_file_is_never_half_of_the_env(env, folder):
    """A lock file cannot hold a pip section, so none is written; variables are asked for again."""
    spec = {"dependencies": ["python", {"pip": ["six"]}], "channels": ["conda-forge"]}
    (folder / "pip.yml").write_text(json.dumps(spec))
    status, _, err = env("lock", "pip.yml", "-o", "pip.lock.yml")
    assert status == 1
    assert "pip section" in err
    assert not (folder / "pip.lock.yml").exists()
    assert "variables" in env("lock", "tool.yml", "-o", "tool.lock.yml")[2]


def test_an_update_that_fails_keeps_the_lock(env, folder, channel_url):
    """When a channel has nothing any more, the lock that is there stays, and can still be built."""
    channel = folder / "channel"
    channel.mkdir()
    for part in Path(channel_url.removeprefix("file://")).iterdir():
        (channel / part.name).symlink_to(part)
    (folder / "own.yml").write_text(json.dumps({**SPECS["old.yml"], "channels": [str(channel)]}))
    lock = Path(env("lock", "own.yml")[1].split()[-1])
    text = lock.read_bytes()
    for part in channel.iterdir():
        part.unlink()
    status, _, err = env("lock", "own.yml", "--update")
    assert status == 1
    assert "Traceback" not in err
    assert lock.read_bytes() == text


def test_a_lock_that_cannot_be_written_is_told(env):
    """A folder that is not there is an answer; nothing half-written is left."""
    status, _, err = env("lock", "new.yml", "-o", "no/such/folder/lock.yml")
    assert status == 1
    assert "no/such/folder" in err


# -- list and show --------------------------------------------------------------------------------


def test_list_has_a_row_for_each_env(env, document):
    """The envs with their sizes, oldest first; without any, the way to the first one."""
    assert env("list")[:2] == (0, "no envs yet: hpcburst env create FILE\n")
    env("create", "tool.yml")
    env("create", "old.yml")
    head, *lines = env("list")[1].splitlines()
    assert head.split() == ["KEY", "AGE", "USED", "SIZE", "PACKAGES", "BUILDER", "SPEC"]
    assert [line.split()[-1] for line in lines] == ["tool.yml", "old.yml"]
    rows = document("list")
    assert all(row["held_bytes"] > 0 and row["files"] > 0 for row in rows)
    assert rows[0]["used"] >= rows[0]["made"]


def test_show_tells_all_about_an_env(env, document):
    """Packages, Python, variables, what activation changes, the lock, who built it and when."""
    env("create", "old.yml")
    made = document("create", "tool.yml")
    found = document("show", "tool.yml")
    assert found["key"] == made["key"]
    assert found["variables"]["MOOD"] == "good"
    assert found["activation"]["HPCTOOL_THREADS"] == "4"
    assert Path(found["lock"]).exists()
    assert (found["builder"], found["host"] != "", found["python"]) == ("rattler", True, None)
    assert found["packages"][0]["version"] == "1.2.3"
    assert document("show", "old.yml")["python"].startswith("3.")
    out = env("show", made["key"][:6])[1]
    assert "MOOD=good" in out
    assert re.search(r"^    hpctool +1\.2\.3", out, re.MULTILINE)


def test_show_of_an_env_that_is_not_built(env, document):
    """Before an env is built, its key is known, and with a lock its packages."""
    found = document("show", "old.yml")
    assert (found["built"], found["packages"]) == (False, [])
    env("lock", "old.yml")
    assert names(document("show", "old.yml")["packages"]) == {"python", "toylib", "app1"}
    assert "(not built)" in env("show", "old.yml")[1]


def test_shown_activation_can_be_sourced(env, tmp_path):
    """`show --activation` prints text that gives any POSIX shell the env, without a process."""
    prefix = env("create", "tool.yml")[1].split()[1]
    script = tmp_path / "activate.sh"
    script.write_text(env("show", "tool.yml", "--activation")[1])
    command = f'. {shlex.quote(str(script))}; echo "$MOOD $CONDA_PREFIX"; command -v hpctool'
    said = subprocess.check_output(["sh", "-c", command], text=True)
    assert said.split() == ["good", prefix, f"{prefix}/bin/hpctool"]


def test_keys_may_be_shortened(env):
    """Four characters are enough when no other key begins so; fewer are refused."""
    key = env("create", "tool.yml")[1].split()[0]
    assert env("show", key[:4])[0] == 0
    status, _, err = env("show", key[:3])
    assert status == 1
    assert "4 characters" in err or "no such file" in err


def test_a_mistyped_key_answers_with_near_ones(env):
    """A key with a wrong character is answered with the one that was probably meant."""
    key = env("create", "tool.yml")[1].split()[0]
    wrong = key[:10] + ("0" if key[10] != "0" else "1") + key[11:]
    status, _, err = env("remove", wrong)
    assert status == 1
    assert key in err
    assert "no such env" in err


# -- verify ---------------------------------------------------------------------------------------


def test_verify_finds_envs_good(env, documents):
    """Envs as built are good, one by one, all together, quickly and in full."""
    env("create", "tool.yml", "old.yml")
    assert env("verify", "tool.yml")[0] == 0
    for options in (["--all"], ["--all", "--quick"]):
        reports = documents("verify", *options)
        assert [report["good"] for report in reports] == [True, True]


def test_verify_without_a_name_is_no_success(env):
    """Nothing to verify is a mistake, not a clean bill of health."""
    status, _, err = env("verify")
    assert status == 1
    assert "--all" in err


HARMED = "lib/python3*/site-packages/toylib/__init__.py"


def harm(prefix: str) -> Path:
    (path,) = Path(prefix).glob(HARMED)
    with path.open("ab") as file:
        file.write(b"# harm\n")
    return path


def test_damage_is_found_where_it_lies(env, documents, fresh_packages):
    """Harm through one env is found in the other env and in the package cache, by name."""
    one, other = (env("create", name)[1].split()[1] for name in ("old.yml", "also.yml"))
    path = harm(one)
    reports = documents("verify", one, status=1)
    assert [report["prefix"] for report in reports] == [one, other]
    for report in reports:
        (fault,) = report["faults"]
        assert fault["path"] == str(path.relative_to(one))
        assert fault["kind"] == "changed"
        assert Path(fault["entry"]).parent == fresh_packages
    assert reports[0]["shared_with"] == [other]


def test_repair_makes_all_of_them_good(env, documents, fresh_packages):
    """`--repair` builds every env that shares the damage again, from clean packages."""
    prefixes = [env("create", name)[1].split()[1] for name in ("old.yml", "also.yml")]
    harm(prefixes[0])
    status, out, _ = env("verify", prefixes[0])
    assert status == 1
    assert "--repair" in out
    assert prefixes[1] in out
    env("verify", prefixes[0], "--repair", "--dry-run")
    assert [r["good"] for r in documents("verify", "--all", status=1)] == [False, False]
    repaired = documents("verify", prefixes[0], "--repair")
    assert [report["repaired"] for report in repaired] == [True, True]
    assert [r["good"] for r in documents("verify", "--all")] == [True, True]


# -- gc and remove --------------------------------------------------------------------------------


def _grow_old(root: Path, days: float = 40) -> None:
    """Let all under a root have been made, and used last, so many days ago."""
    then = time.time() - days * 86400
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            os.utime(path, (then, then))
    for record in root.glob("envs/*/conda-meta/hpcburst.json"):
        fields = json.loads(record.read_text())
        record.write_text(json.dumps({**fields, "made": then}))


def test_gc_takes_what_nobody_used(env, document, fresh_packages, folder):
    """After a month an env goes with its packages, and the account is what the disk says."""
    root = folder / "shared/envs"
    prefixes = [env("create", name)[1].split()[1] for name in ("old.yml", "tool.yml")]
    _grow_old(root)
    env("create", "tool.yml")
    said = document("gc", "--dry-run")
    assert Path(prefixes[0]).is_dir()
    before = _held(root)
    done = document("gc")
    assert done["freed_bytes"] == said["freed_bytes"] == before - _held(root) > 0
    assert [row["name"] for row in done["gone"] if row["kind"] == "env"] == [Path(prefixes[0]).name]
    assert not Path(prefixes[0]).exists()
    assert Path(prefixes[1]).is_dir()
    assert {p.name.split("-")[0] for p in fresh_packages.iterdir() if p.is_dir()} == {"hpctool"}
    assert "freed 0 B" in env("gc")[1]


def _held(root: Path) -> int:
    inodes = {path.lstat().st_ino: path.lstat().st_blocks * 512 for path in root.rglob("*")}
    return sum(inodes.values())


def test_an_env_can_be_built_again_after_gc(env, document, fresh_packages, folder):
    """The lock stays, so the same packages come back; `--locks` gives them up."""
    made = document("create", "old.yml")
    kept = document("show", "old.yml")["packages"]
    _grow_old(folder / "shared/envs")
    env("gc")
    assert document("create", "old.yml") == made
    assert document("show", "old.yml")["packages"] == kept
    _grow_old(folder / "shared/envs")
    gone = document("gc", "--locks")["gone"]
    assert {"env", "lock"} <= {row["kind"] for row in gone}
    assert not list((folder / "shared/envs/locks").glob(f"{made['key']}.*"))


def test_gc_protects_running_jobs(env, folder):
    """An age shorter than a job may last is refused, unless it is forced."""
    prefix = env("create", "tool.yml")[1].split()[1]
    status, _, err = env("gc", "--older-than", "1h")
    assert status == 1
    assert "--force" in err
    assert Path(prefix).is_dir()
    assert env("gc", "--older-than", "0d", "--force")[0] == 0
    assert not Path(prefix).exists()


@pytest.mark.parametrize("age", ["30", "soon", "-1d", ""])
def test_an_age_needs_a_unit(env, age):
    """Nobody has to guess whether 30 means days or seconds."""
    status, _, err = env("gc", f"--older-than={age}")
    assert status == 1
    assert "30d" in err


def test_gc_keeps_what_is_named(env, folder):
    """`--keep KEY` protects an env however old it is."""
    key, prefix = env("create", "tool.yml")[1].split()
    _grow_old(folder / "shared/envs")
    env("gc", "--keep", key[:5])
    assert Path(prefix).is_dir()


def test_remove_takes_several(env, documents, folder):
    """Named envs go, by short keys too; an unknown key among them removes none."""
    keys = [env("create", name)[1].split()[0] for name in ("tool.yml", "old.yml")]
    assert env("remove", keys[0], "0000")[0] == 1
    assert len(list((folder / "shared/envs/envs").iterdir())) == 2
    assert [row["key"] for row in documents("remove", *keys, "--dry-run")] == keys
    assert len(list((folder / "shared/envs/envs").iterdir())) == 2
    assert env("remove", keys[0][:6], keys[1])[0] == 0
    assert list((folder / "shared/envs/envs").iterdir()) == []
    assert (folder / f"shared/envs/locks/{keys[0]}.lock.yml").exists()


# -- why ------------------------------------------------------------------------------------------


def test_why_says_what_differs(env, document):
    """Two specs that do not share an env: the dependency that makes the difference is named."""
    status, out, _ = env("why", "old.yml", "new.yml")
    assert status == 0
    assert "toylib 1.*" in out
    assert "toylib 2.*" in out
    (pair,) = document("why", "old.yml", "new.yml")
    assert pair["same"] is False
    assert pair["reasons"]


def test_why_of_a_spec_and_a_key(env):
    """A key is compared by what was asked for when its env was built."""
    key = env("create", "old.yml")[1].split()[0]
    assert "toylib 1.*" in env("why", "new.yml", key[:8])[1]
    assert "same env" in env("why", "old.yml", key)[1]


def test_why_of_an_env_whose_spec_is_forgotten(env, folder):
    """When only the lock of one is known, that is said, and the packages are compared."""
    key = env("create", "old.yml")[1].split()[0]
    (folder / f"shared/envs/locks/{key}.spec.json").unlink()
    env("lock", "new.yml")
    out = env("why", key, "new.yml")[1]
    assert "is not kept" in out
    assert re.search(r"toylib: 1\.0 \S+ in \S+, 2\.0", out)


def test_why_needs_two(env):
    """One spec alone differs from nothing."""
    assert env("why", "old.yml")[0] == 1


# -- how it looks ---------------------------------------------------------------------------------


def _environ(folder: Path, channel_url: str) -> dict[str, str]:
    stated = {
        "SHARED_ROOT": str(folder / "shared"),
        "NODE_ROOT": str(folder / "node"),
        "ENVS__MIRROR": json.dumps({"conda-forge": channel_url}),
    }
    return {**os.environ, **{f"DASK_HPCBURST__{key}": text for key, text in stated.items()}}


def test_a_log_gets_plain_lines(folder, channel_url):
    """Without a terminal nothing is coloured or drawn: the answer is on stdout, alone."""
    done = subprocess.run(
        [PROGRAM, "env", "create", "old.yml", "tool.yml"],
        env=_environ(folder, channel_url),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "\033" not in done.stdout + done.stderr
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["old.yml", "tool.yml"]


def test_a_terminal_gets_a_table_that_fits(folder, channel_url):
    """On a terminal of 80 columns no line of a table is broken, and the head stands out."""
    main(["env", "create", "tool.yml"])
    import pty

    leader, follower = pty.openpty()
    environ = {**_environ(folder, channel_url), "COLUMNS": "80", "TERM": "xterm"}
    environ.pop("NO_COLOR", None)
    with os.fdopen(leader, "rb") as screen:
        done = subprocess.run(
            [PROGRAM, "env", "list"], env=environ, stdout=follower, timeout=60, check=True
        )
        os.close(follower)
        text = os.read(screen.fileno(), 65536).decode()
    assert done.returncode == 0
    head, row, *_ = text.split("\r\n")
    assert head.startswith("\033[1mKEY")
    assert len(row) <= 80


def test_progress_of_downloads_is_in_bytes(capfd, monkeypatch):
    """In a log, a download is told in bytes, other steps in numbers, each with its spec's name."""
    monkeypatch.setattr("hpcburst.cli.env_progress.SHOW_AFTER_S", 0.01)
    monkeypatch.setattr("hpcburst.cli.env_progress.SAY_EVERY_S", 0.01)
    said = ""

    def heard(*words: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return all(word in said for word in words)

    with shown_progress() as board:
        one, other = board("one.yml"), board("other.yml")
        one("downloading", 45_000_000, 150_000_000)
        other("linking packages", 3, 20)
        wait_until(
            lambda: heard(
                "one.yml: downloading 45.0/150.0 MB\n", "other.yml: linking packages 3/20\n"
            ),
            "the log tells how far both are",
        )


def test_two_are_built_at_a_time():
    """Of many specs two are in work at once, and errors do not disturb the order of answers."""
    at_work: set[str] = set()
    most = []

    def work(name: str, watched) -> dict:
        at_work.add(name)
        most.append(len(at_work))
        time.sleep(0.01)
        at_work.discard(name)
        if name == "b":
            raise EnvError("b was asked for", "it is bad")
        return {"name": name}

    answers = side_by_side(list("abcdef"), work)
    assert max(most) == 2
    assert isinstance(answers.pop(1), EnvError)
    assert [answer["name"] for answer in answers] == list("acdef")


def test_ctrl_c_stops_all_builds(folder, fresh_packages, channel_url):
    """Ctrl-C in the middle of two builds ends with 130, and leaves no stage and no claim."""
    root = folder / "shared/envs"
    process = subprocess.Popen(
        [PROGRAM, "env", "create", "old.yml", "new.yml", "also.yml", "tool.yml"],
        env=_environ(folder, channel_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_until(lambda: list(root.glob("locks/*.claim")), "a build has begun")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list(root.glob("locks/*.claim")) == []
    assert list(root.glob("envs/.*")) == []
