"""What conda's tools are asked and what they answer, as text: no tool is run."""

import os
import re
import tomllib

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.building.builders import running
from hpcburst.envs.building.builders.conda import chosen, explicit_list
from hpcburst.envs.building.builders.pixi import manifest, merged, read_dependency
from hpcburst.envs.building.builders.running import environ_for, no_solution, run_tool
from hpcburst.envs.building.finish import asked_names, modules_of
from hpcburst.envs.building.pip_section import index_settings, pins
from hpcburst.envs.building.relocate import moved_text
from hpcburst.envs.building.solve import Machine, Package
from hpcburst.envs.specs.spec import Archive, EnvSpec
from hpcburst.errors import EnvError
from support.processes import wait_until

MACHINE = Machine("linux-64", ("__unix=0=0", "__glibc=2.36=0", "__cuda=12.4=0"))

CONDA = {
    "base_url": "https://conda.anaconda.org/conda-forge",
    "build_number": 0,
    "build_string": "h1_0",
    "channel": "conda-forge",
    "dist_name": "zlib-1.3-h1_0",
    "name": "zlib",
    "platform": "linux-64",
    "version": "1.3",
}
RECORD = {
    "name": "zlib",
    "version": "1.3",
    "build": "h1_0",
    "build_number": 0,
    "url": "https://conda.anaconda.org/conda-forge/linux-64/zlib-1.3-h1_0.conda",
    "md5": "0" * 32,
    "sha256": "1" * 64,
    "depends": ["libzlib 1.3"],
}


@pytest.mark.parametrize(
    "actions",
    [
        {"FETCH": [RECORD], "LINK": [CONDA], "PREFIX": "/env"},
        [{"FETCH": [RECORD]}, {"LINK": [CONDA]}],
        {"FETCH": [], "LINK": [RECORD]},
        {"FETCH": [RECORD], "LINK": [RECORD]},
    ],
    ids=["conda", "conda 4.3", "micromamba, nothing to fetch", "micromamba"],
)
def test_every_shape_of_answer_names_the_archives(actions):
    """Conda's and micromamba's dry runs are read into the same exact archives."""
    (row,) = chosen({"actions": actions, "success": True})
    assert row["url"] == RECORD["url"]
    assert row["sha256"] == RECORD["sha256"]


def test_what_is_fetched_for_others_is_not_chosen():
    """Only what would be linked is part of the env."""
    other = {**RECORD, "name": "other"}
    assert [row["name"] for row in chosen({"actions": {"FETCH": [other], "LINK": [CONDA]}})] == [
        "zlib"
    ]
    assert chosen({"success": True}) == []


def test_an_explicit_list_is_one_all_tools_read():
    """The head line, then one URL a line with its MD5 digest, which all versions check."""
    text = explicit_list([RECORD, {"url": "file:///c/noarch/x-1-0.conda", "md5": ""}])
    assert text.splitlines() == [
        "@EXPLICIT",
        f"{RECORD['url']}#{'0' * 32}",
        "file:///c/noarch/x-1-0.conda",
    ]


@pytest.mark.parametrize(
    ("text", "name", "fields"),
    [
        ("numpy", "numpy", {"version": "*"}),
        ("numpy >=1.26, <3", "numpy", {"version": ">=1.26,<3"}),
        ("Python 3.12.*", "python", {"version": "3.12.*"}),
        ("python=3.12", "python", {"version": "3.12.*"}),
        ("python==3.12.1", "python", {"version": "==3.12.1"}),
        ("python=3.12=*_cpython", "python", {"version": "3.12", "build": "*_cpython"}),
        ("pkg 1.0 py_0", "pkg", {"version": "1.0", "build": "py_0"}),
        ("blas[build=*mkl]", "blas", {"version": "*", "build": "*mkl"}),
        ('blas[version=">=2,<3", channel=c]', "blas", {"version": ">=2,<3", "channel": "c"}),
        ("https://h/c::pkg 1.*", "pkg", {"version": "1.*", "channel": "https://h/c"}),
        (
            "https://h/c/noarch/a-b-1.0-py_0.conda#ab",
            "a-b",
            {"url": "https://h/c/noarch/a-b-1.0-py_0.conda"},
        ),
    ],
)
def test_dependencies_mean_the_same_to_pixi(text, name, fields):
    """Each way to write a dependency becomes the table that pixi has for it."""
    assert read_dependency(text) == (name, fields)


def test_what_is_asked_for_twice_satisfies_both():
    """Two lines for one package are one requirement, as they are for conda."""
    found = merged([read_dependency("numpy >=2"), read_dependency("numpy <3 py311_0")])
    assert found == {"numpy": {"version": ">=2,<3", "build": "py311_0"}}


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)))
def test_a_manifest_is_toml_whatever_the_channels_are_called(channels):
    """Names and URLs are data in a manifest: none of them can change its meaning."""
    found = tomllib.loads(manifest(channels, ["numpy >=2"], MACHINE))
    assert found["workspace"]["channels"] == channels
    assert found["dependencies"] == {"numpy": {"version": ">=2"}}


def test_a_manifest_asks_for_this_machine():
    """Pixi solves for the machine of the key: its kind, its libc, its GPU driver."""
    found = tomllib.loads(manifest(["conda-forge"], [], MACHINE))
    assert found["workspace"]["platforms"] == ["linux-64"]
    assert found["workspace"]["channel-priority"] == "strict"
    assert found["system-requirements"] == {
        "libc": {"family": "glibc", "version": "2.36"},
        "cuda": "12.4",
    }


def test_a_tool_keeps_the_users_settings_and_loses_the_active_env():
    """Proxies and certificates reach a tool; another Python or an active env do not."""
    kept = {
        "HTTPS_PROXY": "p",
        "CONDARC": "/c",
        "CONDA_SSL_VERIFY": "/ca",
        "MAMBA_ROOT_PREFIX": "/m",
    }
    lost = dict.fromkeys(
        ["PYTHONPATH", "CONDA_PREFIX_1", "CONDA_SUBDIR", "PIXI_PROJECT_ROOT", "MAMBA_CHANNELS"], "x"
    )
    assert environ_for({**kept, **lost}, {"CONDA_REPORT_ERRORS": "false"}) == {
        **kept,
        "CONDA_REPORT_ERRORS": "false",
    }


@pytest.mark.parametrize(
    ("text", "todo"),
    [
        ("PackagesNotFoundError: The following packages are not available: x", "check the name"),
        ("nothing provides requested nosuch 1.*", "check the name"),
        ("LibMambaUnsatisfiableError: Encountered problems", "loosen one of the versions"),
        ("The following packages are incompatible", "loosen one of the versions"),
        ("CondaHTTPError: HTTP 000 CONNECTION FAILED", "see what conda says"),
    ],
)
def test_refusals_say_what_to_do(text, todo):
    """What a tool says decides what its reader is advised to do."""
    error = no_solution("conda", f"{text}\nhttps://me:s3cret@host/t/tok/c", "environment.yml")
    assert todo in error.todo
    assert text.lower() in str(error).lower()
    assert "s3cret" not in str(error)
    assert "tok/" not in str(error)


def test_long_refusals_are_cut():
    """A solver's explanation of a thousand lines does not flood a log."""
    error = no_solution("mamba", "\n".join(map(str, range(1000))), "environment.yml")
    assert len(str(error).splitlines()) < 40
    assert "and 970 more lines" in str(error)


def test_a_full_disk_is_not_taken_for_a_conflict():
    """A tool that ran out of room raises what the operating system said."""
    with pytest.raises(OSError, match="disk is full"):
        no_solution("conda", "OSError: [Errno 28] No space left on device", "environment.yml")


def test_a_tool_that_hangs_is_ended_with_all_its_children(monkeypatch, tmp_path):
    """A tool that takes half a day is an answer, and nothing of it runs on."""
    script = tmp_path / "conda"
    script.write_text("#!/bin/sh\nsleep 600 &\necho $! >child\nwait\n")
    script.chmod(0o755)
    monkeypatch.setattr(running, "LIMIT_S", 0.5)
    with pytest.raises(EnvError, match="stopped after"):
        run_tool([script, "create"], os.environ, cwd=tmp_path)
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not _runs(child), "the tool's child lives on")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_pins_are_what_uv_would_install():
    """Versions, URLs and commits are kept as uv chose them; what is removed is no pin."""
    plan = (
        "Would install 3 packages\n - old==1.0\n + six==1.17.0\n"
        " + tool==2.0 (from git+https://host/tool@0123abc)\n"
        " + secret==3.0 (from https://me:****@host/secret.whl)\n"
    )
    asked = ["six", "secret @ https://me:pw@host/secret.whl", "--no-index"]
    assert pins(plan, asked) == [
        "six==1.17.0",
        "tool @ git+https://host/tool@0123abc",
        "secret @ https://me:pw@host/secret.whl",
    ]


def test_indexes_go_by_variables_and_other_options_by_words():
    """The URL of an index may hold a password, so it is never a word of a command."""
    lines = [
        "-i https://me:pw@host/a",
        "--extra-index-url=https://b",
        "--extra-index-url https://c",
    ]
    lines += ["--find-links /d", "-f /e", "--no-binary tiny", "--no-index", "six"]
    words, variables = index_settings(lines)
    assert words == ["--no-binary", "tiny", "--no-index"]
    assert variables == {
        "UV_DEFAULT_INDEX": "https://me:pw@host/a",
        "UV_INDEX": "https://b https://c",
        "UV_FIND_LINKS": "/d,/e",
    }


def test_only_what_was_asked_for_is_tried():
    """The packages a file names are imported, not the hundreds that came with them."""
    spec = EnvSpec(conda=("python 3.12.*", "c::NumPy >=2"), pip=("tiny[x]>=1", "-f /d"))
    assert asked_names(spec) == ("numpy", "tiny")
    needed = Archive("https://h/c/linux-64/libz-1-0.conda", depends=("libc",))
    root = Archive("https://h/c/noarch/my-app-1.0-py_0.conda", depends=("libz >=1", "python"))
    assert asked_names(EnvSpec(explicit=(needed, root))) == ("my-app",)
    assert asked_names(EnvSpec(explicit=(Archive("https://h/c/noarch/x-1-0.conda"),))) == ()


def test_modules_are_found_by_the_packages_own_account(tmp_path):
    """A package is imported under its module's name, which may be another than its own."""
    for info, record in (
        ("PyYAML-6.0", "yaml/__init__.py,,\n_yaml/__init__.py,,\n"),
        ("none-1", ""),
    ):
        (tmp_path / f"{info}.dist-info").mkdir()
        (tmp_path / f"{info}.dist-info/RECORD").write_text(record)
    for module in ("yaml", "_yaml", "bare"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").touch()
    assert modules_of(["pyyaml", "bare", "none", "absent"], tmp_path) == ["yaml", "bare"]


def test_archives_name_their_packages():
    """Name, version and build of an archive are in the name of its file."""
    package = Package.from_archive(Archive("https://h/c/linux-64/a-b-1!2.0%2Bx-h1_0.tar.bz2"))
    assert (package.name, package.version, package.build) == ("a-b", "1!2.0+x", "h1_0")


PATHS = st.from_regex(r"/[a-z./]{1,30}", fullmatch=True)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=5), PATHS, PATHS)
def test_a_binary_file_never_changes_its_length(parts, old, new):
    """Whatever is in a binary file, what follows a path stays where it was."""
    new = new[: len(old)]
    data = b"\0".join([b"", *(part + old.encode() for part in parts), b""])
    moved = moved_text(data, old.encode(), new.encode())
    assert len(moved) == len(data)
    assert re.sub(rb"\0+", b"\0", moved).count(b"\0") <= data.count(b"\0")
