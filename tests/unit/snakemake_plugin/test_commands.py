"""The nested call keeps every character the user wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from snakemake_interface_executor_plugins.utils import format_cli_arg, is_quoted, join_cli_args

from hpcburst.errors import RequestError
from snakemake_executor_plugin_hpcburst.commands import (
    Call,
    check_targets,
    job_environment,
    read_call,
    read_words,
)

AWKWARD = "a '\"\\$`!#&|;<>(){}[]*?~=,:/.\n\t\r\x07\x1b é漢\u2028\U0001f40d\udcff-"
TEXTS = st.one_of(st.text(AWKWARD, min_size=1), st.text(min_size=1))
PATHS = TEXTS.filter(lambda text: "\0" not in text and "\\" not in text).map(Path)


@given(st.lists(TEXTS, min_size=1))
@example(["it's $HOME", 'say "hi"', "back\\slash", "both ' and \"", "a\nb", "k='v' w"])
def test_a_list_of_values_comes_back_as_it_was(values: list[str]):
    """Quotes, dollars, backslashes and line ends in values reach the job unchanged."""
    text = format_cli_arg("--config", values)
    assert read_words(text, [v for v in values if is_quoted(v)]) == ("--config", *values)


@given(
    st.lists(st.tuples(st.sampled_from(["--a", "--b"]), TEXTS.filter(lambda v: v[0] not in "'\"")))
)
def test_flags_and_values_stay_apart(pairs: list[tuple[str, str]]):
    """No value runs into the next flag, whatever it holds."""
    text = join_cli_args(format_cli_arg(flag, value) for flag, value in pairs)
    assert read_words(text) == tuple(word for pair in pairs for word in pair)


@given(PATHS)
@example(Path("it's/both \" and '/ here"))
def test_paths_are_read_as_paths_are_written(path: Path):
    """Paths, which Snakemake quotes in another way than text, come back too."""
    assert read_words(format_cli_arg("--conda-prefix", path)) == ("--conda-prefix", str(path))


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), TEXTS, min_size=1))
def test_mappings_come_back_as_name_and_value(mapping: dict[str, str]):
    """Settings written as name=value keep their value."""
    words = read_words(format_cli_arg("--set-scatter", mapping))
    assert words == ("--set-scatter", *(f"{name}={value}" for name, value in mapping.items()))


def test_a_path_with_a_backslash_and_a_space_is_a_path():
    """A path with a backslash that no Python text would have is read as a path."""
    path = Path("/data/odd\\place here")
    assert read_words(format_cli_arg("--directory", path)) == ("--directory", str(path))


def test_the_call_begins_after_the_interpreter_even_with_a_space_in_its_path():
    """A Python in a folder with a space runs."""
    call = read_call("/my env/bin/python -m snakemake --cores 1", "/my env/bin/python")
    assert call.argv == ("/my env/bin/python", "-m", "snakemake", "--cores", "1")


def test_a_precommand_is_the_only_thing_a_shell_reads():
    """A precommand runs in a shell; the arguments after it are not expanded by it."""
    text = "module load x && python -m snakemake --config 'a=$HOME'"
    call = read_call(text, "python", "module load x")
    assert call.argv[:3] == ("bash", "-c", 'module load x && exec "$@"')
    assert call.argv[3:] == ("bash", "python", "-m", "snakemake", "--config", "a=$HOME")


def test_an_unknown_command_line_is_refused():
    """What does not begin as Snakemake's command line does is not guessed at."""
    with pytest.raises(RequestError, match="too new"):
        read_call("export A=b && python -m snakemake", "python")


def test_without_a_precommand_no_shell_is_involved():
    """A plain call is the interpreter and its arguments."""
    assert Call("py", ("--cores", "1")).argv == ("py", "-m", "snakemake", "--cores", "1")


@pytest.mark.parametrize(
    "name",
    ["SNAKEMAKE_PROFILE", "SLURM_JOB_ID", "SLURMD_NODENAME", "PBS_JOBID", "LSB_JOBID", "PMI_RANK"],
)
def test_what_belongs_to_the_drivers_own_job_stays_behind(name: str):
    """A rule does not take the driver's batch job for its own."""
    assert job_environment({name: "1", "KEPT": "yes"}, {}) == {"KEPT": "yes"}


@pytest.mark.parametrize(
    "name", ["PATH", "SLURM_CONF", "SGE_ROOT", "PBS_CONF_FILE", "QUEUE", "JOB_ID", "_CONDOR_ETC"]
)
def test_the_rest_of_the_environment_comes_along(name: str):
    """Rules see the user's environment, the site's settings included."""
    assert job_environment({name: "v a$l'ue"}, {}) == {name: "v a$l'ue"}


def test_inside_a_grid_engine_job_its_common_words_stay_behind():
    """JOB_ID and QUEUE of a Grid Engine job are dropped where they are one's."""
    environ = {"SGE_TASK_ID": "undefined", "JOB_ID": "7", "QUEUE": "all.q", "HOME": "/h"}
    assert job_environment(environ, {}) == {"HOME": "/h"}


@pytest.mark.parametrize("carried", [[], [("one", {"name": "a"})]])
def test_a_job_whose_wildcards_would_be_lost_is_refused(carried):
    """A job that the nested call would take for another fails with the reason."""
    with pytest.raises(RequestError, match="comma"):
        check_targets([("one", {"name": "'a'"})], carried)


def test_a_job_whose_wildcards_are_carried_runs():
    """Wildcards that come back as they were are accepted."""
    check_targets([("one", {"name": "a"}), ("two", {})], [("one", {"name": "a"}), ("two", {})])


def test_declared_values_win():
    """What the workflow declares reaches the job whatever its name is."""
    assert job_environment({"TOKEN": "old"}, {"TOKEN": "new"}) == {"TOKEN": "new"}
