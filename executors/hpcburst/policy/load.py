"""Read the site from Dask's config, checked: a misspelt key is an answer, not a surprise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcburst.errors import RequestError, SiteError
from hpcburst.policy.discover import Machine, this_machine
from hpcburst.policy.model import Limits, Paths, Queue, Site
from hpcburst.tasks import Shape, read_memory_mb, read_walltime_s

SCHEDULERS = ("local",)
"""Batch systems this version speaks to."""

LOCAL_STATUS_INTERVAL_S = 1.0
"""The embedded queue is ours alone and answers in milliseconds."""

SITE_STATUS_INTERVAL_S = 60.0
"""A shared scheduler is asked at most once a minute: its manuals ask for no tighter loops."""

_DEFAULTS = Path(__file__).with_name("hpcburst.yaml")


def load_site(overrides: Mapping[str, Any] | None = None) -> Site:
    """The site as Dask's config states it (`hpcburst:` section over our defaults).

    Args:
        overrides: Keys of the `hpcburst` section that win over the config.

    Raises:
        SiteError: A key is unknown, a value cannot be read, or the scheduler is not spoken.
    """
    section = read_section(overrides)
    try:
        return _site(section, this_machine())
    except RequestError as error:
        raise SiteError("The hpcburst config was read", str(error), _where()) from error


def read_section(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The merged `hpcburst` section, keys checked against our defaults.

    Raises:
        SiteError: A key is unknown.
    """
    import dask.config
    import yaml

    defaults = yaml.safe_load(_DEFAULTS.read_text())["hpcburst"]
    stated = _dashed(dask.config.get("hpcburst", {}) or {})
    section = _merged(defaults, stated, "hpcburst")
    return _merged(section, _dashed(overrides or {}), "hpcburst")


def _site(section: Mapping[str, Any], machine: Machine) -> Site:
    scheduler = str(section["scheduler"])
    if scheduler not in SCHEDULERS:
        raise SiteError(
            f"hpcburst.scheduler is {scheduler!r}",
            f"this version speaks to: {', '.join(SCHEDULERS)}",
            _where(),
        )
    local = scheduler == "local"
    queues = _queues(section["queues"]) or (_local_queue(machine),)
    interval = section["status-interval"]
    usual_interval_s = LOCAL_STATUS_INTERVAL_S if local else SITE_STATUS_INTERVAL_S
    return Site(
        scheduler=scheduler,
        queues=queues,
        default_shape=_default_shape(section["pilot"], queues[0]),
        limits=Limits(
            max_jobs=int(section["max-jobs"]),
            max_pending=int(section["max-pending"]),
            idle_s=read_walltime_s(section["idle-timeout"]),
            status_interval_s=read_walltime_s(interval) if interval else usual_interval_s,
        ),
        paths=Paths(_shared_root(section["shared-root"]), _node_root(section["node-root"])),
        host=str(section["host"]),
        env_channels=tuple(map(str, section["envs"]["channels"])),
        channel_mirror={str(k): str(v) for k, v in section["envs"]["mirror"].items()},
        keep_runs_days=read_walltime_s(section["keep-runs"]) / 86400,
    )


def _local_queue(machine: Machine) -> Queue:
    return Queue(
        name="local",
        max_cores=machine.cores,
        max_memory_mb=machine.memory_mb,
        max_walltime_s=7 * 86400,
        total_cores=machine.cores,
        total_memory_mb=machine.memory_mb,
    )


def _queues(stated: Mapping[str, Mapping[str, Any]]) -> tuple[Queue, ...]:
    return tuple(_queue(name, fields) for name, fields in stated.items())


def _queue(name: str, fields: Mapping[str, Any]) -> Queue:
    known = ("cores", "memory", "gpus", "walltime", "total-cores")
    _refuse_unknown(_dashed(fields), known, f"hpcburst.queues.{name}")
    missing = [key for key in ("cores", "memory", "walltime") if key not in fields]
    if missing:
        raise SiteError(
            f"hpcburst.queues.{name} was read", f"it lacks {', '.join(missing)}", _where()
        )
    fields = _dashed(fields)
    return Queue(
        name=name,
        max_cores=int(fields["cores"]),
        max_memory_mb=read_memory_mb(fields["memory"]),
        max_gpus=int(fields.get("gpus", 0)),
        max_walltime_s=read_walltime_s(fields["walltime"]),
        total_cores=fields.get("total-cores"),
    )


def _default_shape(stated: Mapping[str, Any], queue: Queue) -> Shape:
    cores = min(int(stated["cores"]), queue.max_cores)
    share_mb = min(4000 * cores, queue.max_memory_mb * cores // queue.max_cores)
    return Shape(
        cores=cores,
        memory_mb=read_memory_mb(stated["memory"]) if stated["memory"] else share_mb,
        gpus=int(stated["gpus"]),
        walltime_s=min(read_walltime_s(stated["walltime"]), queue.max_walltime_s),
        queue=stated["queue"],
    )


def _shared_root(stated: str | None) -> Path:
    if stated:
        return Path(os.path.expandvars(stated)).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "hpcburst"


def _node_root(stated: str | None) -> Path:
    text = os.path.expandvars(stated) if stated else tempfile.gettempdir()
    return Path(text).expanduser().absolute()


def _dashed(section: Mapping[str, Any]) -> dict[str, Any]:
    """Dask takes `max_jobs` for `max-jobs`; so do we."""
    return {str(key).replace("_", "-"): value for key, value in section.items()}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any], path: str) -> dict[str, Any]:
    _refuse_unknown(over, tuple(base), path)
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(base[key], Mapping) and key in ("pilot", "envs")
        merged[key] = _merged(base[key], _dashed(value), f"{path}.{key}") if nested else value
    return merged


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SiteError(
            f"The config states {', '.join(f'{path}.{key}' for key in unknown)}",
            f"the keys of {path} are {', '.join(known)}",
            _where(),
        )


def _where() -> str:
    return "correct the hpcburst section of Dask's config (~/.config/dask/*.yaml, DASK_HPCBURST__*)"
