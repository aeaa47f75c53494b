"""Environment files: what is taken, and what is refused and how."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.specs.entries import check_dependency, check_requirement, redact
from hpcburst.envs.specs.reading import read_spec
from hpcburst.envs.specs.spec import DEFAULTS, Archive, EnvSpec
from hpcburst.errors import EnvError

names = st.from_regex(r"[a-z_][a-z0-9_.\-]{0,12}", fullmatch=True)
numbers = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}(\.\*)?", fullmatch=True)
operators = st.sampled_from([">=", "<=", "==", "!=", "<", ">", "~=", "="])
constraints = st.builds(lambda o, v: o + v.removesuffix(".*"), operators, numbers)
versions = st.lists(constraints, min_size=1, max_size=3).map(",".join)
dependencies = st.one_of(names, st.builds("{} {}".format, names, st.one_of(versions, numbers)))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "environment.yml"
    path.write_text(text)
    return path


def test_a_usual_file_is_read_as_written(tmp_path):
    """Channels, packages, pip requirements and variables of a usual file are all taken."""
    text = """
name: stats
prefix: /somewhere
channels: [bioconda, nodefaults, conda-forge]
dependencies:
  - python 3.12.*
  - numpy>=1.26,  <3
  - pip
  - pip:
      - requests>=2.31
      - --extra-index-url https://pypi.example.org/simple
variables: {OMP_NUM_THREADS: 1, GREETING: "a $HOME `x`"}
"""
    spec = read_spec(written(tmp_path, text))
    assert spec.channels == ("bioconda", "conda-forge")
    assert spec.conda == ("python 3.12.*", "numpy>=1.26, <3", "pip")
    assert spec.pip == (
        "requests>=2.31",
        "--extra-index-url https://pypi.example.org/simple",
    )
    assert spec.variables == {"OMP_NUM_THREADS": "1", "GREETING": "a $HOME `x`"}


@pytest.mark.parametrize(
    "entry",
    [
        "python", "python 3.12.*", "numpy>=1.2,<2", "numpy = 1.2", "numpy=1.2=py_0", "r-base=4.3.*",
        "conda-forge::numpy=1.2", "numpy 1.2 py_0", "numpy[version='>=1']", "foo (>=2)", "a 1|2",
        "pytorch 2.* *cuda*", "python=3.11=*_cpython", "a ~=1.2", "_libgcc_mutex", "a !=1.2",
        "https://host/chan/linux-64/a-1-0.conda", "file:///chan::tool", "pkg =main",
    ],
)  # fmt: skip
def test_what_conda_takes_is_taken(entry):
    """The forms people write in environment files are accepted."""
    assert check_dependency(entry) == ""


@pytest.mark.parametrize(
    "entry",
    [
        "", "pkg with space 1", "a b c", "pkg@", "pkg;rm", "x*", "*", "pkg=", "pkg>", "a >=", "~=1",
        "./foo.conda", "black[jupyter]", "numpy latest", "pkg 1.0 py_0 extra", "pkg $(id)",
        "-r requirements.txt",
    ],
)  # fmt: skip
def test_rubbish_is_refused_with_the_file_and_the_entry(tmp_path, entry):
    """An entry that is no package and versions is refused by name, never guessed at."""
    path = tmp_path / "odd.yml"
    path.write_text(f"dependencies:\n  - python\n  - {entry!r}\n")
    with pytest.raises(EnvError) as caught:
        read_spec(path)
    assert "odd.yml" in str(caught.value)
    assert repr(entry)[:10] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dependencies: [python: 3.12]", "is not text"),
        ("dependencies: [3.12]", "is not text"),
        ("dependencies: []", "lists no dependencies"),
        ("channels: [a]", "lists no dependencies"),
        ("channels: a\ndependencies: [python]", "`channels` is not a list"),
        ("channels: ['a b']\ndependencies: [python]", "neither a name nor a URL"),
        ("dependencys: [python]\ndependencies: [python]", "'dependencys'"),
        ("dependencies: [python]\nvariables: {A: on}", "Put its value in quotes"),
        ("dependencies: [python]\nvariables: {'A B': x}", "cannot name a variable"),
        ("dependencies: [python, pip: [-r more.txt]]", "names another file"),
        ("dependencies: [python, pip: [-e .]]", "names another file"),
        ("dependencies: [python, pip: requests]", "`pip` is not a list"),
        ("- python", "is not a list of names and values"),
        ("a: [", "not YAML (line "),
    ],
)
def test_a_wrong_file_is_answered_in_words(tmp_path, text, said):
    """Whatever is wrong with a file, the answer names the file and the trouble."""
    path = written(tmp_path, text)
    with pytest.raises(EnvError, match=re.escape(said)) as caught:
        read_spec(path)
    assert str(path) in str(caught.value)


def test_an_unknown_key_is_answered_with_the_known_ones(tmp_path):
    """A misspelt key at the top is refused, and the known keys are listed."""
    with pytest.raises(EnvError, match="name, channels, dependencies, variables, modules, prefix"):
        read_spec(written(tmp_path, "channel: [a]\ndependencies: [python]"))


def test_a_missing_or_binary_file_is_an_env_error(tmp_path):
    """A file that cannot be read is the env's error, not a Python traceback."""
    with pytest.raises(EnvError, match="No such file"):
        read_spec(tmp_path / "none.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EnvError, match="UTF-8"):
        read_spec(tmp_path / "binary.yml")


def test_a_file_without_channels_gets_the_sites(tmp_path):
    """The site's channels stand in where the file names none."""
    path = written(tmp_path, "dependencies: [python]")
    assert read_spec(path).channels == ("conda-forge",)
    assert read_spec(path, channels=["lab", "bioconda"]).channels == ("lab", "bioconda")


def test_a_mirror_replaces_a_channel_wherever_it_is_named(tmp_path):
    """A mirrored channel is asked at its mirror, also when named by URL or before a package."""
    text = """
channels: [conda-forge, https://conda.anaconda.org/bioconda/, defaults]
dependencies: [python, "conda-forge::numpy 2.*"]
"""
    mirror = {"conda-forge": "file:///m/cf", "bioconda": "https://m/bio"}
    spec = read_spec(written(tmp_path, text), mirror=mirror)
    assert spec.channels == ("file:///m/cf", "https://m/bio", *DEFAULTS)
    assert spec.conda == ("python", "file:///m/cf::numpy 2.*")


def test_a_channel_named_only_before_a_package_is_searched(tmp_path):
    """`channel::package` is found though `channels` does not list the channel; it comes last."""
    text = "channels: [a]\ndependencies: ['b::tool 1.*']"
    assert read_spec(written(tmp_path, text)).channels == ("a", "b")


def test_a_local_channel_is_taken_relative_to_its_file(tmp_path):
    """A channel `./channel` lies beside the file that names it, wherever one stands."""
    spec = read_spec(written(tmp_path, "channels: [./channel]\ndependencies: [python]"))
    assert spec.channels == ((tmp_path / "channel").as_uri(),)


def test_an_explicit_list_is_read_as_archives(tmp_path):
    """A list headed by @EXPLICIT is taken as it is, fetched from mirrors where there are some."""
    path = tmp_path / "pin.txt"
    path.write_text(
        "# platform: linux-64\n@EXPLICIT\n"
        f"https://conda.anaconda.org/conda-forge/noarch/a-1.0-0.conda#{'0' * 32}\n"
    )
    spec = read_spec(path, mirror={"conda-forge": "file:///m/"})
    assert spec.explicit == (Archive("file:///m/noarch/a-1.0-0.conda", md5="0" * 32),)
    path.write_text("@EXPLICIT\nnumpy\n")
    with pytest.raises(EnvError, match="not the URL of a conda archive"):
        read_spec(path)


@given(dependencies)
def test_every_regular_dependency_is_taken(entry):
    """A name with versions in conda's notation is never refused."""
    assert check_dependency(entry) == ""


@given(st.text(max_size=40))
def test_nothing_accepted_has_more_than_three_words(text):
    """What is accepted has a plain name and at most a version and a build behind it."""
    entry = " ".join(text.split())
    if check_dependency(entry) == "":
        assert re.match(r"[A-Za-z0-9_.\-:/]", entry)
        assert len(re.sub(r"\s*([,|()=<>!~])\s*", r"\1", entry.partition("[")[0]).split()) <= 3


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        ("requests", True), ("requests[socks]>=2; python_version>'3.8'", True),
        ("a @ https://x/a.whl", True),
        ("--index-url https://x/simple", True), ("--no-index", True), ("a==1.0,!=1.1", True),
        ("-r more.txt", False), ("--requirement=x", False), ("./local", False), ("a b", False),
        ("--target /etc", False), ("a\nb", False), ("", False),
    ],
)  # fmt: skip
def test_pip_requirements_are_checked_one_by_one(entry, taken):
    """Requirements and index options are taken; files and options that write elsewhere are not."""
    assert (check_requirement(entry) == "") == taken


def test_secrets_in_urls_do_not_reach_messages(tmp_path):
    """A password or token in a channel's URL is blotted out of every message."""
    url = "https://me:pass@host/t/tk-123/chan"
    assert redact(url) == "https://***@host/t/***/chan"
    assert redact("https://h/c?x=1&api_key=k-1#f") == "https://h/c?x=1&api_key=***#f"
    assert EnvSpec(channels=(url,)).holds_secrets
    assert not EnvSpec(channels=("https://host/chan",)).holds_secrets
    with pytest.raises(EnvError) as caught:
        read_spec(written(tmp_path, f"channels: ['{url} x']\ndependencies: [python]"))
    assert "pass@" not in str(caught.value)
