"""What a Snakemake job asks for, in our words. Pure: the job's numbers in, `Needs` out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.errors import RequestError
from hpcburst.tasks import Needs

QUEUES = ("queue", "slurm_partition", "partition", "lsf_queue")
"""Resources that name a queue, the first stated wins: workflows for other executors still run."""

GPUS = ("gpu", "gpus")
"""Resources that count GPUs; `gres="gpu:a100:2"` is read as well."""

_TO_BE_DETERMINED = "<TBD>"
"""Snakemake's value for what only the node can tell (its `int()` does not even return an int)."""

_GRES = re.compile(r"gpu(?::[A-Za-z][\w.-]*)?(?::(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a job whose rule does not say.

    Attributes:
        memory_mb: Memory in MB (10^6 bytes); None is the site's default.
        runtime_min: Minutes it may run; None is as long as its pilot.
        queue: Queue (partition); None is the site's default.
    """

    memory_mb: int | None = None
    runtime_min: float | None = None
    queue: str | None = None


def needs_of_job(threads: Any, resources: Mapping[str, Any], defaults: Defaults) -> Needs:
    """The needs of one job or group job.

    Args:
        threads: What Snakemake settled as the job's threads.
        resources: The job's resources: `mem_mb` (or `mem_mb_per_cpu`) in MB, `runtime` in minutes,
            `gpu`, `gpus` or `gres`, and one of `QUEUES`. Values that are still to be determined,
            0 or empty count as not stated.
        defaults: What holds for what is not stated.

    Raises:
        RequestError: A value is not an amount of what it stands for.
    """
    stated = {name: value for name, value in resources.items() if _is_stated(value)}
    cores = max(1, int(threads)) if _is_stated(threads) else 1
    runtime_min = _read("runtime", stated, _minutes, defaults.runtime_min)
    return Needs(
        cores=cores,
        memory_mb=_memory_mb(stated, cores, defaults.memory_mb),
        gpus=_gpus(stated),
        walltime_s=None if runtime_min is None else runtime_min * 60.0,
        queue=next((str(stated[name]) for name in QUEUES if name in stated), defaults.queue),
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
    parts = str(stated.get("gres", "")).split(",")
    matches = [match for part in parts if (match := _GRES.fullmatch(part.strip()))]
    return sum(int(match[1] or 1) for match in matches)


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
            "mem_mb is in MB, runtime in minutes, gpu a count",
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
