"""Read the site from Dask's config, checked: a misspelt key is an answer, not a surprise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.errors import RequestError, SiteError
from hpcburst.policy.decide import fits
from hpcburst.policy.discover import Machine, this_machine
from hpcburst.policy.model import EnvSettings, Limits, Paths, Queue, Site
from hpcburst.tasks import Shape

SCHEDULERS = ("local",)
"""Batch systems this version speaks to."""

BUILDERS = ("rattler", "conda", "mamba", "micromamba", "pixi")
"""What envs can be built with."""

PLACES = ("auto", "shared", "local")
"""Where envs can lie."""

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
    stated = _dashed(dask.config.get("hpcburst", {}) or {}, "hpcburst")
    section = _merged(defaults, stated, "hpcburst")
    return _merged(section, _dashed(overrides or {}, "hpcburst"), "hpcburst")


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
        default_shape=_default_shape(section["pilot"], queues),
        limits=Limits(
            max_jobs=_count(section["max-jobs"], "hpcburst.max-jobs"),
            jobs=_count(section["jobs"], "hpcburst.jobs"),
            max_pending=_count(section["max-pending"], "hpcburst.max-pending"),
            idle_s=read_walltime_s(section["idle-timeout"]),
            status_interval_s=read_walltime_s(interval) if interval else usual_interval_s,
        ),
        paths=Paths(_shared_root(section["shared-root"]), _node_root(section["node-root"])),
        host=str(section["host"]),
        envs=_envs(section["envs"]),
        keep_runs_days=read_walltime_s(section["keep-runs"]) / 86400,
    )


def _envs(stated: Mapping[str, Any]) -> EnvSettings:
    mirror = _mapping(stated["mirror"], "hpcburst.envs.mirror")
    init = stated["modules-init"]
    return EnvSettings(
        channels=_texts(stated["channels"], "hpcburst.envs.channels"),
        mirror={str(name): str(url) for name, url in mirror},
        builder=_choice(stated["builder"], BUILDERS, "hpcburst.envs.builder"),
        place=_choice(stated["place"], PLACES, "hpcburst.envs.place"),
        offline=_flag(stated["offline"], "hpcburst.envs.offline"),
        modules_init=str(_node_path(init)) if init else None,
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


def _queues(stated: object) -> tuple[Queue, ...]:
    rows = _mapping(stated, "hpcburst.queues")
    return tuple(_queue(str(name), fields) for name, fields in rows)


def _queue(name: str, stated: object) -> Queue:
    path = f"hpcburst.queues.{name}"
    fields = _dashed(stated, path)
    _refuse_unknown(fields, ("cores", "memory", "gpus", "walltime", "total-cores"), path)
    missing = [key for key in ("cores", "memory", "walltime") if key not in fields]
    if missing:
        raise SiteError(f"{path} was read", f"it lacks {', '.join(missing)}", _where())
    total = fields.get("total-cores")
    return Queue(
        name=name,
        max_cores=_count(fields["cores"], f"{path}.cores"),
        max_memory_mb=read_memory_mb(fields["memory"]),
        max_gpus=_count(fields.get("gpus", 0), f"{path}.gpus", at_least=0),
        max_walltime_s=read_walltime_s(fields["walltime"]),
        total_cores=None if total is None else _count(total, f"{path}.total-cores"),
    )


def _default_shape(stated: Mapping[str, Any], queues: Sequence[Queue]) -> Shape:
    name = stated["queue"]
    queue = next((queue for queue in queues if name in (None, queue.name)), None)
    if queue is None:
        known = ", ".join(queue.name for queue in queues)
        raise SiteError(f"hpcburst.pilot.queue is {name!r}", f"the queues are {known}", _where())
    cores = min(_count(stated["cores"], "hpcburst.pilot.cores"), queue.max_cores)
    share_mb = min(4000 * cores, queue.max_memory_mb * cores // queue.max_cores)
    shape = Shape(
        cores=cores,
        memory_mb=read_memory_mb(stated["memory"]) if stated["memory"] else share_mb,
        gpus=_count(stated["gpus"], "hpcburst.pilot.gpus", at_least=0),
        walltime_s=min(read_walltime_s(stated["walltime"]), queue.max_walltime_s),
        queue=name,
    )
    if not fits(shape, queue):
        raise SiteError(
            f"hpcburst.pilot is {shape}", f"queue {queue.name!r} takes no such job", _where()
        )
    return shape


def _shared_root(stated: str | None) -> Path:
    if stated:
        return _node_path(stated)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "hpcburst"


def _node_root(stated: str | None) -> Path:
    return _node_path(stated or tempfile.gettempdir())


def _node_path(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser().absolute()


def _dashed(section: object, path: str) -> dict[str, Any]:
    """Dask takes `max_jobs` for `max-jobs`; so do we."""
    return {str(key).replace("_", "-"): value for key, value in _mapping(section, path)}


def _mapping(value: object, path: str) -> list[tuple[Any, Any]]:
    if not isinstance(value, Mapping):
        raise SiteError(f"{path} is {value!r}", "it must be a mapping of keys to values", _where())
    return list(value.items())


def _texts(value: object, path: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SiteError(f"{path} is {value!r}", "it must be a list", _where())
    return tuple(map(str, value))


def _choice(value: object, known: Sequence[str], path: str) -> str:
    if value not in known:
        raise SiteError(f"{path} is {value!r}", f"it must be one of {', '.join(known)}", _where())
    return str(value)


def _flag(value: object, path: str) -> bool:
    """True or false; text too, for it may come from the environment."""
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in known:
        raise SiteError(f"{path} is {value!r}", "it must be true or false", _where())
    return known[str(value).lower()]


def _count(value: object, path: str, *, at_least: int = 1) -> int:
    """A whole number; text of one too, for it may come from the environment."""
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < at_least:
        raise SiteError(
            f"{path} is {value!r}", f"it must be a whole number of at least {at_least}", _where()
        )
    return int(text)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any], path: str) -> dict[str, Any]:
    _refuse_unknown(over, tuple(base), path)
    merged = dict(base)
    for key, value in over.items():
        below = f"{path}.{key}"
        nested = isinstance(base[key], Mapping) and key in ("pilot", "envs")
        merged[key] = _merged(base[key], _dashed(value, below), below) if nested else value
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
