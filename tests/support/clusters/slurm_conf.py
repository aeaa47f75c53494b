"""The text of a private Slurm's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.clusters.cluster import Size

CONFIGURATION = """\
ClusterName=private
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
# Everybody who may use it is on this machine: nothing listens beyond the loopback.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A preempted job is eligible again after this plus a second, not after two minutes.
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5

StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none

# No cgroups: they need root, and one tree of them is shared by all clusters of a machine.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=UsePss,OverMemoryKill

# Nodes may claim more than this machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_of_core_mb}

# Looks every second or two, so that tests wait for nothing else.
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,bf_resolution=1,bf_window=1440,bf_continue,\\
sched_interval=2,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
# A node that was silent comes back by itself; one that was set down stays down.
ReturnToService=1
SlurmdTimeout=20
KillWait=5
MinJobAge=300

NodeName={nodes} NodeHostName={host} NodeAddr={address} Port={ports} \\
  CPUs={cores} Boards=1 SocketsPerBoard=1 CoresPerSocket={cores} ThreadsPerCore=1 \\
  RealMemory={memory_mb} State=UNKNOWN
# The two that may be preempted run in what the others leave.
PartitionName=short Nodes=ALL PriorityTier=10 MaxTime=10 DefaultTime=1 PreemptMode=OFF
PartitionName=batch Nodes=ALL PriorityTier=5 MaxTime=1-0 DefaultTime=10 PreemptMode=OFF Default=YES
PartitionName=scavenge Nodes=ALL PriorityTier=1 MaxTime=60 DefaultTime=5 PreemptMode=REQUEUE
PartitionName=cancelme Nodes=ALL PriorityTier=1 MaxTime=60 DefaultTime=5 PreemptMode=CANCEL
"""

NO_CGROUPS = "CgroupPlugin=disabled\n"
NO_CGROUPS_SINCE = (24, 5)
"""Before, slurmd touched cgroups only where its plug-ins asked; and did not know the word."""


@dataclass(frozen=True)
class Installation:
    """What a configuration depends on, besides the cluster's size.

    Attributes:
        folder: The cluster's folder.
        host: This machine's name.
        address: The address on the loopback that the daemons find under that name, and listen on.
        user: Who runs the daemons.
        first_port: The controller's; the nodes have the ones that follow.
        lines: What the starter adds.
    """

    folder: Path
    host: str
    address: str
    user: str
    first_port: int
    lines: Sequence[str] = field(default=())


def ports_needed(size: Size) -> int:
    """One for each node and one for the controller."""
    return size.nodes + 1


def configuration(size: Size, place: Installation) -> str:
    """slurm.conf; where two lines name the same thing, Slurm takes the later one, so ours yield."""
    first = place.first_port + 1
    text = CONFIGURATION.format(
        folder=place.folder,
        host=place.host,
        address=place.address,
        user=place.user,
        port=place.first_port,
        nodes=_range("n", 1, size.nodes),
        ports=_range("", first, first + size.nodes - 1),
        cores=size.cores,
        memory_mb=size.memory_mb,
        memory_of_core_mb=size.memory_mb // size.cores,
    )
    return text + "".join(f"{line}\n" for line in place.lines)


def _range(prefix: str, first: int, last: int) -> str:
    return f"{prefix}{first}" if first == last else f"{prefix}[{first}-{last}]"
