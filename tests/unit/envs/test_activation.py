"""Activation: captured once in bash, replayed anywhere without a shell."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.activation import as_shell, capture, difference
from hpcburst.errors import EnvError
from hpcburst.workers.activation import replay

names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,6}", fullmatch=True).filter(lambda name: name != "_")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
environs = st.dictionaries(names, texts, max_size=5)
plain = texts.filter(lambda text: not text.endswith("}"))
activations = st.dictionaries(names, st.one_of(st.none(), plain), max_size=5)
folders = st.from_regex(r"(/[a-z]{1,5}){1,3}", fullmatch=True)


@pytest.fixture
def prefix(tmp_path):
    """A prefix with an activate.d script, variables of a package and of a user."""
    for folder in ("bin", "conda-meta", "etc/conda/activate.d", "etc/conda/env_vars.d"):
        (tmp_path / "it's" / folder).mkdir(parents=True)
    return tmp_path / "it's"


def script(prefix, text, name="tool.sh"):
    (prefix / "etc/conda/activate.d" / name).write_text(text)


def test_scripts_and_variables_are_seen(prefix):
    """What activate.d scripts export and env_vars.d states is captured."""
    script(prefix, 'export TOOL_HOME="$CONDA_PREFIX/share"\nunset LANG\n')
    (prefix / "etc/conda/env_vars.d/a.json").write_text('{"THREADS": "4", "GREETING": "hello"}')
    (prefix / "conda-meta/state").write_text('{"env_vars": {"GREETING": "bye"}}')
    found = capture(prefix)
    assert found["TOOL_HOME"] == f"{prefix}/share"
    assert found["THREADS"] == "4"
    assert found["GREETING"] == "bye"
    assert found["CONDA_PREFIX"] == found["CONDA_DEFAULT_ENV"] == str(prefix)
    assert found["PATH"] == f"{prefix}/bin:${{PATH}}"


def test_values_of_variables_are_data(prefix, tmp_path):
    """A variable's value reaches tasks letter by letter; no shell reads it."""
    value = f"a $HOME `touch {tmp_path}/ran` $(touch {tmp_path}/ran) 'q' \"d\" \\ \n end"
    (prefix / "etc/conda/env_vars.d/a.json").write_text(json.dumps({"VALUE": value}))
    assert capture(prefix)["VALUE"] == value
    assert not (tmp_path / "ran").exists()


def test_path_can_be_replayed_on_another_node(prefix):
    """The env's folders go before the node's own PATH, whatever the driver's was."""
    script(prefix, 'export PATH="$CONDA_PREFIX/tools:$PATH:$CONDA_PREFIX/late"\n')
    node = replay(capture(prefix), {"PATH": "/node/bin:/bin"})
    assert node["PATH"] == f"{prefix}/tools:{prefix}/bin:{prefix}/late:/node/bin:/bin"


def test_library_paths_are_added_to_those_of_the_node(prefix):
    """A script that puts a folder before LD_LIBRARY_PATH keeps the node's modules behind it."""
    script(prefix, 'export LD_LIBRARY_PATH="/mine${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"\n')
    found = capture(prefix)
    assert replay(found, {"LD_LIBRARY_PATH": "/cuda"})["LD_LIBRARY_PATH"] == "/mine:/cuda"
    assert replay(found, {})["LD_LIBRARY_PATH"] == "/mine"


def test_the_drivers_own_environment_does_not_leak(prefix, monkeypatch):
    """Nothing of the process that built the env is replayed on the nodes."""
    monkeypatch.setenv("DRIVER_SECRET", "s3cret")
    monkeypatch.setenv("PATH", f"/driver/only:{os.environ['PATH']}")
    script(prefix, 'export SEEN="${DRIVER_SECRET:-nothing}"\n')
    found = capture(prefix)
    assert found["SEEN"] == "nothing"
    assert "/driver/only" not in str(found)


def test_scripts_that_read_unset_variables_work(prefix):
    """Scripts in the wild are not clean under `set -u`; they are run without it."""
    script(prefix, 'export STACKED="on:$NEVER_SET_ANYWHERE"\nfalse\n')
    assert capture(prefix)["STACKED"] == "on:"


def test_a_script_that_ends_the_shell_is_an_answer(prefix):
    """An activation that cannot be finished is the env's error, with what it printed."""
    script(prefix, "echo cannot find a licence >&2\nexit 3\n")
    with pytest.raises(EnvError, match="status 3") as caught:
        capture(prefix)
    assert "cannot find a licence" in str(caught.value)


@given(activations, environs)
def test_replay_sets_unsets_and_leaves_the_rest(activation, environ):
    """Every plain value is set as it is, None unsets, all else stays, the input is not touched."""
    before = dict(environ)
    after = replay(activation, environ)
    assert environ == before
    for name, value in activation.items():
        assert after.get(name) == value
    untouched = set(environ) - set(activation)
    assert all(after[name] == environ[name] for name in untouched)


@given(st.lists(folders, min_size=1, max_size=3), st.lists(folders, max_size=3))
def test_replay_never_makes_an_empty_path_entry(heads, old):
    """An entry put before nothing adds no empty entry: that would be the working directory."""
    environ = {"PATH": ":".join(old)} if old else {}
    path = replay({"PATH": ":".join([*heads, "${PATH}"])}, environ)["PATH"]
    assert path.split(":") == [*heads, *old]


@given(environs, environs)
def test_a_difference_replayed_gives_the_activated_environment(before, after):
    """Replaying what changed, where it was captured, gives what activation gave."""
    before.pop("PATH", None)
    after = {
        name: text for name, text in after.items() if text != f"${{{name}}}" and name != "PATH"
    }
    own = {"SHLVL", "PWD", "OLDPWD"}
    changed = difference(before, after)
    replayed = replay(changed, before)
    assert {n: t for n, t in replayed.items() if n not in own} == {
        n: t for n, t in after.items() if n not in own
    }


def test_shell_text_does_the_same_as_replay(prefix, tmp_path):
    """The sourced form and the replayed form agree, also under `set -eu`."""
    value = "a $HOME 'q' \" \\ `id`\nb"
    activation = {
        "PATH": "/env/bin:${PATH}",
        "VALUE": value,
        "GONE": None,
        "LISTED": "/l:${LISTED}",
    }
    base = {"PATH": "/usr/bin:/bin", "GONE": "here"}
    text = tmp_path / "activate.sh"
    text.write_text(as_shell(activation))
    argv = ["bash", "--norc", "--noprofile", "-euc", '. "$0"; env -0', str(text)]
    out = subprocess.run(argv, env=base, capture_output=True, text=True, check=True).stdout
    sourced = dict(pair.split("=", 1) for pair in out.split("\0") if pair)
    shell_own = {"_", "SHLVL", "PWD", "OLDPWD"}
    assert {n: t for n, t in sourced.items() if n not in shell_own} == replay(activation, base)


def test_replaying_needs_nothing_but_the_standard_library():
    """A pilot imports the replay in milliseconds: no rattler, no Dask, no YAML."""
    code = (
        "import sys, time; t = time.perf_counter(); import hpcburst.workers.activation\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'rattler', 'dask', 'yaml'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
