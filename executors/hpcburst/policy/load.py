"""Read the site from Dask's config, checked: a misspelt key is an answer, not a surprise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpcburst.amounts import read_walltime_s
from hpcburst.errors import RequestError, SiteError
from hpcburst.policy.address import LOOPBACK, address_of, usual_address
from hpcburst.policy.discover import Machine, discover, scheduler_here, this_machine
from hpcburst.policy.discovery.found import Found
from hpcburst.policy.model import BUILDERS, PLACES, EnvSettings, Limits, Paths, Queue, Site
from hpcburst.policy.present import LOCAL, SCHEDULERS
from hpcburst.policy.queues import allowed, default_shape, read_queues
from hpcburst.policy.sources import SECTIONS, bound, centre_layers, centre_section, default_section
from hpcburst.policy.values import (
    WHERE,
    choice,
    count,
    dashed,
    flag,
    number,
    pairs,
    refuse_unknown,
    text,
    texts,
)
from hpcburst.policy.wishes import PREFERENCES

AUTO = "auto"
"""The scheduler that is found on PATH."""

DIALECT_KEYS: Mapping[str, tuple[str, ...]] = {
    "slurm": ("disk-resource",),
    "pbs": ("disk-resource",),
    "torque": ("disk-resource",),
    "lsf": ("disk-resource",),
    "sge": (
        *("parallel-environment", "mpi-environment"),
        *("memory-resource", "gpu-resource", "disk-resource"),
    ),
    "htcondor": ("disk",),
}
"""What can be stated of how a batch system is set up here."""

LOCAL_STATUS_INTERVAL_S = 1.0
"""The embedded queue is ours alone and answers in milliseconds."""

SITE_STATUS_INTERVAL_S = 60.0
"""A shared scheduler is asked at most once a minute: its manuals ask for no tighter loops."""

_CLUSTER_VARIABLES = ("PATH", "SLURM_CONF", "SGE_ROOT", "SGE_CELL", "PBS_CONF_FILE", "LSF_ENVDIR")


def load_site(overrides: Mapping[str, Any] | None = None) -> Site:
    """The site as Dask's config states it (`hpcburst:` section over our defaults).

    Limits of the centre's own files hold whatever else is stated. Where no queues are stated, the
    batch system is asked for them, once in this process.

    Args:
        overrides: Keys of the `hpcburst` section that win over the config.

    Raises:
        SiteError: A key is unknown, a value cannot be read, or the batch system tells no queues.
    """
    section = read_section(overrides)
    try:
        held = bound(section, centre_section(centre_layers()))
        return build_site(held, this_machine(), _found_here)
    except RequestError as error:
        raise SiteError("The hpcburst config was read", str(error), WHERE) from error


def read_section(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The merged `hpcburst` section, keys checked against our defaults.

    Raises:
        SiteError: A key is unknown.
    """
    import dask.config

    stated = dashed(dask.config.get("hpcburst", {}) or {}, "hpcburst")
    section = merged(default_section(), stated)
    return merged(section, dashed(overrides or {}, "hpcburst"))


def merged(
    base: Mapping[str, Any], over: Mapping[str, Any], path: str = "hpcburst"
) -> dict[str, Any]:
    """A section with another over it.

    Raises:
        SiteError: The other has a key that the first has not.
    """
    refuse_unknown(over, tuple(base), path)
    both = dict(base)
    for key, value in over.items():
        below = f"{path}.{key}"
        nested = isinstance(base[key], Mapping) and key in SECTIONS
        both[key] = merged(base[key], dashed(value, below), below) if nested else value
    return both


def build_site(
    section: Mapping[str, Any], machine: Machine, found: Callable[[str], Found | None]
) -> Site:
    """The site that a whole section states.

    Args:
        section: Every key there is.
        machine: What the local queue has.
        found: What a batch system told of its queues; asked where the section states none.

    Raises:
        SiteError: A value cannot be read.
        RequestError: An amount cannot be read.
    """
    scheduler = _scheduler(section["scheduler"])
    told = None if section["queues"] or scheduler == LOCAL else found(scheduler)
    theirs = tuple(row.queue for row in told.queues) if told else ()
    forbidden = texts(section["forbidden"], "hpcburst.forbidden")
    stated = read_queues(section["queues"]) or theirs or (_local_queue(machine),)
    queues = allowed(stated, forbidden)
    return Site(
        scheduler=scheduler,
        queues=queues,
        default_shape=default_shape(section["pilot"], queues, forbidden),
        limits=_limits(section, scheduler),
        paths=_paths(section),
        host=_host(section, scheduler),
        envs=_envs(section["envs"]),
        keep_runs_days=read_walltime_s(section["keep-runs"]) / 86400,
        prefer=choice(section["prefer"], PREFERENCES, "hpcburst.prefer"),
        forbidden=forbidden,
        message=text(section["message"], "hpcburst.message").strip(),
        dialect=_dialect(section["dialect"], scheduler) or _told_dialect(told),
    )


def _found_here(scheduler: str) -> Found:
    return _found_once(scheduler, tuple(os.environ.get(name) for name in _CLUSTER_VARIABLES))


@lru_cache(maxsize=4)
def _found_once(scheduler: str, cluster: tuple[str | None, ...]) -> Found:  # noqa: ARG001 - another cluster is another answer
    return discover(scheduler)


def _scheduler(stated: object) -> str:
    name = choice(stated, (AUTO, *SCHEDULERS), "hpcburst.scheduler")
    return scheduler_here() if name == AUTO else name


def _limits(section: Mapping[str, Any], scheduler: str) -> Limits:
    interval, budget = section["status-interval"], section["budget"]
    idle = section["idle-timeout"]
    cores = section["max-cores"]
    usual_interval_s = LOCAL_STATUS_INTERVAL_S if scheduler == LOCAL else SITE_STATUS_INTERVAL_S
    return Limits(
        max_jobs=count(section["max-jobs"], "hpcburst.max-jobs"),
        jobs=count(section["jobs"], "hpcburst.jobs"),
        max_pending=count(section["max-pending"], "hpcburst.max-pending"),
        max_cores=None if cores is None else count(cores, "hpcburst.max-cores"),
        max_core_hours=None if budget is None else number(budget, "hpcburst.budget"),
        idle_s=None if idle is None else read_walltime_s(idle),
        status_interval_s=read_walltime_s(interval) if interval else usual_interval_s,
    )


def _host(section: Mapping[str, Any], scheduler: str) -> str:
    stated = text(section["host"], "hpcburst.host")
    interface = text(section["interface"], "hpcburst.interface")
    if stated:
        return stated
    if interface:
        return address_of(interface)
    return LOOPBACK if scheduler == LOCAL else usual_address()


def _dialect(stated: object, scheduler: str) -> dict[str, str]:
    path = "hpcburst.dialect"
    fields = dashed(stated, path)
    known = DIALECT_KEYS.get(scheduler, ())
    if fields:
        refuse_unknown(fields, known or (f"(none for {scheduler})",), path)
    return {key.replace("-", "_"): text(value, f"{path}.{key}") for key, value in fields.items()}


def _told_dialect(told: Found | None) -> dict[str, str]:
    rows = told.dialect.items() if told else ()
    return {key.replace("-", "_"): value for key, value in rows}


def _envs(stated: Mapping[str, Any]) -> EnvSettings:
    mirror = pairs(stated["mirror"], "hpcburst.envs.mirror")
    init = text(stated["modules-init"], "hpcburst.envs.modules-init")
    return EnvSettings(
        channels=texts(stated["channels"], "hpcburst.envs.channels"),
        mirror={str(name): str(url) for name, url in mirror},
        builder=choice(stated["builder"], BUILDERS, "hpcburst.envs.builder"),
        place=choice(stated["place"], PLACES, "hpcburst.envs.place"),
        offline=flag(stated["offline"], "hpcburst.envs.offline"),
        modules_init=_path(init) if init else None,
    )


def _local_queue(machine: Machine) -> Queue:
    return Queue(
        name=LOCAL,
        max_cores=machine.cores,
        max_memory_mb=machine.memory_mb,
        max_walltime_s=7 * 86400,
        total_cores=machine.cores,
        total_memory_mb=machine.memory_mb,
    )


def _paths(section: Mapping[str, Any]) -> Paths:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    shared = text(section["shared-root"], "hpcburst.shared-root") or f"{cache}/hpcburst"
    node = text(section["node-root"], "hpcburst.node-root") or tempfile.gettempdir()
    return Paths(Path(_path(shared)), Path(_path(node)))


def _path(stated: str) -> str:
    """A path with its variables and `~` filled in, as a shell would."""
    try:
        return str(Path(os.path.expandvars(stated)).expanduser().absolute())
    except RuntimeError as error:
        raise SiteError(f"The path {stated!r} is stated", str(error), WHERE) from error
