"""Activation: captured once in bash, replayed anywhere without a shell."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcburst.envs.activation.capture import (
    as_shell,
    capture,
    compose,
    difference,
    python_on,
    relocated,
)
from hpcburst.errors import EnvError
from hpcburst.workers.activation import replay

names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,6}", fullmatch=True).filter(lambda name: name != "_")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
environs = st.dictionaries(names, texts, max_size=5)
plain = texts.filter(lambda text: not text.endswith("}"))
activations = st.dictionaries(names, st.one_of(st.none(), plain), max_size=5)
folders = st.from_regex(r"(/[a-z]{1,5}){1,3}", fullmatch=True)
few_names = st.sampled_from(["A", "B", "PATH"])
heads = st.text(st.sampled_from("/ab:"), max_size=4)


@st.composite
def layered(draw):
    """An activation in which every kind of value occurs, for few variables."""
    chosen = {}
    for name in draw(st.sets(few_names)):
        relative = heads.map(lambda head, name=name: f"{head}${{{name}}}")
        listed = heads.map(lambda head, name=name: f"{head}:${{{name}}}")
        chosen[name] = draw(st.one_of(st.none(), heads, relative, listed))
    return chosen


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


@given(layered(), layered(), st.dictionaries(few_names, heads))
def test_composing_two_activations_is_replaying_one_after_the_other(first, then, environ):
    """Modules composed with an env do what both do in turn, whatever the node has."""
    in_turn = replay(then, replay(first, environ))
    assert replay(compose(first, then), environ) == in_turn


@given(layered(), layered(), layered())
def test_composing_needs_no_brackets(one, two, three):
    """Three activations compose to the same, from either end."""
    left, right = compose(compose(one, two), three), compose(one, compose(two, three))
    for environ in ({}, {"A": "/x", "B": "", "PATH": "/bin"}):
        assert replay(left, environ) == replay(right, environ)


@settings(max_examples=20, deadline=None)
@given(layered(), layered(), st.dictionaries(few_names, heads))
def test_shell_text_of_composed_activations_does_the_same_as_replay(first, then, environ):
    """The sourced form agrees with the replayed one for every kind of value."""
    activation = compose(first, then)
    expected = replay(activation, environ)
    argv = ["/bin/sh", "-euc", f"{as_shell(activation)}\n/usr/bin/env -0"]
    out = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout
    sourced = dict(pair.split("=", 1) for pair in out.split("\0") if pair)
    assert {name: sourced[name] for name in "AB" if name in sourced} == {
        name: expected[name] for name in "AB" if name in expected
    }
    if "PATH" in environ and "PATH" in expected:  # a shell that gets none takes one of its own
        assert sourced["PATH"] == expected["PATH"]


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        ("/shared/envs/01", "/node/01"),
        ("/shared/envs/01/bin:${PATH}", "/node/01/bin:${PATH}"),
        (
            "-L/shared/envs/01/lib -Wl,-rpath,/shared/envs/01/lib",
            "-L/node/01/lib -Wl,-rpath,/node/01/lib",
        ),
        ("-fdebug-prefix-map=/shared/envs/01=/usr/src", "-fdebug-prefix-map=/node/01=/usr/src"),
        ("file:///shared/envs/01/share", "file:///node/01/share"),
        ('{"root": "/shared/envs/01"}', '{"root": "/node/01"}'),
        ("/shared/envs/01/a:/shared/envs/01", "/node/01/a:/node/01"),
        ("/shared/envs/012/bin", "/shared/envs/012/bin"),
        ("/shared/envs/01-old:/shared/envs/01.bak", "/shared/envs/01-old:/shared/envs/01.bak"),
        ("/mnt/shared/envs/01/bin", "/mnt/shared/envs/01/bin"),
        ("https://host/shared/envs/01", "https://host/shared/envs/01"),
        (None, None),
    ],
)
def test_relocating_moves_whole_paths_alone(value, moved):
    """Paths of the env move with it, also behind an option; paths that only look like it stay."""
    assert relocated({"X": value}, "/shared/envs/01", "/node/01/") == {"X": moved}


@given(st.dictionaries(names, st.lists(folders, max_size=3).map(":".join), max_size=3), folders)
def test_relocating_and_back_gives_the_same(activation, old):
    """A prefix moves to a place nothing names and back again, and nothing else changes."""
    there = relocated(activation, old, "/elsewhere/0")
    assert relocated(there, "/elsewhere/0", old) == activation
    for name, value in activation.items():
        parts = zip(value.split(":"), there[name].split(":"), strict=True)
        for before, after in parts:
            below = before == old or before.startswith(f"{old}/")
            assert after == (f"/elsewhere/0{before.removeprefix(old)}" if below else before)


def test_an_env_moved_is_an_env_captured_there(prefix, tmp_path):
    """Relocating a captured activation gives what capturing at the new place would give."""
    script(prefix, 'export LDFLAGS="-L$CONDA_PREFIX/lib"\nexport PATH="$CONDA_PREFIX/x:$PATH"\n')
    before = capture(prefix)
    prefix.rename(tmp_path / "moved")
    assert relocated(before, str(prefix), str(tmp_path / "moved")) == capture(tmp_path / "moved")


def test_the_python_of_modules_is_the_first_on_their_path(tmp_path):
    """Modules that bring a Python run bodies in it; others in the system's."""
    for folder, name in (("two", "python"), ("three", "python3")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("#!/bin/sh\n")
        (tmp_path / folder / name).chmod(0o755)
    both = f"{tmp_path}/two:{tmp_path}/three"
    assert python_on({"PATH": f"{both}:${{PATH}}"}) == f"{tmp_path}/three/python3"
    assert python_on({"PATH": f"{tmp_path}/two"}) == f"{tmp_path}/two/python"
    with pytest.raises(EnvError, match="/nowhere"):
        python_on({"PATH": "/nowhere"})


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
