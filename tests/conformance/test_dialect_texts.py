"""What every dialect must make of texts, and what texts it must make: nothing runs here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError, SiteError, SubmitError
from hpcburst.jobs.dialect import NO_NEWS, JobNews, JobState
from hpcburst.jobs.known import DIALECTS
from hpcburst.jobs.local import LocalDialect
from hpcburst.tasks import Shape

GOLDEN = Path(__file__).parents[1] / "golden" / "jobs"
SHAPE = Shape(cores=2, memory_mb=2000, gpus=1, walltime_s=600, queue="short")

ALL = {name: make() for name, make in DIALECTS.items()} | {"local": LocalDialect(Path("/spool"))}
every_dialect = pytest.mark.parametrize("dialect", ALL.values(), ids=ALL)


def goldens(pattern):
    """Files of that name, each with the dialect it is for."""
    paths = sorted(GOLDEN.glob(f"*/{pattern}"))
    return pytest.mark.parametrize(
        ("dialect", "path"),
        [pytest.param(ALL[p.parent.name], p, id=f"{p.parent.name}-{p.stem}") for p in paths],
    )


@goldens("*.json")
def test_real_answers_are_read(dialect, path):
    """Amid banners and cut lines, each job's state, reason and node are found."""
    expected = json.loads(path.read_text())
    news = dialect.read_states(path.with_suffix(".txt").read_text(), list(expected))
    assert {job: [n.state.value, n.reason, n.host, n.held] for job, n in news.items()} == expected


@goldens("*.json")
def test_an_answer_that_breaks_off_is_never_read_wrongly(dialect, path):
    """However early an answer breaks off, a job is told of as it is or not at all."""
    text = path.with_suffix(".txt").read_text()
    expected = {job: row[0] for job, row in json.loads(path.read_text()).items()}
    for end in range(0, len(text), 7):
        told = dialect.read_states(text[:end], list(expected))
        states = {job: news.state.value for job, news in told.items()}
        assert all(states[job] in (expected[job], "unknown") for job in expected), text[:end]


@goldens("trouble-*.txt")
def test_an_error_is_not_taken_for_an_answer(dialect, path):
    """When the batch system is away, its jobs are not: an error text is an error."""
    with pytest.raises(SiteError, match="did not answer"):
        dialect.read_states(path.read_text(), ["1"])
    with pytest.raises(SiteError):
        dialect.read_states(f"Welcome!\n\n{path.read_text()}", ["1"])


@goldens("gone-*.txt")
def test_a_job_that_is_gone_is_no_trouble(dialect, path):
    """A complaint about a job that is no more is known from a batch system that is away."""
    assert dialect.gone.search(path.read_text())
    assert not dialect.trouble.search(path.read_text())


@every_dialect
def test_no_answer_is_no_news(dialect):
    """An empty answer, or one that cannot be read, says nothing of any job."""
    for text in ("", "\n\n", "garbage", "no such job\n\n1 2 3\n", "7 exploding", "7|||"):
        news = dialect.read_states(text, ["7", "8"])
        assert list(news) == ["7", "8"]
        assert {told.state for told in news.values()} == {JobState.UNKNOWN}


PIECES = (
    *(
        [
            "7",
            "|",
            "RUNNING",
            "undefined",
            "n/a",
            "%i",
            "1.234,5",
            "[1-",
            "]",
            "٣",
            "½",
            "²",
            "保守",
            "<job_list>",
            "</job_list>",
        ]
    ),
    *("\n", "\t", " ", "\x00", "\ud800", "é\r", "9" * 400, "<state>r</state>"),
    *("Job Id: 7", "Job_Id: 7", "    job_state = R", "    state = "),
)
ROUGH = st.one_of(
    st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
)


@every_dialect
@given(
    text=ROUGH, ids=st.lists(st.sampled_from(["7", "8", "9.server", "10.0", "x", ""]), max_size=4)
)
def test_any_text_is_survived(dialect, text, ids):
    """Whatever a site prints, every id that was asked about has news, or the answer is an error."""
    try:
        news = dialect.read_states(text, ids)
    except SiteError:
        assert dialect.trouble.search(text)
    else:
        assert set(news) == set(ids)
        assert all(isinstance(told, JobNews) for told in news.values())
    assert dialect.read_limit(text, 0.0) is None or dialect.read_limit(text, 0.0) >= 0
    count = len(dialect.gaps_argv(["short"]))
    if not dialect.trouble.search(text):
        assert all(gap.cores > 0 < gap.length_s for gap in dialect.read_gaps([text] * count, 0.0))


@every_dialect
def test_commands_are_words_and_never_shell(dialect):
    """Every command is a list of words with the ids as words of their own, in one call for all."""
    ids = [f"{number}.server" for number in range(100)]
    commands = [dialect.states_argv(ids), dialect.cancel_argv(ids), *dialect.gaps_argv(["a", "b"])]
    submission = dialect.submission("/runs/it's $HOME.sh", "#!/bin/sh\ntrue\n")
    for argv in [*commands, list(submission.argv)]:
        assert argv
        assert all(isinstance(word, str) for word in argv)
    assert set(ids) <= set(dialect.cancel_argv(ids))
    assert "/runs/it's $HOME.sh" in submission.argv or submission.stdin or "true" in submission.argv


@every_dialect
def test_a_submission_that_tells_no_id_is_an_error(dialect):
    """An answer without a job id is told as it is, and no number in it is taken for one."""
    with pytest.raises(SubmitError, match="Quota"):
        dialect.read_submitted("Quota: 87 of 100 GB used on 3 disks\n")


SUBMITTED = {
    "slurm": ("Submitted batch job 12 on cluster alps\n", "12"),
    "pbs": ("12.pbs-server.site\n", "12.pbs-server.site"),
    "torque": ("12.torque\r\n", "12.torque"),
    "sge": ('Your job 12 ("hpcburst") has been submitted\n', "12"),
    "lsf": ("Job <12> is submitted to default queue <normal>.\n", "12"),
    "htcondor": ("Submitting job(s).\n1 job(s) submitted to cluster 12.\n", "12.0"),
    "oar": ("[ADMISSION RULE] Set default walltime to 7200.\nOAR_JOB_ID=12\n", "12"),
    "local": ("Submitted local job 12\n", "12"),
}


@pytest.mark.parametrize("name", SUBMITTED)
def test_the_job_id_is_found_behind_a_banner(name):
    """Numbers in a message of the day are not taken for the id of a job."""
    text, job_id = SUBMITTED[name]
    banner = "*** 3 days until maintenance, 2026-12-01 ***\n2 hours left of 100\n"
    assert ALL[name].read_submitted(banner + text) == job_id


@every_dialect
def test_a_job_asks_for_its_shape_and_names_its_log(dialect):
    """Options are plain data; the log of a job can be found from its id alone."""
    options = dialect.job_options(SHAPE, "/home/ana/runs/logs", ["n1"])
    assert all(isinstance(name, str) for name in options)
    assert dialect.log_of("/home/ana/runs/logs", "12.server") in (
        "/home/ana/runs/logs/12.log",
        "/home/ana/runs/logs/12.server.log",
    )


HOSTILE = ["two words", "a;b", "$(id)", "a\n#SBATCH -A other", "-p", "", "a'b", 'a"b', "a`id`"]


@every_dialect
@pytest.mark.parametrize("queue", HOSTILE)
def test_a_queue_is_a_name_and_never_a_directive(dialect, queue):
    """A queue's name cannot carry a second directive or a command into the job script."""
    if dialect.name in ("local", "htcondor"):
        assert queue not in repr(dialect.job_options(Shape(queue=queue), "/logs")) or not queue
        return
    with pytest.raises(RequestError, match="queue"):
        dialect.job_options(Shape(queue=queue), "/logs")


@every_dialect
@pytest.mark.parametrize("name", ["two words", "a\nb", "$(id)", "%j", "a'b", "a\\b", "a:b", "a,b"])
def test_a_log_folder_is_a_path_and_nothing_else(dialect, name):
    """A path that a batch system would read as more than a name is refused with the reason."""
    if dialect.name == "local":
        return  # it has quoting: test_dialects gives it worse names
    with pytest.raises(SiteError, match="shared root"):
        dialect.job_options(SHAPE, f"/home/{name}/logs")


@every_dialect
def test_nodes_to_avoid_are_names(dialect):
    """What is no name of a node is never written into a job script."""
    options = dialect.job_options(SHAPE, "/logs", ["a b", "$(id)", "n1;rm", "-x", "n\n2"])
    assert options == dialect.job_options(SHAPE, "/logs")


def test_what_is_not_known_is_unknown():
    """No news of a job is told as an unknown state, without reason or node."""
    assert JobNews(JobState.UNKNOWN) == NO_NEWS
