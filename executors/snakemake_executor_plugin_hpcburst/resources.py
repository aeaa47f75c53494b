"""What a Snakemake job asks for, in our words. Pure: the job's numbers in, `Needs` out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.errors import RequestError
from hpcburst.placement import ANYWHERE, Placement, Spread, disk_core_mb
from hpcburst.tasks import Needs

QUEUES = ("queue", "slurm_partition", "partition", "lsf_queue")
"""Resources that name a queue, the first stated wins: workflows for other executors still run."""

GPUS = ("gpu", "gpus")
"""Resources that count GPUs; `gres="gpu:a100:2"` is read as well."""

ACCOUNTS = ("account", "slurm_account", "project", "lsf_project")
"""Resources that name an account, the first stated wins."""

QOS = ("qos", "slurm_qos")
CONSTRAINTS = ("constraint", "slurm_constraint")
RESERVATIONS = ("reservation", "slurm_reservation")

OWN_JOB = "hpcburst_own_job"
"""A rule with this resource gets a batch job of its own, and so does one with `mpi`, or with more
than one of `nodes` or `tasks`."""

_TO_BE_DETERMINED = "<TBD>"
"""Snakemake's value for what only the node can tell (its `int()` does not even return an int)."""

_GRES = re.compile(r"gpu(?::([A-Za-z][\w.-]*))?(?::(\d{1,6}))?")
_NO = ("", "0", "false", "no")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a job whose rule does not say.

    Attributes:
        memory_mb: Memory in MB (10^6 bytes); None is the site's default.
        runtime_min: Minutes it may run; None is as long as its pilot.
        queue: Queue (partition); None is the site's default.
        placement: Account, quality of service, constraint and reservation.
        counts_disk: Whether the site's jobs ask for local disk; else `disk_mb` means nothing.
    """

    memory_mb: int | None = None
    runtime_min: float | None = None
    queue: str | None = None
    placement: Placement = ANYWHERE
    counts_disk: bool = False


def needs_of_job(threads: Any, resources: Mapping[str, Any], defaults: Defaults) -> Needs:
    """The needs of one job or group job.

    Args:
        threads: What Snakemake settled as the job's threads.
        resources: The job's resources: `mem_mb` (or `mem_mb_per_cpu`) in MB, `runtime` in minutes,
            `gpu`, `gpus` or `gres`, `gpu_model`, `disk_mb`, one of `QUEUES`, of `ACCOUNTS`, of
            `QOS`, of `CONSTRAINTS`, of `RESERVATIONS`. Values that are still to be determined, 0 or
            empty count as not stated.
        defaults: What holds for what is not stated.

    Raises:
        RequestError: A value is not an amount of what it stands for.
    """
    stated = _stated(resources)
    cores = max(1, int(threads)) if _is_stated(threads) else 1
    runtime_min = _read("runtime", stated, _minutes, defaults.runtime_min)
    return Needs(
        cores=cores,
        memory_mb=_memory_mb(stated, cores, defaults.memory_mb),
        gpus=_gpus(stated),
        walltime_s=None if runtime_min is None else runtime_min * 60.0,
        queue=_first(QUEUES, stated, defaults.queue),
        placement=_placement(stated, cores, defaults),
    )


def spread_of_job(resources: Mapping[str, Any]) -> Spread | None:
    """The nodes and processes of a job that is to be a batch job of its own; None if it is not.

    Args:
        resources: `nodes` and `tasks` are counts, `mpi` is the rule's word for its launcher, and
            `OWN_JOB` marks any rule.

    Raises:
        RequestError: A value is no count.
    """
    stated = _stated(resources)
    nodes = math.ceil(_read("nodes", stated, float, 1.0) or 1)
    tasks = math.ceil(_read("tasks", stated, float, None) or nodes)
    marked = str(stated.get(OWN_JOB, "")).lower() not in _NO
    if marked or "mpi" in stated or nodes > 1 or tasks > 1:
        return Spread(nodes, max(nodes, tasks))
    return None


def whole_needs(needs: Needs, spread: Spread | None) -> Needs:
    """What a job needs with all its processes; `needs` are those of each."""
    return needs if spread is None else replace(needs, cores=needs.cores * spread.tasks)


def _stated(resources: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resources.items() if _is_stated(value)}


def _first(names: tuple[str, ...], stated: Mapping[str, Any], default: str | None) -> str | None:
    return next((str(stated[name]) for name in names if name in stated), default)


def _placement(stated: Mapping[str, Any], cores: int, defaults: Defaults) -> Placement:
    usual = defaults.placement
    disk_mb = (_read("disk_mb", stated, _megabytes, None) or 0) if defaults.counts_disk else 0
    return replace(
        usual,
        account=_first(ACCOUNTS, stated, usual.account),
        qos=_first(QOS, stated, usual.qos),
        constraint=_first(CONSTRAINTS, stated, usual.constraint),
        reservation=_first(RESERVATIONS, stated, usual.reservation),
        gpu_model=_gpu_model(stated),
        disk_core_mb=disk_core_mb(disk_mb, cores),
    )


def _is_stated(value: Any) -> bool:
    return value is not None and value != 0 and str(value) not in ("", _TO_BE_DETERMINED)


def _memory_mb(stated: Mapping[str, Any], cores: int, default: int | None) -> int | None:
    per_core = _read("mem_mb_per_cpu", stated, _megabytes, None)
    if per_core is not None:
        return math.ceil(per_core * cores)
    whole = _read("mem_mb", stated, _megabytes, default)
    return None if whole is None else math.ceil(whole)


def _gpus(stated: Mapping[str, Any]) -> int:
    for name in GPUS:
        if name in stated:
            return math.ceil(_read(name, stated, float, 0.0) or 0)
    return sum(int(match[2] or 1) for match in _gres(stated))


def _gpu_model(stated: Mapping[str, Any]) -> str | None:
    named = (match[1] for match in _gres(stated) if match[1])
    return str(stated["gpu_model"]) if "gpu_model" in stated else next(named, None)


def _gres(stated: Mapping[str, Any]) -> list[re.Match[str]]:
    parts = str(stated.get("gres", "")).split(",")
    return [match for part in parts if (match := _GRES.fullmatch(part.strip()))]


def _read(
    name: str,
    stated: Mapping[str, Any],
    read: Callable[[Any], float],
    default: float | None,
) -> float | None:
    if name not in stated:
        return default
    try:
        number = read(stated[name])
    except (ValueError, TypeError):  # a RequestError is a ValueError too
        number = math.nan
    if not 0 < number < math.inf:
        raise RequestError(
            f"The rule states {name}={str(stated[name])[:80]!r}",
            "that is not an amount above 0",
            "mem_mb and disk_mb are in MB, runtime in minutes, gpu, nodes and tasks are counts",
        )
    return number


def _megabytes(value: Any) -> float:
    number = _plain_number(value)
    return read_memory_mb(value) if number is None else number


def _minutes(value: Any) -> float:
    number = _plain_number(value)
    return read_walltime_s(value) / 60.0 if number is None else number


def _plain_number(value: Any) -> float | None:
    """A number, or text that is one; None for text with a unit."""
    try:
        return float(value)
    except ValueError:
        return None
