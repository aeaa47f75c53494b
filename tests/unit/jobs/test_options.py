"""A shape becomes a job script that asks for it, in each batch system's own words."""

from __future__ import annotations

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpcburst.pools.fleet  # noqa: F401 - imports dask_jobqueue without giving it our signals
from hpcburst.errors import RequestError
from hpcburst.jobs.directives import clock, mebibytes, with_section
from hpcburst.jobs.htcondor import HtcondorDialect
from hpcburst.jobs.lsf import LsfDialect
from hpcburst.jobs.oar import OarDialect
from hpcburst.jobs.pbs import PbsDialect
from hpcburst.jobs.sge import SgeDialect
from hpcburst.jobs.slurm import SlurmDialect
from hpcburst.placement import Placement, Spread
from hpcburst.tasks import Shape

LOGS = "/home/ana/runs/logs"
SHAPE = Shape(cores=4, memory_mb=8000, gpus=2, walltime_s=601, queue="short")
SMALL = Shape(cores=1, memory_mb=2000, walltime_s=30)


def script(dialect, shape=SHAPE, avoid=("n1", "n2"), **section):
    """The job script that dask-jobqueue writes from our options and a user's section."""
    import dask_jobqueue

    job_class = {
        "slurm": dask_jobqueue.slurm.SLURMJob,
        "pbs": dask_jobqueue.pbs.PBSJob,
        "sge": dask_jobqueue.sge.SGEJob,
        "lsf": dask_jobqueue.lsf.LSFJob,
        "htcondor": dask_jobqueue.htcondor.HTCondorJob,
        "oar": dask_jobqueue.oar.OARJob,
    }[dialect.name]
    where = f"jobqueue.{dialect.name}"
    with dask.config.set({f"{where}.{name}": value for name, value in section.items()}):
        options = with_section(dialect.job_options(shape, LOGS, avoid), dask.config.get(where))
        cores, memory = shape.cores, f"{shape.memory_mb}MB"
        job = job_class("tls://h:1", "pilot-1", cores=cores, memory=memory, processes=1, **options)
        return job.job_script()


def lines(dialect, mark, *args, **section):
    """The directives of that script."""
    text = script(dialect, *args, **section)
    return [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]


def test_slurm():
    """Slurm gets whole minutes, MiB, one log, and never starts a pilot a second time."""
    assert lines(SlurmDialect(warn_s=60), "#SBATCH ", name="hpcburst") == [
        "-J hpcburst",
        "-p short",
        "-n 1",
        "--cpus-per-task=4",
        "--mem=7630M",
        "-t 0:11:00",
        "--no-requeue",
        f"-o {LOGS}/%j.log",
        "--gres=gpu:2",
        "--signal=B:USR1@60",
        "--exclude=n1,n2",
    ]


def test_pbs():
    """PBS gets one chunk on one node, a walltime in seconds, and a log with a name we know."""
    directives = lines(PbsDialect(), "#PBS ", name="hpcburst")
    assert directives[:4] == [
        "-N hpcburst",
        "-q short",
        "-l select=1:ncpus=4:mem=7630mb:ngpus=2",
        "-l walltime=0:10:01",
    ]
    assert {"-r n", "-j oe", "-S /bin/bash", f"-o {LOGS}/"} == set(directives[4:])
    assert f'exec >>{LOGS}/"${{PBS_JOBID%%.*}}".log 2>&1' in script(PbsDialect()).splitlines()


def test_torque():
    """Torque gets nodes and processors per node."""
    assert "-l nodes=1:ppn=4:gpus=2,mem=7630mb" in lines(PbsDialect(torque=True), "#PBS ")


def test_grid_engine():
    """Grid Engine gets slots, memory for each of them, and no s_rt: it would end jobs late."""
    directives = lines(SgeDialect("threads", "h_vmem", "cuda"), "#$ ", name="hpcburst")
    assert directives == [
        "-N hpcburst",
        "-q short",
        "-l h_rt=601",
        "-cwd",
        "-j y",
        "-S /bin/bash",
        "-r n",
        "-w e",
        f"-o {LOGS}/$JOB_ID.log",
        "-pe threads 4",
        "-l h_vmem=1908M",
        "-l cuda=2",
        "-l h=!(n1|n2)",
    ]
    small = lines(SgeDialect(), "#$ ", SMALL, ())
    assert not [line for line in small if line.startswith("-pe") or "vmem" in line]


def test_lsf():
    """LSF gets whole minutes, slots on one host, and does not run a pilot again."""
    with dask.config.set({"jobqueue.lsf.lsf-units": "mb"}):
        directives = lines(LsfDialect(warn_s=90), "#BSUB ", name="hpcburst")
    assert directives == [
        "-J hpcburst",
        "-q short",
        "-n 4",
        '-R "span[hosts=1]"',
        "-M 8000",
        "-W 00:11",
        "-rn",
        f"-o {LOGS}/%J.log",
        '-gpu "num=2"',
        "-wa USR1 -wt 2",
        "-R \"select[hname!='n1' && hname!='n2']\"",
    ]
    assert f'exec >>{LOGS}/"$LSB_JOBID".log 2>&1' in script(LsfDialect()).splitlines()


def test_htcondor():
    """HTCondor removes a pilot at its walltime, and when it would run it a second time."""
    text = script(HtcondorDialect()).splitlines()
    assert "request_gpus = 2" in text
    assert f"output = {LOGS}/$(ClusterId).log" in text
    assert 'requirements = TARGET.Machine =!= "n1" && TARGET.Machine =!= "n2"' in text
    (rule,) = [line for line in text if line.startswith("periodic_remove")]
    assert "NumJobStarts > 0" in rule
    assert "EnteredCurrentStatus > 601" in rule
    assert text[-1] == "Queue"


def test_oar():
    """OAR gets cores of one node, or its GPUs, and a log with the job's id."""
    small = lines(OarDialect(warn_s=60), "#OAR ", SMALL, (), name="hpcburst")
    assert small == [
        "-n hpcburst",
        "-l /nodes=1/core=1,walltime=0:00:30",
        f"-O {LOGS}/%jobid%.log",
        f"-E {LOGS}/%jobid%.log",
        "--checkpoint 60 --signal 10",
    ]
    assert "-l /nodes=1/gpu=2,walltime=0:10:01" in lines(OarDialect(), "#OAR ")


def test_oar_gets_the_script_itself():
    """OAR reads a script's file on the node, when ours is gone: the text goes with the command."""
    text = "#!/bin/sh\n#OAR -n hpcburst\n#OAR -p 'mem > 2'\n\nexport A='1 #2'\nexec work\n"
    assert OarDialect().submission("/gone.sh", text).argv == (
        "oarsub",
        *("-n", "hpcburst", "-p", "mem > 2"),
        "export A='1 #2'\nexec work",
    )


ALL = [SlurmDialect(), PbsDialect(), SgeDialect(), LsfDialect(), HtcondorDialect(), OarDialect()]
every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


@every_dialect
def test_the_users_own_directives_stay(dialect):
    """What a user wrote into the jobqueue section still counts, before ours."""
    theirs = {"+Project": '"x"'} if dialect.name == "htcondor" else ["--mine"]
    text = script(dialect, **{"job-extra-directives": theirs, "job-script-prologue": ["module a"]})
    assert ("+Project" if dialect.name == "htcondor" else "--mine") in text
    assert "module a" in text


@every_dialect
def test_old_names_in_the_users_section_count_too(dialect):
    """`job-extra` and `env-extra`, as dask-jobqueue called them once, are not lost."""
    theirs = {"+Project": '"x"'} if dialect.name == "htcondor" else ["--mine"]
    with pytest.warns(FutureWarning):
        text = script(dialect, **{"job-extra": theirs, "env-extra": ["module a"]})
    assert ("+Project" if dialect.name == "htcondor" else "--mine") in text
    assert "module a" in text


@pytest.mark.parametrize("dialect", ALL[:4], ids=lambda dialect: dialect.name)
def test_a_users_log_directory_does_not_take_our_logs(dialect, tmp_path):
    """The log of a pilot is where it is looked for, whatever the user's section says."""
    text = script(dialect, **{"log-directory": str(tmp_path)})
    assert str(tmp_path) not in text
    assert LOGS in text


@pytest.mark.parametrize("dialect", [*ALL[:4], ALL[5]], ids=lambda dialect: dialect.name)
def test_the_users_queue_counts_when_no_other_is_asked_for(dialect):
    """A queue of the user's section is used for shapes without one, and for no other shape."""
    assert "theirs" in script(dialect, SMALL, queue="theirs")
    assert "theirs" not in script(dialect, SHAPE, queue="theirs")


def test_conditions_of_the_user_and_ours_hold_together():
    """HTCondor takes one expression for each condition: both are in it."""
    theirs = {"requirements": 'OpSys == "LINUX"', "periodic_remove": "JobStatus == 5"}
    text = script(HtcondorDialect(), **{"job-extra-directives": theirs, "disk": "7GB"})
    assert '(OpSys == "LINUX") && (TARGET.Machine =!= "n1"' in text
    assert "(JobStatus == 5) || ((JobStatus == 1" in text
    assert "MY.DaskWorkerDisk = 7000000000" in text


def test_a_users_memory_property_counts():
    """OAR's memory is asked for by the property the user's section names."""
    text = script(OarDialect(), SMALL, (), **{"memory-per-core-property-name": "mem_core"})
    assert "#OAR -p mem_core>=1908" in text


PLACED = Placement("physics", "urgent", "avx512&ib", "friday", "a100", 4000)
WIDE = Shape(cores=8, memory_mb=1000, gpus=1, walltime_s=60, spread=Spread(nodes=3, tasks=12))


def placed(*left_out, **fields):
    """A shape with that placement, without some of its fields."""
    kept = {name: getattr(PLACED, name) for name in Placement.__dataclass_fields__}
    kept |= dict.fromkeys(left_out) | fields
    kept["disk_core_mb"] = kept["disk_core_mb"] or 0
    return Shape(cores=2, memory_mb=1000, gpus=1, walltime_s=60, placement=Placement(**kept))


def test_slurm_is_told_of_the_whole_placement():
    """Account, qos, constraint, reservation, model and (where nodes state it) disk."""
    told = lines(SlurmDialect(disk_resource="tmp"), "#SBATCH ", placed(), ())
    expected = ["-A physics", "--qos=urgent", "--constraint=avx512&ib", "--reservation=friday"]
    assert {*expected, "--gres=gpu:a100:1", "--tmp=7630M"} <= set(told)
    assert not [line for line in lines(SlurmDialect(), "#SBATCH ", placed(), ()) if "tmp" in line]
    (odd,) = [
        line
        for line in lines(SlurmDialect(), "#SBATCH ", placed(constraint="[rack1*2|rack2]"), ())
        if "constraint" in line
    ]
    assert odd == "--constraint=[rack1*2|rack2]"


def test_pbs_and_torque_are_told_of_the_placement():
    """Features are parts of the node's specification."""
    shape = placed("gpu_model", "qos", "reservation")
    told = lines(PbsDialect(disk_resource="scratch"), "#PBS ", shape, ())
    size = "select=1:ncpus=2:mem=954mb:ngpus=1:scratch=7630mb:avx512=True:ib=True"
    assert {"-A physics", f"-l {size}"} <= set(told)
    told = lines(PbsDialect(torque=True), "#PBS ", placed("gpu_model"), ())
    assert "-l nodes=1:ppn=2:gpus=1:avx512:ib,mem=954mb" in told
    assert {"-l qos=urgent", "-l advres=friday"} <= set(told)


def test_the_others_are_told_of_the_placement():
    """Each in its own words."""
    told = lines(SgeDialect(disk_resource="tmp"), "#$ ", placed("gpu_model", "qos"), ())
    assert {"-P physics", "-l avx512", "-l ib", "-ar friday", "-l tmp=3815M"} <= set(told)
    with dask.config.set({"jobqueue.lsf.lsf-units": "mb"}):
        told = lines(LsfDialect(disk_resource="tmp"), "#BSUB ", placed(constraint="a&m=b"), ())
    assert {'-P "physics"', "-sla urgent", "-U friday", '-gpu "num=1:gmodel=a100"'} <= set(told)
    assert {'-R "select[a && m==b]"', '-R "rusage[tmp=7630]"'} <= set(told)
    shape = placed("qos", "reservation", "gpu_model", constraint="avx512&rack=r1")
    text = script(HtcondorDialect(), shape, ()).splitlines()
    assert 'requirements = TARGET.avx512 =?= True && TARGET.rack =?= "r1"' in text
    assert {"accounting_group = physics", "RequestDisk = 7812500"} <= set(text)
    told = lines(OarDialect(), "#OAR ", placed("qos", "constraint", "gpu_model"), ())
    assert {"--project physics", "-t inner=friday"} <= set(told)


@pytest.mark.parametrize("value", ["a b", "a\nb", "$(id)", 'a"b', "a;b", "-x", "`id`", ""])
@pytest.mark.parametrize("name", ["account", "qos", "constraint", "reservation", "gpu_model"])
@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_what_is_no_name_never_reaches_a_job_script(dialect, name, value):
    """Text that a shell or a batch system would read as more than a name is refused."""
    shape = Shape(gpus=1, placement=Placement(**{name: value}))
    if value:
        with pytest.raises(RequestError):
            dialect.job_options(shape, LOGS)


@pytest.mark.parametrize(
    ("dialect", "mark", "expected"),
    [
        (SlurmDialect(), "#SBATCH ", {"--nodes=3", "--ntasks=12", "--cpus-per-task=2"}),
        (PbsDialect(), "#PBS ", {"-l select=3:ncpus=8:mem=954mb:ngpus=1:mpiprocs=4"}),
        (PbsDialect(torque=True), "#PBS ", {"-l nodes=3:ppn=8:gpus=1,mem=2862mb"}),
        (SgeDialect(), "#$ ", {"-pe mpi 24"}),
        (LsfDialect(), "#BSUB ", {"-n 24", '-R "span[ptile=8]"'}),
        (OarDialect(), "#OAR ", {"-l /nodes=3/gpu=1,walltime=0:01:00"}),
    ],
    ids=["slurm", "pbs", "torque", "sge", "lsf", "oar"],
)
def test_a_job_on_several_nodes_is_asked_for_node_by_node(dialect, mark, expected):
    """Nodes, processes and what each node has; nothing that says one process or one host."""
    with dask.config.set({"jobqueue.lsf.lsf-units": "mb"}):
        told = set(lines(dialect, mark, WIDE, ()))
    assert expected <= told
    assert not told & {"-n 1", '-R "span[hosts=1]"'}


def test_htcondor_refuses_several_nodes():
    """It would need another universe."""
    with pytest.raises(RequestError, match="3 nodes"):
        HtcondorDialect().job_options(WIDE, LOGS)


@given(seconds=st.floats(0, 10**7), step_s=st.sampled_from([1, 60]))
def test_a_walltime_is_never_cut(seconds, step_s):
    """A walltime is written as at least what was asked for, by less than a step more."""
    hours, minutes, rest = map(int, clock(seconds, step_s=step_s).split(":"))
    written_s = hours * 3600 + minutes * 60 + rest
    assert seconds <= written_s
    assert written_s < seconds + step_s or written_s == step_s
    assert minutes < 60 > rest


@given(memory_mb=st.integers(1, 10**9))
def test_memory_is_never_cut(memory_mb):
    """A job gets at least the memory asked for, by less than a MiB more."""
    assert 0 <= mebibytes(memory_mb) * 2**20 - memory_mb * 10**6 < 2**20
