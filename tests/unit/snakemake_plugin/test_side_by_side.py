"""The one method of Snakemake that we wrap is the one we know, in every release let in."""

from __future__ import annotations

import inspect

import pytest
import snakemake.cli

from snakemake_executor_plugin_hpcburst.side_by_side import make_envs_side_by_side

DAG = snakemake.dag.DAG
Env = snakemake.deployment.conda.Env


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """Snakemake as it was, once the test is over."""
    monkeypatch.setattr(DAG, "create_conda_envs", DAG.create_conda_envs)


def test_this_snakemake_is_one_we_know():
    """Wrapped, the method has the same signature and name; wrapping twice is wrapping once."""
    before = DAG.create_conda_envs
    assert make_envs_side_by_side()
    assert make_envs_side_by_side()
    after = DAG.create_conda_envs
    assert after.__wrapped__ is before
    assert inspect.signature(after) == inspect.signature(before)


@pytest.mark.parametrize(("kind", "method"), [(DAG, "create_conda_envs"), (Env, "create")])
def test_a_snakemake_we_do_not_know_is_left_alone(monkeypatch, kind, method):
    """With other parameters than those we know, envs are made as Snakemake makes them."""

    def other(self, graph):
        return graph

    monkeypatch.setattr(kind, method, other)
    before = DAG.create_conda_envs
    assert not make_envs_side_by_side()
    assert DAG.create_conda_envs is before


def test_a_conda_of_the_users_makes_envs_one_by_one(monkeypatch, tmp_path):
    """Only the stand-in promises that several of it may run; a real conda is called in turn."""
    (tmp_path / "conda").write_text("#!/bin/sh\n")
    (tmp_path / "conda").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    called = []
    monkeypatch.setattr(DAG, "create_conda_envs", _recording(called))
    assert make_envs_side_by_side()
    graph = DAG.__new__(DAG)
    graph.workflow = _Workflow()
    graph.create_conda_envs()
    assert called == [(False, False)]


def _recording(called):
    def create_conda_envs(self, dryrun=False, quiet=False):
        called.append((dryrun, quiet))

    return create_conda_envs


class _Workflow:
    """What the method reads of a workflow."""

    dryrun = False
    touch = False
