"""What a batch system says of its queues becomes a config that can be read, whatever it says."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcburst.errors import SiteError
from hpcburst.policy.ask import Told, ask, plain_environment
from hpcburst.policy.discover import Machine, discover
from hpcburst.policy.discovery import readings
from hpcburst.policy.discovery.found import Found, FoundQueue, Node, joined, largest
from hpcburst.policy.discovery.page import page, walltime_text
from hpcburst.policy.discovery.systems import SYSTEMS
from hpcburst.policy.load import build_site, merged
from hpcburst.policy.model import Queue
from hpcburst.policy.present import SCHEDULERS, detect
from hpcburst.policy.sources import default_section

GOLDEN = Path(__file__).parents[2] / "golden" / "site"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/page.yaml"))
MACHINE = Machine(cores=4, memory_mb=8000)


def answers_in(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in folder.glob("*.txt")}


def nothing_told(scheduler):
    """The batch system is not there."""
    return


def silence(argv):
    """A command that fails."""
    return ""


def no_controller(argv):
    """A command whose server is down."""
    return Told("", "sinfo ended with status 1: no controller")


def site_from(text: str):
    section = merged(default_section(), yaml.safe_load(text)["hpcburst"])
    return build_site(section | {"host": "driver"}, MACHINE, nothing_told)


@pytest.mark.parametrize("folder", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_a_site_told_is_written_down_as_it_is(folder):
    """The queues, limits and guesses on the page are those that the batch system told."""
    scheduler = folder.parent.name
    found = SYSTEMS[scheduler].read(answers_in(folder))

    assert page(scheduler, found) == (folder / "page.yaml").read_text()


@pytest.mark.parametrize("folder", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_is_written_down_is_a_config_that_holds(folder):
    """The page can be loaded as it stands, and promises no queue more than was told."""
    found = SYSTEMS[folder.parent.name].read(answers_in(folder))
    site = site_from((folder / "page.yaml").read_text())

    assert [queue.name for queue in site.queues] == [row.queue.name for row in found.queues]
    for queue, row in zip(site.queues, found.queues, strict=True):
        assert queue.max_cores == row.queue.max_cores
        assert queue.max_memory_mb <= row.queue.max_memory_mb
        assert queue.max_walltime_s == row.queue.max_walltime_s
        assert (queue.price, queue.burst) == (row.queue.price, row.queue.burst)


def test_slurm_is_understood_in_its_details():
    """GPUs, threads, prices, closed partitions and the default are what Slurm told."""
    found = SYSTEMS["slurm"].read(answers_in(GOLDEN / "slurm" / "private"))
    rows = {row.queue.name: row for row in found.queues}

    assert found.queues[0].queue.name == "batch"
    assert rows["gpu"].queue.max_gpus == 4
    assert rows["gpu"].queue.max_cores == 30  # MaxCPUsPerNode, of 32
    assert rows["gpu"].queue.price == 4.0
    assert rows["short"].queue.max_walltime_s == 600
    assert rows["short"].queue.burst
    assert not rows["batch"].queue.burst
    assert "PreemptMode=REQUEUE" in str(rows["scavenge"].remarks)
    assert set(found.closed) == {"closed", "staff", "resv"}
    assert found.settings == {"max-pending": 8}


def test_grid_engine_tells_how_cores_and_memory_are_asked_for():
    """The parallel environment that keeps to one host, and the memory that counts, are found."""
    found = SYSTEMS["sge"].read(answers_in(GOLDEN / "sge" / "manual"))

    assert found.dialect == {"parallel-environment": "smp", "memory-resource": "mem_free"}
    assert found.queues[0].queue.max_walltime_s == 86400  # the least of all its hosts


def test_answers_that_do_not_come_leave_the_rest():
    """Slurm without `scontrol`, or without `sinfo`, still tells its partitions."""
    answers = answers_in(GOLDEN / "slurm" / "private")
    without = SYSTEMS["slurm"].read({"nodes": answers["nodes"]})

    assert "batch" in [row.queue.name for row in without.queues]
    assert SYSTEMS["slurm"].read({}) == Found()


@pytest.mark.parametrize("scheduler", SYSTEMS)
def test_only_what_reads_is_ever_asked(scheduler):
    """Looking at a site changes nothing there: the commands are those that show."""
    system = SYSTEMS[scheduler]
    told = dict.fromkeys(system.first, "smp\n")
    argvs = [*system.first.values(), *system.then(told).values()]
    shows = {"sinfo", "qhost", "pbsnodes", "bqueues", "bparams", "lshosts", "condor_status"}
    options = {"scontrol": "show", "qstat": "-", "qconf": "-s", "oarnodes": "-J"}

    assert len(argvs) <= 5
    for command, *words in argvs:
        assert command in shows or words[0].startswith(options[command])


ODD = st.text(alphabet=string.printable + "é\x00\u2028", max_size=300)
PIECES = sorted({line for folder in CASES for text in answers_in(folder).values()
                 for line in text.splitlines()})  # fmt: skip


@st.composite
def answers(draw, scheduler):
    """Lines that batch systems print, in any order, cut anywhere, amid noise."""
    lines = st.lists(st.sampled_from(PIECES) | ODD, max_size=12).map("\n".join)
    cut = st.builds(lambda text, end: text[: end or None], lines, st.integers(0, 400))
    names = [*SYSTEMS[scheduler].first, "free", "environment-smp"]
    return {name: draw(cut) for name in names}


@pytest.mark.parametrize("scheduler", SYSTEMS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_no_answer_breaks_the_reading_or_the_page(scheduler, data):
    """Whatever is printed, nothing crashes, and what is found can be loaded."""
    told = data.draw(answers(scheduler))
    SYSTEMS[scheduler].then(told)
    found = SYSTEMS[scheduler].read(told)
    if found.queues:
        site = site_from(page(scheduler, found))
        assert [queue.name for queue in site.queues] == [row.queue.name for row in found.queues]


names = st.text(min_size=1, max_size=20)
found_queues = st.builds(
    FoundQueue,
    queue=st.builds(
        Queue,
        name=names,
        max_cores=st.integers(1, 10**6),
        max_memory_mb=st.integers(1, 10**9),
        max_gpus=st.integers(0, 16),
        max_walltime_s=st.integers(1, 10**8).map(float),
        price=st.floats(0, 1000),
    ),
    guesses=st.dictionaries(st.sampled_from(["cores", "memory", "walltime"]), ODD),
    remarks=st.lists(ODD, max_size=2).map(tuple),
    is_default=st.booleans(),
    priority=st.none() | st.integers(0, 100),
    closed=st.sampled_from(["", "it is down"]),
)


@given(st.lists(found_queues, min_size=1, max_size=5))
def test_strangers_text_stays_text(rows):
    """A queue's name or remark is data on the page: it never becomes a key of the config."""
    found = joined(rows)
    document = yaml.safe_load(page("slurm", found))
    queues = document["hpcburst"]["queues"] or {}

    assert set(document) == {"hpcburst"}
    assert set(document["hpcburst"]) == {"scheduler", "queues"}
    assert list(queues) == [row.queue.name for row in found.queues]


def test_one_queue_for_bursts_is_the_one_that_goes_first_and_is_short():
    """A queue whose jobs go before all others is only marked when it takes short jobs."""
    first = FoundQueue(Queue("first", 1, 1, max_walltime_s=3600), priority=9)
    slow = FoundQueue(Queue("slow", 1, 1, max_walltime_s=86400), priority=9)
    other = FoundQueue(Queue("other", 1, 1), priority=1)

    assert [row.queue.burst for row in joined([first, slow, other]).queues] == [True, False, False]
    assert [row.queue.burst for row in joined([first]).queues] == [False]


def test_a_job_within_the_limits_fits_on_a_real_node():
    """Cores and memory are those of one kind of node, not the most of each."""
    wide, deep = Node(64, 128_000), Node(16, 1_000_000, gpus=2)
    node, guesses = largest([wide, deep])

    assert (node.cores, node.memory_mb) == (64, 128_000)
    assert "differ" in guesses["cores"]
    assert "16 cores" in guesses["gpus"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30:00", 1800),
        ("1:00:00", 3600),
        ("1-00:00:00", 86400),
        ("2-12", 216_000),
        ("90", 5400),
        ("infinite", None),
        ("UNLIMITED", None),
        ("n/a", None),
        ("", None),
        ("\u0663:\u0660", None),
    ],
)
def test_times_are_read_as_slurm_means_them(text, seconds):
    """Two numbers are minutes and seconds, one is minutes, words are no limit."""
    assert readings.walltime_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("8000", 8388), ("8000+", 8388), ("62.8G", 67430), ("263863120kb", 270195), ("N/A", None)],
)
def test_memory_is_read_in_powers_of_two_and_rounded_down(text, megabytes):
    """A job that asks for what was read fits into what was meant."""
    assert readings.memory_mb(text) == megabytes


@given(ODD)
def test_no_amount_breaks_its_reading(text):
    """Any text is an amount, or none."""
    for read in (readings.count, readings.memory_mb, readings.walltime_s):
        assert read(text) is None or read(text) >= 0


@given(st.floats(1, 10**8))
def test_a_length_of_time_is_written_without_loss(seconds):
    """What is written reads as the same length, to six digits."""
    from hpcburst.amounts import read_walltime_s

    text = walltime_text(round(seconds))
    assert read_walltime_s(text) == round(seconds)


@pytest.mark.parametrize(
    ("commands", "name"),
    [
        ("", "local"),
        ("sbatch squeue", "slurm"),
        ("sbatch squeue qsub qstat bsub bjobs", "slurm"),
        ("sbatch", "local"),
        ("qsub qstat qconf", "sge"),
        ("qsub qstat", "pbs"),
        ("bsub bjobs", "lsf"),
        ("oarsub oarstat", "oar"),
        ("condor_submit condor_q", "htcondor"),
        ("condor_submit condor_q qsub qstat", "pbs"),
    ],
)
def test_the_batch_system_is_told_by_its_commands(commands, name):
    """All commands of a system must be there, and wrappers of another's names do not count."""
    there = commands.split()
    found = detect(lambda command: command if command in there else None, silence)

    assert found == name
    assert found in SCHEDULERS


def test_torque_says_so_itself():
    """Two systems have the same commands; the one tells its name when it is asked for it."""
    assert detect({"qsub": "1", "qstat": "1"}.get, "Version: {}".format) == "torque"


def test_a_system_that_does_not_answer_says_why():
    """When no queue is told, the answer carries what the commands said."""
    with pytest.raises(SiteError, match="no controller"):
        discover("slurm", no_controller)
    with pytest.raises(SiteError, match="Those are slurm"):
        discover("cron")


def test_a_question_is_bounded_and_never_raises():
    """A command that is missing, fails or hangs is a reason, not a crash, and ends in time."""
    assert ask(["printf", "x\\n"]) == Told("x\n")
    assert "cannot start" in ask(["no-such-command-here"]).trouble
    assert ask(["sh", "-c", "echo why >&2; exit 3"]).trouble == "sh ended with status 3: why"
    assert "did not answer" in ask(["sleep", "60"], timeout_s=0.1).trouble


def test_preferences_of_the_user_do_not_change_an_answer():
    """Variables that change what these commands print are left out; the one that leads is kept."""
    mine = {"SINFO_FORMAT": "%N", "SLURM_CONF": "/etc/s.conf", "SQUEUE_SORT": "i", "PATH": "/bin"}
    seen = plain_environment(mine)

    assert "SINFO_FORMAT" not in seen
    assert "SQUEUE_SORT" not in seen
    assert (seen["SLURM_CONF"], seen["PATH"], seen["LC_ALL"]) == ("/etc/s.conf", "/bin", "C")
