"""The local channel: what wheels state, conda understands; nothing foreign is touched."""

import json
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.building.channels import channel_answers
from hpcburst.errors import EnvError
from hpcburst_recipes.channel import FoundPython, build_channel, find_pythons
from hpcburst_recipes.channel.archive import PLACEHOLDER_LENGTH, Package, new_stage, pack
from hpcburst_recipes.channel.metadata import (
    conda_name,
    depends_of,
    destination,
    entry_points_of,
    glibc_of,
    python_pin,
    read_metadata,
)
from hpcburst_recipes.channel.publish import publish, write_stamp

PYTHON = FoundPython("3.12.1", "/bin/sh", "/nowhere", "/nowhere/lib", (), ())


def test_a_requirement_holds_only_for_the_pythons_its_marker_names():
    """A dependency for old Pythons does not get into the env of a new one."""
    lines = ['tomli>=1.1; python_version < "3.11"', "numpy<3,>=1.23"]
    assert depends_of(lines, "3.12.1") == ("numpy <3,>=1.23",)
    assert depends_of(lines, "3.9.18") == ("tomli >=1.1", "numpy <3,>=1.23")


def test_what_is_wanted_only_with_an_extra_is_left_out():
    """Asking for a package does not bring its optional dependencies."""
    assert depends_of(['pytest; extra == "test"', "six"], "3.12.1") == ("six",)


def test_dependencies_carry_the_names_conda_forge_gives_them():
    """One environment file works with the local channel and with conda-forge."""
    assert depends_of(["matplotlib", "Python_Dateutil>=2.7"], "3.12.1") == (
        "matplotlib-base",
        "python-dateutil >=2.7",
    )


@given(st.text(alphabet="abcXYZ019-_.", min_size=1).filter(lambda text: text[0].isalnum()))
def test_all_spellings_of_a_project_are_one_conda_name(project):
    """A package is found however its name was written."""
    name = conda_name(project)
    assert name == conda_name(project.upper()) == conda_name(name)
    assert name == name.lower()
    assert not {"_", "."} & set(name)


@given(
    st.lists(st.sampled_from([">=1", "<3", "!=1.5.*", "~=1.4", "==2.*", "==1.2.3"]), max_size=3),
    st.sampled_from(["3.9.1", "3.12.1"]),
)
def test_every_version_limit_is_one_that_the_solver_reads(limits, version):
    """No wheel makes a channel that cannot be solved with."""
    from rattler import MatchSpec

    for spec in depends_of([f"thing{','.join(limits)}"], version):
        assert MatchSpec(spec, strict=True).name.normalized == "thing"
    assert MatchSpec(python_pin(version.rpartition(".")[0]), strict=True)


def test_metadata_of_a_wheel_is_read():
    """Name, version, requirements and licence arrive; a licence's full text does not."""
    text = "Metadata-Version: 2.1\nName: Toy_Lib\nVersion: 1.0\nLicense: MIT\n  and all its text\n"
    facts = read_metadata(text + "Requires-Dist: six>=1\nRequires-Dist: numpy\n\nLong words.\n")
    assert (facts.name, facts.version, facts.license) == ("toy-lib", "1.0", "MIT")
    assert facts.requires == ("six>=1", "numpy")


@pytest.mark.parametrize(
    ("filename", "glibc"),
    [
        ("numpy-2-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", "2.27"),
        ("thing-1-cp39-abi3-manylinux2014_x86_64.whl", "2.17"),
        ("pure-1-py3-none-any.whl", None),
    ],
)
def test_a_wheel_asks_for_no_newer_c_library_than_it_needs(filename, glibc):
    """Old nodes are refused only what cannot run there."""
    assert glibc_of(filename) == glibc


@pytest.mark.parametrize(
    ("member", "place"),
    [
        ("toy/__init__.py", "lib/python3.12/site-packages/toy/__init__.py"),
        ("toy/tests/test_a.py", None),
        ("tests.py", "lib/python3.12/site-packages/tests.py"),
        ("toy-1.data/purelib/extra.py", "lib/python3.12/site-packages/extra.py"),
        ("toy-1.data/scripts/toy", "bin/toy"),
        ("toy-1.data/data/share/toy.txt", "share/toy.txt"),
        ("toy-1.data/headers/toy.h", None),
        ("../../etc/passwd", None),
        ("/etc/passwd", None),
    ],
)
def test_members_of_a_wheel_go_where_an_installer_puts_them(member, place):
    """Packages, scripts and data end up in their places, and nothing outside of the prefix."""
    assert destination(member, "3.12") == place


def test_console_scripts_are_found():
    """The commands a wheel brings are commands in the env."""
    (entry,) = entry_points_of(
        "[console_scripts]\nToy = toy.cli:app.run [fast]\n[other]\nx = y:z\n"
    )
    assert (entry.command, entry.module, entry.function) == ("Toy", "toy.cli", "app.run")
    assert entry_points_of("") == ()


def test_a_packed_file_that_names_its_prefix_is_marked_for_rewriting(tmp_path):
    """A script installed anywhere finds its own env; files without the prefix are left alone."""
    stage = new_stage(tmp_path, "p")
    assert len(str(stage)) == PLACEHOLDER_LENGTH
    (stage / "bin").mkdir()
    (stage / "bin/tool").write_text(f"#!/bin/sh\necho {stage}\n")
    (stage / "plain").write_text("plain")
    (stage / "link").symlink_to("plain")
    archive = pack(Package("tool", "1", "0"), stage, tmp_path)
    rows = {row["_path"]: row for row in _member(archive, "info", "info/paths.json")["paths"]}
    assert rows["bin/tool"]["prefix_placeholder"] == str(stage)
    assert rows["bin/tool"]["file_mode"] == "text"
    assert "prefix_placeholder" not in rows["plain"]
    assert rows["link"]["path_type"] == "softlink"


def _member(archive, part, name):
    with zipfile.ZipFile(archive) as box:
        stem = archive.name.removesuffix(".conda")
        data = zstd.decompress(box.read(f"{part}-{stem}.tar.zst"))
    (archive.parent / "part.tar").write_bytes(data)
    with tarfile.open(archive.parent / "part.tar") as tar:
        return json.load(tar.extractfile(name))


def test_a_long_working_folder_is_refused_with_what_to_do(tmp_path):
    """When paths get too long to be rewritten, the answer names TMPDIR."""
    with pytest.raises(EnvError, match="TMPDIR"):
        new_stage(tmp_path / ("x" * 240), "p")


def test_a_folder_of_the_users_is_never_replaced(tmp_path):
    """A channel asked for in a folder with other things leaves them there, and says so."""
    home, aside = tmp_path / "home", tmp_path / "aside"
    for folder in (home, aside):
        folder.mkdir()
    (home / "thesis.txt").write_text("years of work")
    write_stamp(aside, "digest", [PYTHON])
    with pytest.raises(EnvError, match="Something else is there"):
        publish(aside, home, "digest")
    assert (home / "thesis.txt").read_text() == "years of work"


def test_an_outdated_channel_is_replaced_and_an_equal_one_is_kept(tmp_path):
    """A new channel takes the place of an old one; of two equal builders the first wins."""
    place = tmp_path / "channel"
    for number, digest in enumerate(["old", "new", "new"]):
        aside = tmp_path / f"aside-{number}"
        aside.mkdir()
        (aside / f"made-by-{number}").touch()
        write_stamp(aside, digest, [PYTHON])
        assert publish(aside, place, digest).url == place.as_uri()
    assert sorted(path.name for path in place.iterdir()) == ["channel.json", "made-by-1"]


def test_no_python_is_an_answer(tmp_path):
    """Without an interpreter to pack, the error says what to install."""
    with pytest.raises(EnvError, match="Load a Python module"):
        build_channel(tmp_path / "channel", pythons=[], requirements={})
    with pytest.raises(EnvError, match=r"Python 3\.8 were asked for"):
        build_channel(tmp_path / "channel", pythons=[PYTHON], requirements={"3.8": ["six"]})
    assert not (tmp_path / "channel").exists()


def test_found_pythons_are_one_of_each_minor_and_start(monkeypatch, tmp_path):
    """A program that only looks like a Python is left out, and the order is by version."""
    (tmp_path / "python3.10").write_text("#!/bin/sh\necho not a python\n")
    (tmp_path / "python3.10").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = find_pythons()
    minors = [tuple(map(int, python.minor.split("."))) for python in found]
    assert minors == sorted(set(minors))
    assert found
    assert str(tmp_path / "python3.10") not in {python.executable for python in found}


@pytest.fixture
def web():
    """A loopback web server that answers with the status in the path's first folder."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(int(self.path.split("/")[1]))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_channel_answers_only_if_its_index_is_there(web, tmp_path):
    """A reachable host without the channel counts as no channel; so does a dead port."""
    assert channel_answers(f"{web}/200")
    assert not channel_answers(f"{web}/404")
    assert not channel_answers("http://127.0.0.1:9/none", timeout_s=1)
    assert not channel_answers(tmp_path.as_uri())
    (tmp_path / "noarch").mkdir()
    (tmp_path / "noarch/repodata.json").write_text("{}")
    assert channel_answers(tmp_path.as_uri())
