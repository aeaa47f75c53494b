"""What a node does before a direct command, and which mode takes what."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from snakemake_executor_plugin_hpcburst.direct import BEGIN
from snakemake_executor_plugin_hpcburst.modes import AUTO, Circumstances, choose_modes

AWKWARD = ["a$(touch pwned).txt", "-rf", "--", "run", "a\nb", 'it\'s "q"', "`x`;|&", "*", "wait:x"]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)


def begin(folder: Path, *words: str, patience_s: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Let a node begin a command in a folder."""
    argv = ["/bin/sh", "-c", BEGIN, "sh", str(patience_s), *words]
    environ = {**os.environ, "TMPDIR": "/the/nodes"}
    return subprocess.run(
        argv, cwd=folder, env=environ, capture_output=True, check=False, timeout=20
    )


@given(st.lists(NAMES.filter(lambda name: name not in (".", "..")), unique=True, max_size=5))
@example(AWKWARD)
@settings(max_examples=25)
def test_names_of_files_are_data(tmp_path_factory: pytest.TempPathFactory, names: list[str]):
    """Whatever a file is called: it is waited for, cleared, and handed on as it is."""
    folder = tmp_path_factory.mktemp("node")
    for name in names:
        (folder / name).touch()
    before = [word for name in names for word in (f"wait:{name}", f"gone:{name}")]
    done = begin(folder, *before, "run", "printf", "%s\\0", "$TMP", *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split("\0")[:-1] == ["$TMP", *names]
    assert list(folder.iterdir()) == []


def test_what_a_lost_try_left_is_cleared(tmp_path: Path):
    """Files, dangling links and folders go; a folder in the place of a file is not touched."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    begin(tmp_path, "gone:file", "gone:link", "tree:tree", "gone:folder", "run", "true")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_that_comes_late_is_waited_for(tmp_path: Path):
    """A node that does not see an input yet waits for as long as --latency-wait says."""
    with subprocess.Popen(["/bin/sh", "-c", "sleep 0.5; touch late"], cwd=tmp_path):
        begun = time.monotonic()
        done = begin(tmp_path, "wait:late", "run", "cat", "late", patience_s=10)
    assert done.returncode == 0
    assert time.monotonic() - begun < 5


def test_a_file_that_never_comes_is_named(tmp_path: Path):
    """A node that never sees an input says which one; the command does not run."""
    done = begin(tmp_path, "wait:in put", "run", "touch", "out", patience_s=0)
    assert (done.returncode, done.stderr) == (66, b"This node does not see the file in put.\n")
    assert not (tmp_path / "out").exists()


def test_every_name_of_the_folder_for_temporary_files_is_the_nodes(tmp_path: Path):
    """TMP, TEMP and TEMPDIR say what the node's TMPDIR says."""
    done = begin(tmp_path, "run", "sh", "-c", "echo $TMPDIR $TMP $TEMP $TEMPDIR")
    assert done.stdout.split() == [b"/the/nodes"] * 4


def names(asked: str, circumstances: Circumstances) -> list[str]:
    """The modes that are tried, in order."""
    return [mode.name for mode in choose_modes(asked, circumstances)]


def test_the_fastest_exact_mode_comes_first():
    """Auto goes down to what the circumstances leave; a mode asked for leaves out the faster."""
    plain = Circumstances()
    assert names(AUTO, plain) == names("direct", plain) == ["direct", "zygote", "spawn"]
    assert names("zygote", plain) == ["zygote", "spawn"]
    assert names("spawn", plain) == ["spawn"]
    assert names(AUTO, Circumstances(shares_files=False)) == ["zygote", "spawn"]
    assert names(AUTO, Circumstances(known_release=False)) == ["zygote", "spawn"]
    assert names(AUTO, Circumstances(precommand=True)) == ["spawn"]
    assert names(AUTO, Circumstances(shares_software=False)) == ["spawn"]


@pytest.mark.parametrize("mode", ["direct", "zygote"])
def test_a_mode_that_would_not_be_exact_is_refused(mode: str):
    """Asking for a mode by name where it changes results is answered, not done."""
    with pytest.raises(RequestError, match=mode):
        choose_modes(mode, Circumstances(precommand=True))
