"""`snakemake --sdm conda` and `--sdm env-modules` under our executor: every way to name an env."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from snakemake import cli

from hpcburst.envs.conda_standin import install_standin
from support.modules import environment_modules, lmod
from support.processes import marked, wait_until
from support.tinychannel import archive_of, build_tiny_channel, write_lock, write_pin
from support.webchannel import serving

DEADLINE_S = 60.0
MARK = "HPCBURST_TEST_RUN"
PACKAGES = ("alpha", "beta", "gamma", "delta")


@pytest.fixture(scope="module")
def channel(tmp_path_factory) -> Path:
    """A channel of packages with one program each, which prints its package's name."""
    return build_tiny_channel(tmp_path_factory.mktemp("channel"), PACKAGES)


@pytest.fixture(params=["direct", "zygote", "spawn"])
def mode(request) -> str:
    """How jobs run on their pilots."""
    return request.param


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    """The user's environment with an empty home, no conda, a shared root and a mark."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SNAKEMAKE", "CONDA", "MAMBA"))
    }
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PATH": path_without_conda(),
        "DASK_HPCBURST__SHARED_ROOT": str(tmp_path / "shared"),
        MARK: str(tmp_path),
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    """The folder of the workflow."""
    folder = tmp_path / "workflow"
    folder.mkdir()
    return folder


@functools.cache
def path_without_conda() -> str:
    """This PATH without the folders that hold a conda command."""
    entries = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if not (Path(entry) / "conda").exists())


def command(*options: str, sdm: str = "conda") -> list[str]:
    """An unmodified snakemake command."""
    chosen = ["--executor", "hpcburst", "--jobs", "10", "--hpcburst-max-jobs", "1"]
    return [
        sys.executable,
        "-m",
        "snakemake",
        *chosen,
        "--latency-wait",
        "2",
        "--sdm",
        sdm,
        *options,
    ]


def snakemake(folder, environ, *options: str, sdm: str = "conda"):
    """Run snakemake in a folder; its output in one text."""
    return subprocess.run(
        command(*options, sdm=sdm),
        check=False,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S * 2,
    )


def succeed(folder, environ, *options: str, sdm: str = "conda") -> str:
    """The output of a snakemake that ended well and left no process behind."""
    ran = snakemake(folder, environ, *options, sdm=sdm)
    assert ran.returncode == 0, ran.stdout
    mark = f"{MARK}={environ[MARK]}"
    wait_until(lambda: not marked(mark), f"the end of {mark}", within_s=DEADLINE_S)
    return ran.stdout


def env_file(folder: Path, name: str, channel, *packages: str, **more: object) -> Path:
    """An environment file with these packages, for a rule's `conda:`."""
    path = folder / f"{name}.yaml"
    url = channel if isinstance(channel, str) else channel.as_uri()
    document = {"channels": [url], "dependencies": list(packages), **more}
    path.write_text(json.dumps(document))
    return path


def write_rules(folder: Path, envs: dict[str, str], shell: str) -> None:
    """A Snakefile with one rule per env; `shell` may use {name}."""
    rules = [f"rule all:\n    input: {[f'{name}.txt' for name in envs]}"]
    for name, env in envs.items():
        text = shell.format(name=name)
        rules.append(
            f"rule {name}:\n    output: '{name}.txt'\n    conda: {env!r}\n    shell: {text!r}"
        )
    (folder / "Snakefile").write_text("\n".join(rules) + "\n")


def flag_files(folder: Path) -> list[Path]:
    """The marks that Snakemake sets for finished envs."""
    return sorted((folder / ".snakemake/conda").glob("*.env_setup_done"))


def made_elsewhere(environ, channel: Path, prefix: Path, *packages: str) -> Path:
    """An env that another conda made, as far as the executor can see."""
    conda = install_standin(Path(environ["HOME"]) / "other") / "conda"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    file = env_file(prefix.parent, "made", channel, *packages)
    argv = [conda, "env", "create", "--file", file, "--prefix", prefix]
    made = subprocess.run(argv, env=environ, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    for ours in (prefix / "conda-meta").glob("hpcburst*"):
        ours.unlink()
    return prefix


def test_rules_run_in_envs_of_files(folder, environ, mode, channel):
    """Each rule runs in the env of its file, with its scripts run and its variables set."""
    env_file(folder, "a", channel, "alpha", variables={"FROM_FILE": "it's $5"})
    env_file(folder, "b", channel, "beta", variables={"FROM_FILE": "{b}"})
    write_rules(
        folder,
        {"alpha": "a.yaml", "beta": "b.yaml"},
        '{name} > {{output}}; echo "$FROM_FILE" >> {{output}}',
    )
    told = succeed(folder, environ, "--hpcburst-mode", mode)
    for name, value in (("alpha", "it's $5"), ("beta", "{b}")):
        said, variable = (folder / f"{name}.txt").read_text().splitlines()
        assert re.fullmatch(rf"{name} of {folder}/\.snakemake/conda/\w+_ says hello-{name}", said)
        assert variable == value
    assert "ready, 2 of 2" in told


def test_envs_are_made_side_by_side(folder, environ, channel):
    """Two envs whose post-deploy scripts wait for each other are both made."""
    meeting = folder / "meeting"
    meeting.mkdir()
    for mine, other in (("alpha", "beta"), ("beta", "alpha")):
        env_file(folder, mine, channel, mine)
        (folder / f"{mine}.post-deploy.sh").write_text(
            f"touch {meeting}/{mine}\n"
            f"for i in $(seq 300); do [ -e {meeting}/{other} ] && exit 0; sleep 0.1; done\n"
            f"echo {other} did not come; exit 1\n"
        )
    write_rules(folder, {n: f"{n}.yaml" for n in ("alpha", "beta")}, "{name} > {{output}}")
    succeed(folder, environ)
    assert len(flag_files(folder)) == 2


def test_a_post_deploy_script_runs_once_in_its_env(folder, environ, channel):
    """The script finds its env active; a second run of the workflow does not run it again."""
    env_file(folder, "a", channel, "alpha")
    (folder / "a.post-deploy.sh").write_text(
        '#!/usr/bin/env bash\nalpha >> "$CONDA_PREFIX/deployed"\n'
    )
    write_rules(folder, {"alpha": "a.yaml"}, "cp $CONDA_PREFIX/deployed {{output}}")
    for _ in range(2):
        succeed(folder, environ, "--forceall")
        assert re.fullmatch(r"alpha of \S+_ says hello-alpha\n", (folder / "alpha.txt").read_text())


def test_a_pin_file_is_honoured(folder, environ, channel):
    """`<env>.linux-64.pin.txt` beside the file decides which archives are installed."""
    env_file(folder, "a", channel, "alpha")
    write_pin(folder / "a", channel, "beta")
    write_rules(folder, {"beta": "a.yaml"}, "{name} > {{output}}; ! command -v alpha")
    told = succeed(folder, environ)
    assert "Using pinnings from" in told
    assert "beta of" in (folder / "beta.txt").read_text()


def test_a_pin_file_that_does_not_hold_is_told_and_passed_over(folder, environ, channel):
    """With an archive that is gone, Snakemake says so and makes the env from the file itself."""
    env_file(folder, "a", channel, "alpha")
    write_pin(folder / "a", channel, "nothing")
    write_rules(folder, {"alpha": "a.yaml"}, "{name} > {{output}}")
    told = succeed(folder, environ)
    assert "Failed to install conda environment from pin file" in told
    assert "nothing-1.0-0.tar.bz2" in told
    assert "alpha of" in (folder / "alpha.txt").read_text()


IMPATIENT = """
from snakemake_executor_plugin_hpcburst import side_by_side
from snakemake.cli import main

side_by_side.TELL_EVERY_S = 0.2
main()
"""


def test_an_env_that_takes_long_is_told_of(folder, environ, channel):
    """While an archive is on its way, Snakemake's log says what is being done for which env."""
    write_rules(folder, {"alpha": "a.yaml"}, "{name} > {{output}}")
    argv = [sys.executable, "-c", IMPATIENT, *command("--conda-create-envs-only")[3:]]
    with serving(channel, cut_bytes=10) as web:
        web.hold.clear()
        env_file(folder, "a", web.url, "alpha")
        with subprocess.Popen(
            argv,
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as main:
            told = []
            for line in main.stdout:
                told.append(line)
                if re.search(r"Conda environment a\.yaml: (?!ready)\w", line):
                    web.hold.set()
    assert main.returncode == 0, told
    assert web.hold.is_set(), told


@pytest.mark.parametrize("whom", ["everybody", "snakemake"])
def test_ctrl_c_while_envs_are_made_leaves_nothing(folder, environ, channel, whom):
    """After SIGINT, to all processes or to one, nothing runs and no env counts as made."""
    for name in ("alpha", "beta"):
        env_file(folder, name, channel, name)
        (folder / f"{name}.post-deploy.sh").write_text(f"touch {folder}/{name}-began\nsleep 600\n")
    write_rules(folder, {n: f"{n}.yaml" for n in ("alpha", "beta")}, "{name} > {{output}}")
    with subprocess.Popen(
        command(),
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as main:
        wait_until(
            lambda: len(list(folder.glob("*-began"))) == 2, "both scripts", within_s=DEADLINE_S
        )
        (os.killpg if whom == "everybody" else os.kill)(main.pid, signal.SIGINT)
        main.communicate(timeout=DEADLINE_S)
    assert main.returncode != 0
    assert not flag_files(folder)
    mark = f"{MARK}={environ[MARK]}"
    wait_until(lambda: not marked(mark), f"the end of {mark}", within_s=DEADLINE_S)


def test_an_env_that_cannot_be_made_is_answered(folder, environ, channel):
    """The error is Snakemake's own with our answer in it; nothing runs, no half env is left."""
    env_file(folder, "a", channel, "nosuchthing")
    env_file(folder, "b", channel, "beta")
    write_rules(folder, {"alpha": "a.yaml", "beta": "b.yaml"}, "touch {{output}}")
    ran = snakemake(folder, environ)
    assert ran.returncode == 1
    assert "Could not create conda environment from" in ran.stdout
    assert "nosuchthing" in ran.stdout
    assert "Traceback" not in ran.stdout
    assert not list(folder.glob("*.txt"))
    left = {path.stem for path in (folder / ".snakemake/conda").iterdir() if path.is_dir()}
    assert left <= {path.stem for path in flag_files(folder)}


@pytest.mark.parametrize("kind", ["rattler", "conda-lock"])
def test_a_lock_is_a_rules_env(folder, environ, channel, kind):
    """`conda:` may name a lock of rattler or conda-lock: those very archives are installed."""
    write_lock(folder / "exact.lock.yml", channel, "gamma", kind)
    write_rules(folder, {"gamma": "exact.lock.yml"}, "{name} > {{output}}")
    succeed(folder, environ)
    assert "gamma of" in (folder / "gamma.txt").read_text()


def test_an_existing_prefix_is_used_where_it_is(folder, environ, mode, channel):
    """A folder with an env in it is activated, scripts included, and nothing is written to it."""
    prefix = made_elsewhere(environ, channel, folder / "theirs/env", "alpha")
    before = sorted(prefix.rglob("*"))
    write_rules(folder, {"alpha": str(prefix)}, "{name} > {{output}}")
    succeed(folder, environ, "--hpcburst-mode", mode)
    said = (folder / "alpha.txt").read_text()
    assert said == f"alpha of {prefix} says hello-alpha\n"
    assert sorted(prefix.rglob("*")) == before


@pytest.mark.parametrize("where", ["micromamba/envs", ".conda/envs", "elsewhere/envs"])
def test_an_env_is_found_by_its_name(folder, environ, channel, where):
    """A rule may name an env of conda or micromamba; neither program is needed."""
    prefix = Path(environ["HOME"]) / where / "science"
    made_elsewhere(environ, channel, prefix, "alpha")
    if where.startswith("elsewhere"):
        (Path(environ["HOME"]) / ".conda").mkdir()
        (Path(environ["HOME"]) / ".conda/environments.txt").write_text(f"{prefix}\n")
    write_rules(folder, {"alpha": "science"}, "{name} > {{output}}")
    succeed(folder, environ)
    assert (folder / "alpha.txt").read_text() == f"alpha of {prefix} says hello-alpha\n"


def test_a_name_nobody_has_stops_the_rule(folder, environ, channel):
    """The rule does not run in some other env; the answer lists the names that there are."""
    made_elsewhere(environ, channel, Path(environ["HOME"]) / ".conda/envs/science", "alpha")
    write_rules(folder, {"alpha": "sience"}, "touch {{output}}")
    ran = snakemake(folder, environ)
    assert ran.returncode == 1
    assert not (folder / "alpha.txt").exists()
    assert "sience" in ran.stdout
    assert "science" in ran.stdout


@pytest.mark.channel
def test_scripts_run_in_a_named_env(folder, environ, channel_url):
    """A Python script of a rule with a named env runs with that env's Python."""
    prefix = Path(environ["HOME"]) / ".conda/envs/science"
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    made_elsewhere(environ, channel_url, prefix, f"python {minor}.*")
    (folder / "look.py").write_text(
        "import sys\nwith open(snakemake.output[0], 'w') as file: file.write(sys.prefix)\n"
    )
    (folder / "Snakefile").write_text(
        'rule look:\n    output: "look.txt"\n    conda: "science"\n    script: "look.py"\n'
    )
    succeed(folder, environ)
    assert (folder / "look.txt").read_text() == str(prefix)


def test_listing_making_only_and_cleaning_up(folder, environ, channel):
    """--list-conda-envs, --conda-create-envs-only, --conda-cleanup-envs do what they say."""
    env_file(folder, "a", channel, "alpha")
    write_rules(folder, {"alpha": "a.yaml"}, "{name} > {{output}}")
    assert not flag_files(folder)
    listed = succeed(folder, environ, "--list-conda-envs")
    assert re.search(r"a\.yaml\t\t\.snakemake/conda/\w+_", listed)
    assert not flag_files(folder)
    succeed(folder, environ, "--conda-create-envs-only", "--conda-cleanup-pkgs", "tarballs")
    assert len(flag_files(folder)) == 1
    assert not (folder / "alpha.txt").exists()
    prefix = flag_files(folder)[0].with_suffix("")
    assert (prefix / "bin/alpha").exists()
    succeed(folder, environ, "--conda-cleanup-envs")
    assert not prefix.exists()
    ignored = succeed(folder, environ, "--conda-frontend", "mamba")
    assert "alpha of" in (folder / "alpha.txt").read_text()
    assert "mamba" in ignored


def test_a_dry_run_makes_nothing(folder, environ, channel):
    """--dry-run says which env would be made."""
    if 'args.executor = "dryrun"' in inspect.getsource(cli):
        pytest.skip("this Snakemake does not tell us of a dry run: without a conda it refuses")
    env_file(folder, "a", channel, "alpha")
    write_rules(folder, {"alpha": "a.yaml"}, "{name} > {{output}}")
    told = succeed(folder, environ, "--dry-run")
    assert "a.yaml will be created" in told
    assert not flag_files(folder)


def test_an_archive_holds_the_packages_and_needs_no_network(folder, environ, channel, tmp_path):
    """`snakemake --archive` keeps the packages; unpacked elsewhere, envs are made of them alone."""
    with serving(channel) as web:
        env_file(folder, "a", web.url, "alpha")
        write_rules(folder, {"alpha": "a.yaml"}, "{name} > {{output}}")
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        for argv in (["init", "-q"], ["add", "Snakefile", "a.yaml"], ["commit", "-qm", "all"]):
            subprocess.run([*git, *argv], cwd=folder, env=environ, check=True)
        succeed(folder, environ, "--archive", "all.tar.gz")
    with tarfile.open(folder / "all.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    moved = {**environ, "DASK_HPCBURST__SHARED_ROOT": str(tmp_path / "other")}
    told = succeed(tmp_path / "unpacked", moved)
    assert "Installing archived conda packages" in told
    assert "alpha of" in (tmp_path / "unpacked/alpha.txt").read_text()


def old_conda(folder: Path, version: str) -> str:
    """A PATH entry with a conda of that version, which notes what it is asked."""
    folder.mkdir()
    (folder / "conda").write_text(
        f'#!/bin/sh\necho "$*" >> {folder}/asked\n[ "$1" = --version ] && echo conda {version}\n'
    )
    (folder / "conda").chmod(0o755)
    return str(folder)


def test_an_old_conda_is_passed_over_with_a_word(folder, environ, mode, channel, tmp_path):
    """A conda older than Snakemake needs is asked for its version, once, and not used."""
    real = old_conda(tmp_path / "old", "23.1.0")
    env_file(folder, "a", channel, "alpha")
    write_rules(folder, {"alpha": "a.yaml"}, "{name} > {{output}}")
    told = succeed(
        folder, {**environ, "PATH": f"{real}:{environ['PATH']}"}, "--hpcburst-mode", mode
    )
    assert told.count("conda 23.1.0") == 1
    assert "older than 24.7.1" in told
    assert (tmp_path / "old/asked").read_text() == "--version\n"
    assert "alpha of" in (folder / "alpha.txt").read_text()


def test_a_conda_that_is_new_enough_is_used_unless_told_otherwise(
    folder, environ, channel, tmp_path
):
    """auto leaves envs to a conda from 24.7.1 on; `--hpcburst-conda rattler` does not ask it."""
    real = old_conda(tmp_path / "new", "24.7.1")
    environ = {**environ, "PATH": f"{real}:{environ['PATH']}"}
    env_file(folder, "a", channel, "alpha")
    write_rules(folder, {"alpha": "a.yaml"}, "{name} > {{output}}")
    ran = snakemake(folder, environ)
    assert ran.returncode == 1, "this conda can do nothing"
    assert "info --json" in (tmp_path / "new/asked").read_text()
    (tmp_path / "new/asked").unlink()
    succeed(folder, environ, "--hpcburst-conda", "rattler")
    assert not (tmp_path / "new/asked").exists()


def test_conda_itself_must_be_there_when_it_is_asked_for(folder, environ):
    """`--hpcburst-conda conda` without a conda is an answer before anything runs."""
    (folder / "Snakefile").write_text('rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n')
    ran = snakemake(folder, environ, "--hpcburst-conda", "conda")
    assert ran.returncode == 1
    assert "no conda on PATH" in ran.stdout
    assert "Traceback" not in ran.stdout


@pytest.fixture(params=["Environment Modules", "Lmod"])
def with_modules(request, tmp_path, environ) -> dict[str, str]:
    """The environment of a user of a module tool, who has a module `tool/1.0`."""
    tool = environment_modules() if request.param != "Lmod" else lmod(tmp_path)
    if tool is None:
        pytest.skip(f"{request.param} is not installed here")
    programs = tmp_path / "tool/bin"
    programs.mkdir(parents=True)
    (programs / "tool").write_text("#!/bin/sh\necho tool one\n")
    (programs / "tool").chmod(0o755)
    steps = [("prepend", "PATH", str(programs)), ("set", "TOOL_HOME", str(programs))]
    tool.write(tmp_path / "modulefiles", "tool/1.0", steps)
    begun = subprocess.run(
        ["bash", "-c", f". {tool.init}; module use {tmp_path}/modulefiles; env -0"],
        env={name: value for name, value in environ.items() if "MODULE" not in name},
        check=True,
        capture_output=True,
        text=True,
    )
    pairs = [pair.split("=", 1) for pair in begun.stdout.split("\0") if "=" in pair]
    return dict(pairs) | {"BASH_ENV": str(tool.init)}


def test_rules_load_environment_modules(folder, with_modules, mode):
    """`envmodules:` works as with any executor, in every mode."""
    (folder / "Snakefile").write_text(
        'rule a:\n    output: "a.txt"\n    envmodules: "tool/1.0"\n'
        '    shell: "tool > {output}; echo $TOOL_HOME >> {output}"\n'
    )
    succeed(folder, with_modules, "--hpcburst-mode", mode, sdm="env-modules")
    assert (folder / "a.txt").read_text().startswith("tool one\n/")


def test_modules_of_an_env_file_come_before_its_packages(folder, with_modules, channel):
    """`modules:` in an environment file: loaded first, the env's own programs win."""
    env_file(folder, "a", channel, "alpha", modules=["tool/1.0"])
    write_rules(
        folder,
        {"alpha": "a.yaml"},
        "tool > {{output}}; {name} >> {{output}}; "
        "echo $PATH | tr : '\\n' | grep -n -e /tool/bin -e _/bin >> {{output}}",
    )
    succeed(folder, with_modules)
    lines = (folder / "alpha.txt").read_text().splitlines()
    assert lines[0] == "tool one"
    assert lines[1].startswith("alpha of")
    assert lines[2].endswith("_/bin")
    assert lines[3].endswith("/tool/bin")


def test_the_standin_says_what_is_in_an_env(environ, channel, tmp_path):
    """`conda list`, `conda env export`, `conda env list` and `conda info` agree on a named env."""
    prefix = made_elsewhere(environ, channel, tmp_path / "home/.conda/envs/science", "alpha")
    conda = install_with(environ, tmp_path / "standin") / "conda"

    def answer(*argv: str) -> str:
        done = subprocess.run(
            [conda, *argv], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    link = f"{tmp_path}/standin/envs/science"
    assert Path(link).resolve() == prefix
    assert json.loads(answer("env", "list", "--json")) == {"envs": [link]}
    assert json.loads(answer("info", "--json"))["envs"] == [link]
    assert "science" in answer("env", "list")
    exported = yaml.safe_load(answer("env", "export", "--name", "science"))
    assert exported["dependencies"] == ["alpha=1.0=0"]
    url = archive_of(channel, "alpha").as_uri()
    assert answer("list", "--explicit", "--name", "science") == f"@EXPLICIT\n{url}\n"
    pinned = answer("list", "--explicit", "--md5", "--prefix", str(prefix))
    assert re.fullmatch(rf"@EXPLICIT\n{re.escape(url)}#[0-9a-f]{{32}}\n", pinned)
    assert "alpha" in answer("list", "--name", "science")


def install_with(environ, folder: Path) -> Path:
    """Install the stand-in as a user with that environment would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", environ["HOME"])
        return install_standin(folder)
