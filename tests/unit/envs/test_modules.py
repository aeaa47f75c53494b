"""Environment modules: loaded once by the site's own tool, replayed as data."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from hpcburst.envs.activation.capture import as_shell, compose
from hpcburst.envs.activation.modules import SETTING, capture_modules, find_tool
from hpcburst.errors import EnvError
from hpcburst.workers.activation import replay
from support.modules import environment_modules, lmod

GCC = [
    ("set", "CC", "gcc-13"),
    ("prepend", "PATH", "/opt/gcc-13/bin"),
    ("prepend", "LD_LIBRARY_PATH", "/opt/gcc-13/lib"),
]
CUDA = [
    ("prepend", "PATH", "/opt/cuda/bin"),
    ("prepend", "LD_LIBRARY_PATH", "/opt/cuda/lib"),
    ("append", "ANY_LIST", "/opt/cuda/any"),
    ("set", "CUDA_HOME", "/opt/cuda"),
    ("unset", "LANG"),
]


@pytest.fixture
def no_modules(monkeypatch):
    """No trace of the modules of the person who runs the tests."""
    for name in list(os.environ):
        if "MODULE" in name or "LMOD" in name:
            monkeypatch.delenv(name)


@pytest.fixture(params=["Environment Modules", "Lmod"])
def tool(request, tmp_path):
    """A real module tool."""
    found = environment_modules() if request.param != "Lmod" else lmod(tmp_path)
    if found is None:
        pytest.skip(f"{request.param} is not installed (apt-get install environment-modules; lmod)")
    return found


@pytest.fixture
def site(no_modules, tool, tmp_path, monkeypatch):
    """A site with a module tool, as after login; adds modules: `site(name, *steps)`."""
    folder = tmp_path / "modulefiles"
    folder.mkdir()
    monkeypatch.setenv("MODULEPATH", str(folder))
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv(tool.variable, str(tool.command))

    def add(name, *steps):
        tool.write(folder, name, steps)

    add("gcc/13", *GCC)
    add("cuda/12.4", *CUDA)
    return add


def test_what_modules_set_prepend_append_and_unset(site):
    """Variables that modules set, add to and unset come as such, in the order of loading."""
    found = capture_modules(["gcc/13", "cuda"])
    assert found["CC"] == "gcc-13"
    assert found["CUDA_HOME"] == "/opt/cuda"
    assert found["LANG"] is None
    assert found["PATH"] == "/opt/cuda/bin:/opt/gcc-13/bin:${PATH}"
    assert found["LD_LIBRARY_PATH"] == "/opt/cuda/lib:/opt/gcc-13/lib:${LD_LIBRARY_PATH}"
    assert found["ANY_LIST"] == "/opt/cuda/any:${ANY_LIST}"
    assert found["LOADEDMODULES"] == "gcc/13:cuda/12.4"
    assert "hpcburst" not in str(found)


def test_no_modules_change_nothing(no_modules, monkeypatch):
    """An empty list asks for no module command."""
    assert capture_modules([]) == {}


def test_a_shell_file_defines_the_command_too(site, tool, monkeypatch):
    """A site that names its own shell file needs no variable of a login."""
    monkeypatch.delenv(tool.variable)
    assert capture_modules(["gcc/13"], init=str(tool.init))["CC"] == "gcc-13"


def test_the_folder_of_the_tool_is_enough(site, tool, monkeypatch):
    """With MODULESHOME alone, as old tools leave it, the tool is found."""
    monkeypatch.delenv(tool.variable)
    monkeypatch.setenv("MODULESHOME", str(tool.home))
    assert find_tool(os.environ).path == f"{tool.home}/init/bash"


def test_a_module_that_is_not_there_fails_with_the_tools_words(site):
    """A list that does not load says which module it was, and what the tool said."""
    with pytest.raises(EnvError, match="'nothere/1' does not load") as caught:
        capture_modules(["gcc/13", "nothere/1", "cuda"])
    assert "nothere/1" in caught.value.tail


def test_a_conflict_fails_with_the_tools_words(site):
    """Modules that exclude each other do not load half."""
    site("icc/1", ("conflict", "gcc"), ("set", "CC", "icc"))
    with pytest.raises(EnvError, match="'icc/1' does not load") as caught:
        capture_modules(["gcc/13", "icc/1"])
    assert "gcc" in caught.value.tail


def test_a_module_that_another_one_loaded_is_no_failure(site):
    """A list may name what one of its modules brings along."""
    site("stack/1", ("load", "gcc/13"))
    assert capture_modules(["stack/1", "gcc"])["CC"] == "gcc-13"


def test_names_reach_the_tool_as_data(site, tmp_path):
    """A module name is no shell text, whatever is in it."""
    with pytest.raises(EnvError):
        capture_modules([f"$(touch {tmp_path}/ran)", f"; touch {tmp_path}/ran", "`id`"])
    assert not (tmp_path / "ran").exists()


def test_what_is_loaded_already_does_not_matter(site, monkeypatch):
    """Modules that the user has loaded in this shell are neither replayed nor in the way."""
    site("icc/1", ("conflict", "gcc"), ("set", "CC", "icc"))
    for name, value in capture_modules(["gcc/13"]).items():
        monkeypatch.setenv(name, (value or "").replace("${PATH}", os.environ["PATH"]))
    monkeypatch.setenv("LMOD_FAMILY_COMPILER", "gcc")
    found = capture_modules(["icc/1"])
    assert found["LOADEDMODULES"] == "icc/1"
    assert "gcc-13" not in str(found)


def test_libraries_of_the_driver_do_not_break_the_tool(site, tmp_path, monkeypatch):
    """A libtcl or liblua of a conda env on LD_LIBRARY_PATH is not what the tool gets."""
    libraries = tmp_path / "conda-lib"
    libraries.mkdir()
    for name in ("libtcl8.6.so", "liblua5.3.so.0", "libc.so.6"):
        (libraries / name).write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    found = capture_modules(["gcc/13"])
    assert found["LD_LIBRARY_PATH"] == "/opt/gcc-13/lib:${LD_LIBRARY_PATH}"


def test_a_value_that_depends_on_what_was_set_stays(site):
    """What a module sets where nothing was is kept, with nothing of ours in it."""
    site("licence/1", ("set", "LM_LICENSE_FILE", "1700@licence:/opt/licence.dat"))
    assert capture_modules(["licence/1"])["LM_LICENSE_FILE"] == "1700@licence:/opt/licence.dat"


def test_conda_comes_after_modules(site):
    """In front is the env; the modules' libraries and programs stay behind it."""
    env = {"PATH": "/envs/0123/bin:${PATH}", "CC": "/envs/0123/bin/cc"}
    both = replay(compose(capture_modules(["gcc/13"]), env), {"PATH": "/usr/bin"})
    assert both["PATH"] == "/envs/0123/bin:/opt/gcc-13/bin:/usr/bin"
    assert both["CC"] == "/envs/0123/bin/cc"
    assert both["LD_LIBRARY_PATH"] == "/opt/gcc-13/lib"


def test_replayed_and_loaded_are_the_same(site, tool, tmp_path):
    """Replaying gives the variables that loading in a shell gives, and so does the shell text."""
    base = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/mine", "HOME": str(tmp_path)}
    names = ("PATH", "LD_LIBRARY_PATH", "CC", "CUDA_HOME", "ANY_LIST", "LOADEDMODULES")
    load = 'eval "$("$0" bash load gcc/13 cuda)"; env -0'
    environ = base | {"MODULEPATH": os.environ["MODULEPATH"]}
    argv = ["bash", "--norc", "-c", load, str(tool.command)]
    loaded = _read(subprocess.run(argv, env=environ, capture_output=True, check=True).stdout)
    found = capture_modules(["gcc/13", "cuda"])
    (tmp_path / "text").write_text(as_shell(found))
    argv = ["sh", "-euc", '. "$0"; env -0', str(tmp_path / "text")]
    sourced = _read(subprocess.run(argv, env=base, capture_output=True, check=True).stdout)
    for after in (replay(found, base), sourced):
        assert {name: after.get(name) for name in names} == {
            name: loaded.get(name) for name in names
        }


def test_an_old_tool_that_hides_its_failures_is_seen_through(no_modules, tmp_path):
    """Where `module load` ends with status 0 whatever happens, a list that does not load fails."""
    init = tmp_path / "old-init"
    init.write_text(
        "module() { if [ $2 = gcc ]; then export LOADEDMODULES=gcc CC=gcc; "
        'else echo "ModuleCmd_Load.c(213):ERROR:105: Unable to locate $2" >&2; fi; return 0; }\n'
    )
    assert capture_modules(["gcc"], init=str(init))["CC"] == "gcc"
    with pytest.raises(EnvError, match="'fftw' does not load") as caught:
        capture_modules(["gcc", "fftw"], init=str(init))
    assert "Unable to locate fftw" in caught.value.tail


def test_a_module_that_asks_or_ends_the_shell_is_an_answer(no_modules, tmp_path):
    """A shell file that ends the shell is the env's error, with what it said."""
    init = tmp_path / "init"
    init.write_text("read -r answer; echo no modules for you; exit 0\n")
    with pytest.raises(EnvError, match="init") as caught:
        capture_modules(["gcc"], init=str(init))
    assert "no modules for you" in caught.value.tail


def test_what_a_shell_file_writes_is_not_taken_for_a_variable(no_modules, tmp_path):
    """A greeting on stdout is neither read nor in the way."""
    init = tmp_path / "init"
    init.write_text("echo WELCOME=yes\nmodule() { export LOADEDMODULES=$2; echo LOADED=yes; }\n")
    assert capture_modules(["gcc"], init=str(init)) == {"LOADEDMODULES": "gcc"}


def test_no_module_command_says_what_was_looked_for(no_modules, tmp_path, monkeypatch):
    """Without a module command the answer names the places and the setting."""
    monkeypatch.setattr("hpcburst.envs.activation.modules.USUAL_FILES", ("/nowhere/init/bash",))
    monkeypatch.setenv("MODULESHOME", str(tmp_path))
    with pytest.raises(EnvError) as caught:
        capture_modules(["gcc"])
    for expected in (f"{tmp_path}/init/bash", "/nowhere/init/bash", SETTING):
        assert expected in str(caught.value)


def test_a_setting_that_is_no_file_is_not_passed_over(no_modules, tmp_path):
    """A setting that is wrong is an answer, even where a module command could be found."""
    with pytest.raises(EnvError, match="not-there"):
        capture_modules(["gcc"], init=str(tmp_path / "not-there"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_tool_that_is_gone_is_passed_over(no_modules, tmp_path, monkeypatch):
    """A stale LMOD_CMD, from a login of another system, does not hide the tool that is there."""
    init = tmp_path / "init" / "bash"
    init.parent.mkdir()
    init.write_text("module() { export LOADEDMODULES=$2; }\n")
    monkeypatch.setenv("LMOD_CMD", "/gone/libexec/lmod")
    monkeypatch.setenv("MODULEPATH", str(tmp_path))
    monkeypatch.setenv("MODULESHOME", str(tmp_path))
    assert capture_modules(["gcc"]) == {"LOADEDMODULES": "gcc"}


def _read(told):
    return dict(pair.split("=", 1) for pair in told.decode().split("\0") if "=" in pair)
