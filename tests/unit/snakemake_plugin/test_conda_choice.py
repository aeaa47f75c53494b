"""Which conda the rules' envs are made with: the user's own when Snakemake can use it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_interface_common.exceptions import WorkflowError

from hpcburst.envs.conda_standin import install_standin, is_standin, without_standin
from hpcburst.errors import RequestError
from snakemake_executor_plugin_hpcburst.conda_choice import (
    FoundConda,
    choose_conda,
    find_conda,
    offer_conda,
)
from snakemake_executor_plugin_hpcburst.settings import ExecutorSettings

PLAIN = "/usr/bin:/bin"


def program(folder: Path, text: str) -> Path:
    """A `conda` program in a folder."""
    folder.mkdir(parents=True)
    path = folder / "conda"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A shared root of the test's own, and a PATH without any conda."""
    monkeypatch.setenv("DASK_HPCBURST__SHARED_ROOT", str(tmp_path / "shared"))
    monkeypatch.setenv("PATH", PLAIN)
    import dask.config

    with dask.config.set(hpcburst={"shared-root": str(tmp_path / "shared")}):
        yield tmp_path


@given(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)))
def test_a_conda_is_used_exactly_when_snakemake_can_use_it(version):
    """auto: from 24.7.1 on the user's conda is used without a word, else the stand-in with one."""
    choice = choose_conda("auto", FoundConda("/c/conda", ".".join(map(str, version))))
    assert choice.standin == (version < (24, 7, 1))
    assert bool(choice.notice) == choice.standin


def test_a_conda_that_does_not_tell_its_version_is_not_used():
    """Snakemake would refuse it."""
    assert choose_conda("auto", FoundConda("/c/conda")).standin
    assert "/c/conda" in choose_conda("auto", FoundConda("/c/conda")).notice


def test_what_was_asked_for_by_name_is_used_or_refused():
    """rattler: the stand-in whatever is there; conda: never the stand-in."""
    assert choose_conda("rattler", FoundConda("/c/conda", "99.1.1")).standin
    assert not choose_conda("conda", FoundConda("/c/conda", "4.1.1")).standin
    with pytest.raises(RequestError, match="no conda on PATH"):
        choose_conda("conda", None)


def test_the_version_is_read_from_the_installation(tmp_path):
    """A conda that lies in its installation is not started to find out how old it is."""
    conda = program(tmp_path / "base/bin", "exit 3")
    (tmp_path / "base/conda-meta").mkdir()
    for name in ("conda-24.9.2-py312_0", "conda-libmamba-solver-24.7.0-py_0", "python-3.12.1-0"):
        (tmp_path / "base/conda-meta" / f"{name}.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "base/bin")
    assert find_conda(f"{tmp_path}/link:{PLAIN}") == FoundConda(f"{tmp_path}/link/conda", "24.9.2")
    assert conda.exists()


def test_a_conda_elsewhere_is_asked(tmp_path):
    """A wrapper script of a site is asked for its version."""
    conda = program(tmp_path / "site", 'echo "conda 25.3.1"')
    assert find_conda(f"{tmp_path}/site:{PLAIN}") == FoundConda(str(conda), "25.3.1")
    program(tmp_path / "broken", "exit 1")
    assert find_conda(f"{tmp_path}/broken:{PLAIN}").version == ""
    assert find_conda(PLAIN) is None


def test_the_standin_is_found_where_it_was_chosen(root, monkeypatch):
    """In front of an old conda; not at all when the user's own was chosen."""
    old = program(root / "old", "echo conda 4.12.0")
    monkeypatch.setenv("PATH", f"{old.parent}:{PLAIN}")
    assert offer_conda("auto").standin
    assert is_standin(Path(find_conda(os.environ["PATH"]).program))
    assert not offer_conda("conda").standin
    assert find_conda(os.environ["PATH"]).program == str(old)


def test_no_standin_of_another_run_is_taken_for_a_conda(root, monkeypatch):
    """A stand-in left on PATH is neither the user's conda nor in its way."""
    programs = install_standin(root / "left")
    monkeypatch.setenv("PATH", f"{programs}:{PLAIN}")
    assert without_standin(os.environ)["PATH"] == PLAIN
    with pytest.raises(WorkflowError, match="no conda on PATH"):
        ExecutorSettings(conda="conda")
