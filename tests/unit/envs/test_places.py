"""What a text means as an env: a path, one environment of a project, or a name conda knows."""

import os
import re
from pathlib import Path

import pytest

from hpcburst.envs.specs.places import Place, is_prefix, prefix_key, resolve_env
from hpcburst.errors import EnvError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder and working directory, and no trace of conda in the environment."""
    for name in list(os.environ):
        if name.startswith(("CONDA", "MAMBA", "_CONDA")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    return home


def prefix(path: Path) -> Path:
    (path / "conda-meta").mkdir(parents=True)
    return path


def register(home: Path, *prefixes: Path) -> None:
    listed = home / ".conda/environments.txt"
    listed.parent.mkdir(exist_ok=True)
    listed.write_text("".join(f"{path}\n" for path in prefixes))


def test_a_path_means_what_is_there(home, tmp_path):
    """A file, a prefix and a project are found in the folders given, then in the working one."""
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "env.yml").touch()
    Path("env.yml").touch()
    Path("other.yml").touch()
    (home / "mine.yml").touch()
    built = prefix(tmp_path / "built")
    assert resolve_env("env.yml", [flows]) == Place(flows / "env.yml")
    assert resolve_env("env.yml") == Place(Path.cwd() / "env.yml")
    assert resolve_env("other.yml", [flows]) == Place(Path.cwd() / "other.yml")
    assert resolve_env("~/mine.yml") == Place(home / "mine.yml")
    assert resolve_env(str(built)) == Place(built)
    assert resolve_env(Path("other.yml")) == Place(Path.cwd() / "other.yml")


def test_a_hash_names_an_environment_of_a_project(home):
    """`PATH#gpu` is the environment gpu; a file with `#` in its name stays that file."""
    project = Path.cwd() / "study"
    project.mkdir()
    (project / "pixi.toml").touch()
    assert resolve_env("study#gpu") == Place(project, "gpu")
    assert resolve_env("study/pixi.toml#gpu") == Place(project / "pixi.toml", "gpu")
    assert str(resolve_env("study#gpu")) == f"{project}#gpu"
    assert resolve_env(str(resolve_env("study#gpu"))) == Place(project, "gpu")
    assert str(resolve_env("study")) == str(project)
    Path("odd#gpu").touch()
    Path("odd").touch()
    assert resolve_env("odd#gpu") == Place(Path.cwd() / "odd#gpu")
    with pytest.raises(EnvError, match="Leave out `#gpu`"):
        resolve_env(f"{prefix(Path.cwd() / 'built')}#gpu")


def test_the_files_that_decide_are_known(home):
    """A change of manifest or lock is a change of the env; a built env has no such files."""
    project = Path.cwd() / "study"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(EnvError, match="neither packages"):
        resolve_env("study")
    (project / "pyproject.toml").write_text("[tool.pixi.workspace]\n")
    assert resolve_env("study").files == (project / "pyproject.toml",)
    (project / "pixi.lock").touch()
    assert resolve_env("study#x").files == (project / "pyproject.toml", project / "pixi.lock")
    (project / "pixi.toml").touch()
    assert resolve_env("study").files == (project / "pixi.toml", project / "pixi.lock")
    assert resolve_env("study/pixi.lock").files == (project / "pixi.lock",)
    built = resolve_env(prefix(Path.cwd() / "built"))
    assert (built.files, built.is_prefix) == ((), True)


def test_a_name_is_found_wherever_conda_and_its_kin_keep_envs(home, tmp_path, monkeypatch):
    """Lists, configs, variables and usual folders all count; no conda command is run."""
    listed = prefix(tmp_path / "elsewhere/listed")
    register(home, tmp_path / "gone", listed, Path("relative"), Path("/odd\x1b[31m"))
    monkeypatch.setenv("CONDA_ENVS_DIRS", f"{tmp_path}/dirs1:{tmp_path}/dirs2")
    monkeypatch.setenv("SHARED", str(tmp_path / "shared"))
    (home / ".condarc").write_text("channels: [x]\nenvs_dirs:\n  - $SHARED/envs\n  - ~/own\n")
    (home / ".mambarc").write_text(f"envs_dirs: [{tmp_path}/mamba]\n")
    monkeypatch.setenv("MAMBA_ROOT_PREFIX", str(tmp_path / "micro"))
    monkeypatch.setenv("CONDA_EXE", str(tmp_path / "site/bin/conda"))
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "active/envs/now"))
    found = {
        "listed": listed,
        "second": prefix(tmp_path / "dirs2/second"),
        "condarc": prefix(tmp_path / "shared/envs/condarc"),
        "own": prefix(home / "own/own"),
        "mamba": prefix(tmp_path / "mamba/mamba"),
        "micro": prefix(tmp_path / "micro/envs/micro"),
        "site": prefix(tmp_path / "site/envs/site"),
        "now": prefix(tmp_path / "active/envs/now"),
        "dotconda": prefix(home / ".conda/envs/dotconda"),
        "forge": prefix(home / "miniforge3/envs/forge"),
    }
    for name, path in found.items():
        assert resolve_env(name) == Place(path)
        assert resolve_env(name).is_prefix
    prefix(tmp_path / "site")
    assert resolve_env("base") == Place(tmp_path / "site")


def test_a_path_comes_before_a_name(home):
    """What lies in the working directory is meant first; a folder that is no env is passed over."""
    named = prefix(home / "miniconda3/envs/stats")
    Path("stats").mkdir()
    assert resolve_env("stats") == Place(named), "a plain folder is not an env"
    prefix(Path.cwd() / "stats")
    assert resolve_env("stats") == Place(Path.cwd() / "stats")
    with pytest.raises(EnvError, match="no such file or folder"):
        resolve_env("./stats2")


def test_one_env_by_two_ways_is_one(home, tmp_path):
    """A link to an env, and its line in conda's list, are that env; two envs are an answer."""
    real = prefix(home / "miniconda3/envs/stats")
    link = tmp_path / "fast/stats"
    link.parent.mkdir()
    link.symlink_to(real)
    register(home, real, link)
    assert resolve_env("stats").path.resolve() == real
    other = prefix(home / ".conda/envs/stats")
    with pytest.raises(EnvError, match="2 of that name") as caught:
        resolve_env("stats")
    assert str(other) in str(caught.value)
    assert re.search(f"{real}|{link}", str(caught.value))


def test_nothing_found_tells_what_was_tried_and_what_is_near(home, tmp_path):
    """The answer lists the places, and the names that are nearly the one asked for."""
    prefix(home / "miniconda3/envs/statistics")
    prefix(home / "miniconda3/envs/genomes")
    with pytest.raises(EnvError) as caught:
        resolve_env("statistic", [tmp_path / "flows"])
    said = str(caught.value)
    assert f"{tmp_path}/flows/statistic" in said
    assert f"{Path.cwd()}/statistic" in said
    assert "Did you mean statistics?" in said
    with pytest.raises(EnvError, match="known names: genomes, statistics"):
        resolve_env("zzz")
    with pytest.raises(EnvError) as caught:
        resolve_env("envs/none.yml")
    assert "genomes" not in str(caught.value), "a path is not taken for a name"


@pytest.mark.parametrize(
    "text", ["", "  ", "a\0b", "a\nb", "\x1b[31m", "#", "#x", "~nobody-here/x"]
)
def test_what_is_no_name_is_refused(home, text):
    """Any text is a place or an answer."""
    with pytest.raises(EnvError):
        resolve_env(text)


def test_broken_lists_and_configs_are_passed_over(home):
    """A conda config that cannot be read does not hide an env that is there."""
    (home / ".conda").mkdir()
    (home / ".conda/environments.txt").write_bytes(b"\xff\xfe/\x00\n")
    (home / ".condarc").write_text("envs_dirs: [[[[")
    (home / ".mambarc").write_text("envs_dirs: {a: 3}")
    found = prefix(home / ".conda/envs/stats")
    assert resolve_env("stats") == Place(found)


def test_a_prefix_has_a_key_that_follows_its_packages(tmp_path):
    """An env that others built gets another key when a package comes or goes."""
    path = prefix(tmp_path / "env")
    assert is_prefix(path)
    before = prefix_key(path)
    (path / "conda-meta/a-1-0.json").write_text("{}")
    assert prefix_key(path) != before
    assert not is_prefix(tmp_path)
