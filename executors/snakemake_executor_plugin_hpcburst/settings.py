"""What a user may set with `--hpcburst-...`; each value is checked before the first job."""

# Snakemake reads the field types themselves, so annotations must stay objects, and an Optional must
# be spelled Optional.
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase

from hpcburst.errors import BurstError, RequestError
from hpcburst.placement import Placement
from hpcburst.tasks import Shape
from snakemake_executor_plugin_hpcburst import conda_choice
from snakemake_executor_plugin_hpcburst.modes import AUTO, MODES
from snakemake_executor_plugin_hpcburst.resources import Defaults
from snakemake_executor_plugin_hpcburst.side_by_side import make_envs_side_by_side

LOG_FOLDER = Path(".snakemake/hpcburst_logs")

KEEP_DAYS = 10.0

THRESHOLD = 0.5
"""A rule that used less than this part of what it held is named below the efficiency table."""


def _setting(default: Any, text: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": text, **metadata})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]  # the interface is untyped
    """Settings of the executor; making one means that this executor was chosen.

    Attributes:
        max_jobs: Batch jobs at once, pending and running.
        mode: How a job runs on its pilot.
        shapes: Shapes a pilot may have, as `read_shapes` reads them; "" is the site's choice.
        default_mem_mb: Memory in MB of a rule that states none.
        default_runtime: Minutes of a rule that states no runtime.
        queue: Queue (partition) of rules that name none.
        account: Account (project) that rules which name none are charged to.
        qos: Quality of service of rules that name none.
        constraint: Node features that rules which name none need.
        reservation: Reservation that jobs of rules which name none run in.
        keep_logs: Keep the logs of jobs that ended well.
        keep_logs_days: Days after which what earlier runs left in `log_dir` is removed; 0 is never.
        log_dir: Folder of the jobs' logs.
        no_efficiency: Leave out the table of what rules used, at the end of a run.
        efficiency_threshold: Part of what it held below which a rule is named under that table.
        conda: Whose `conda` makes the rules' envs.

    Raises:
        WorkflowError: A value cannot be used.
    """

    max_jobs: int = _setting(
        50,
        "Batch jobs to hold at once, pending and running (default: 50). --jobs limits how many "
        "Snakemake jobs are under way; many of them share one batch job.",
        type=int,
        metavar="JOBS",
    )
    mode: str = _setting(
        AUTO,
        "How a job runs on its pilot. direct: its shell command alone, as the local executor runs "
        "it; zygote: in a Snakemake forked from one that is imported once per pilot; spawn: in a "
        "new Snakemake process. Each leaves jobs that it would change to the next; auto begins "
        "with direct (default: auto).",
        choices=[AUTO, *MODES],
        metavar="MODE",
    )
    shapes: str = _setting(
        "",
        "Shapes a batch job may have: CORES:MEMORY:WALLTIME[:GPUS[:QUEUE]], separated by commas, "
        "for instance 4:8GB:30m,1:32GB:2h,8:64GB:1h:2:gpu (default: what the site file allows).",
        type=str,
        metavar="SHAPES",
    )
    default_mem_mb: Optional[int] = _setting(  # noqa: UP045 - Snakemake does not know `int | None`
        None,
        "Memory in MB (10^6 bytes) for a rule without mem_mb (default: the site's).",
        type=int,
        metavar="MB",
    )
    default_runtime: Optional[float] = _setting(  # noqa: UP045 - as above
        None,
        "Minutes after which a job of a rule without runtime is stopped (default: when its "
        "batch job ends).",
        type=float,
        metavar="MINUTES",
    )
    queue: Optional[str] = _setting(  # noqa: UP045 - as above
        None,
        "Queue (partition) for rules that name none with the resource queue, slurm_partition, "
        "partition or lsf_queue (default: the site's).",
        type=str,
        metavar="QUEUE",
    )
    account: Optional[str] = _setting(  # noqa: UP045 - as above
        None,
        "Account (project) to charge for rules that name none with the resource account, "
        "slurm_account or project (default: yours).",
        type=str,
        metavar="ACCOUNT",
    )
    qos: Optional[str] = _setting(  # noqa: UP045 - as above
        None,
        "Quality of service for rules without the resource qos or slurm_qos (default: the site's).",
        type=str,
        metavar="QOS",
    )
    constraint: Optional[str] = _setting(  # noqa: UP045 - as above
        None,
        "Features that nodes must have for rules without the resource constraint, for instance "
        "avx512 or 'ib&bigmem' (default: any node).",
        type=str,
        metavar="FEATURES",
    )
    reservation: Optional[str] = _setting(  # noqa: UP045 - as above
        None,
        "Reservation for rules without the resource reservation (default: none).",
        type=str,
        metavar="NAME",
    )
    keep_logs: bool = _setting(
        False,
        "Keep the logs of jobs that ended well (default: they are removed as jobs end); logs of "
        "failed jobs are always kept.",
    )
    keep_logs_days: float = _setting(
        KEEP_DAYS,
        "Days after which logs that earlier runs left in the log folder are removed; 0 keeps them "
        f"for ever (default: {KEEP_DAYS:g}).",
        type=float,
        metavar="DAYS",
    )
    log_dir: Path = _setting(  # noqa: RUF009 - a frozen path
        LOG_FOLDER,
        f"Folder for the logs of jobs, on the shared file system (default: {LOG_FOLDER} in the "
        "working directory).",
        type=Path,
        metavar="FOLDER",
    )
    no_efficiency: bool = _setting(
        False,
        "Leave out the table of what each rule used of what it asked for (default: it is logged at "
        "the end of a run, and kept as efficiency.csv beside the logs).",
    )
    efficiency_threshold: float = _setting(
        THRESHOLD,
        "Name the rules that used less than this part of their memory or cores' time below the "
        f"table, from 0 to 1 (default: {THRESHOLD:g}).",
        type=float,
        metavar="PART",
    )
    conda: str = _setting(
        conda_choice.AUTO,
        "Which conda makes and activates the environments of rules (--sdm conda). auto: the one on "
        f"PATH if it is {conda_choice.OLDEST} or newer, else hpcburst's stand-in, which works with "
        "py-rattler; rattler: always the stand-in; conda: never the stand-in (default: auto).",
        choices=list(conda_choice.CHOICES),
        metavar="WHICH",
    )

    def __post_init__(self) -> None:
        self.check()
        # Snakemake makes the settings of the chosen executor and of no other, in the main process,
        # before it looks for a conda command: there is no later place that is early enough.
        offer_conda_command(self.conda)

    def check(self) -> None:
        """Check every value.

        Raises:
            WorkflowError: A value cannot be used.
        """
        for name in ("max_jobs", "default_mem_mb", "default_runtime"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                flag = f"--hpcburst-{name.replace('_', '-')}"
                raise WorkflowError(f"{flag} {value} was asked for, which is not above 0.")
        for name in ("keep_logs_days", "efficiency_threshold"):
            if not getattr(self, name) >= 0:
                flag = f"--hpcburst-{name.replace('_', '-')}"
                raise WorkflowError(f"{flag} {getattr(self, name)} was asked for: it is below 0.")
        if self.mode not in (AUTO, *MODES):
            raise WorkflowError(
                f"--hpcburst-mode {self.mode!r} is none of {AUTO}, {', '.join(MODES)}."
            )
        if self.conda not in conda_choice.CHOICES:
            raise WorkflowError(
                f"--hpcburst-conda {self.conda!r} is none of {', '.join(conda_choice.CHOICES)}."
            )
        try:
            read_shapes(self.shapes)
        except RequestError as error:
            raise WorkflowError(f"--hpcburst-shapes {self.shapes!r}: {error}") from error

    @property
    def defaults(self) -> Defaults:
        """What holds for rules that do not say."""
        return Defaults(
            self.default_mem_mb,
            self.default_runtime,
            self.queue,
            Placement(self.account, self.qos, self.constraint, self.reservation),
        )


def read_shapes(text: str) -> tuple[Shape, ...]:
    """Shapes from text such as "4:8GB:30m,8:64GB:1h:2:gpu".

    >>> [str(shape) for shape in read_shapes("4:8GB:30m, 8:64GB:1h:2:long")]
    ['4 core, 8000 MB, 30 min', '8 core, 64000 MB, 2 GPU, 60 min on long']

    Raises:
        RequestError: It cannot be read.
    """
    return tuple(_read_shape(part.strip()) for part in text.split(",") if part.strip())


def _read_shape(text: str) -> Shape:
    parts = text.split(":")
    counts = (parts[0], parts[3] if len(parts) > 3 and parts[3] else "0")
    readable = all(count.strip().isdecimal() for count in counts)
    if not 3 <= len(parts) <= 5 or not readable or int(counts[0]) < 1:
        raise RequestError(
            f"A pilot of the shape {text!r} was asked for",
            "that is not CORES:MEMORY:WALLTIME[:GPUS[:QUEUE]]",
            "write for instance 4:8GB:30m or 8:64GB:1h:2:gpu",
        )
    queue = parts[4].strip() if len(parts) > 4 else ""
    cores, gpus = map(int, counts)
    return Shape.of(cores=cores, memory=parts[1], walltime=parts[2], gpus=gpus, queue=queue or None)


def offer_conda_command(asked: str) -> None:
    """Have Snakemake find the conda that was asked for, and its envs made side by side.

    Raises:
        WorkflowError: What was asked for by name cannot be had.
    """
    try:
        choice = conda_choice.offer_conda(asked)
    except (BurstError, OSError, ValueError) as error:
        if asked != conda_choice.AUTO:
            raise WorkflowError(str(error)) from error
        return  # Snakemake says so if a rule needs it
    if choice.standin and not make_envs_side_by_side(choice.notice) and choice.notice:
        sys.stderr.write(f"{choice.notice}\n")
