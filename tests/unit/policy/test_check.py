"""A config file is checked as a whole: every problem at once, each with its line."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import BurstError
from hpcburst.policy.check import problems
from hpcburst.policy.discover import Machine
from hpcburst.policy.load import build_site, merged
from hpcburst.policy.sources import DEFAULTS, default_section
from hpcburst.policy.values import dashed

BAD = """\
hpcburst:
  scheduler: cron
  max_jobs: many
  jobz: 3
  budget: -1
  prefer: fastest
  forbidden: short
  pilot:
    cores: two
  queues:
    short:
      cores: 4
      memory: lots
      ram: 3
      price: free
    long: [1]
  envs: {builder: pip, channels: conda-forge}
  idle-timeout: soon
"""


def test_every_problem_is_told_at_once_with_its_line():
    """One look at a file tells all that is wrong with it, in the order of its lines."""
    found = problems(BAD)

    assert [(problem.line, problem.key.rpartition(".")[2]) for problem in found] == [
        (2, "scheduler"),
        (3, "max_jobs"),
        (4, "jobz"),
        (5, "budget"),
        (6, "prefer"),
        (7, "forbidden"),
        (9, "cores"),
        (11, "short"),
        (13, "memory"),
        (14, "ram"),
        (15, "price"),
        (16, "long"),
        (17, "builder"),
        (17, "channels"),
        (18, "idle-timeout"),
    ]
    assert all(problem.text for problem in found)
    assert "lacks walltime" in found[7].text


def test_our_own_defaults_are_right():
    """The file we ship, and what it says, has nothing wrong with it."""
    assert problems(DEFAULTS.read_text()) == []


def test_values_that_are_wrong_only_together_are_told():
    """A pilot that no queue takes is a problem though each of its values is right."""
    text = """\
hpcburst:
  scheduler: slurm
  pilot: {cores: 2, memory: 64GB}
  queues:
    q: {cores: 4, memory: 16GB, walltime: 1h}
"""
    (problem,) = problems(text)
    assert (problem.line, problem.key) == (3, "hpcburst.pilot")
    (problem,) = problems(text.replace("memory: 64GB", "queue: nowhere"))
    assert (problem.line, problem.key) == (3, "hpcburst.pilot.queue")


def test_a_key_that_stands_twice_is_told():
    """YAML takes the last of two without a word; here both lines are named."""
    (problem,) = problems("hpcburst:\n  jobs: 3\n  max-jobs: 9\n  jobs: 4\n")
    assert (problem.line, problem.text) == (4, "it stands in line 2 already")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("hpcburst:\n  jobs: [1\n", 3, "no YAML"),
        ("hpcburst:\n\tjobs: 1\n", 2, "no YAML"),
        ("hpcburst: !!python/object:os.system x\n", 1, "no YAML"),
        ("distributed: {}\n", 1, "no section"),
        ("hpcburst: 3\n", 1, "no section"),
        ("", 1, "no section"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(text, line, words):
    """A broken file is told with the line it breaks in."""
    (problem,) = problems(text)
    assert problem.line == line
    assert words in problem.text


@pytest.mark.parametrize(
    ("scheduler", "key", "right"),
    [
        ("sge", "parallel-environment", True),
        ("auto", "memory-resource", True),
        ("htcondor", "disk", True),
        ("slurm", "parallel-environment", False),
        ("sge", "disk", False),
    ],
)
def test_a_dialect_has_the_keys_of_its_system(scheduler, key, right):
    """What is said of one batch system is not taken for another."""
    text = yaml.safe_dump({"hpcburst": {"scheduler": scheduler, "dialect": {key: "x"}}})
    assert (problems(text) == []) is right


def test_nothing_is_asked_and_nothing_is_looked_for(monkeypatch):
    """A file for another machine can be checked here: no command is run."""
    monkeypatch.setenv("PATH", "/nowhere")
    text = "hpcburst: {scheduler: slurm, interface: ib9, shared-root: /lustre/x}"
    assert problems(text) == []


words = st.sampled_from(["", "soon", "1h", "4GB", "auto", "slurm", "cheapest", "true", "-1", "٣"])
values = words | st.integers(-2, 99) | st.floats(allow_nan=False) | st.booleans() | st.none()
trees = values | st.lists(values, max_size=2) | st.dictionaries(words, values, max_size=2)
KEYS = st.sampled_from([*default_section(), "jobz", "max_jobs"])
QUEUE_FIELDS = st.sampled_from(["cores", "memory", "walltime", "gpus", "price", "burst", "ram"])
queues = st.dictionaries(words, trees | st.dictionaries(QUEUE_FIELDS, trees, max_size=4))
sections = st.dictionaries(KEYS, trees, max_size=4)


def nothing_told(scheduler):
    """The batch system is not there."""
    return


@given(sections, st.none() | queues)
def test_a_file_has_no_problem_exactly_when_it_can_be_used(section, there):
    """The check and the run agree: what is called right loads, and what does not load is told."""
    if there is not None:
        section = {**section, "queues": there}
    told = problems(json.dumps({"hpcburst": section}))
    loads = True
    try:
        whole = merged(default_section(), dashed(section, "hpcburst"))
        if whole["scheduler"] == "auto" or (whole["scheduler"] != "local" and not whole["queues"]):
            return  # depends on the machine
        if whole["host"] is None:
            whole["host"] = "here"
        build_site(whole, Machine(10**6, 10**12), nothing_told)
    except BurstError:
        loads = False
    doubled = {key.replace("_", "-") for key in section}
    assert (told == []) is loads or len(doubled) < len(section)
