"""The site as it holds here, as data to be shown: each value with the source that states it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from hpcburst.policy.discovery.page import walltime_text
from hpcburst.policy.model import Site
from hpcburst.policy.present import LOCAL
from hpcburst.policy.sources import BINDING, Layer, layers, origins

CENTRE = "(holds for all)"
"""What stands beside a value that the centre's file binds."""


def document(site: Site) -> dict[str, Any]:
    """Everything of a site, as JSON can hold it."""
    rows = layers()
    found = origins(rows)
    return {
        "scheduler": site.scheduler,
        "message": site.message,
        "forbidden": list(site.forbidden),
        "queues": [
            {**asdict(queue), "source": _queue_source(queue.name, site, found)}
            for queue in site.queues
        ],
        "default_shape": asdict(site.default_shape),
        "dialect": dict(site.dialect),
        "settings": [
            {"key": key, "value": value, "source": _source(key, found, rows)}
            for key, value in _settings(site)
        ],
    }


def _settings(site: Site) -> Iterator[tuple[str, Any]]:
    """Keys of the config with what they came to, as a config would state it."""
    limits, shape, envs = site.limits, site.default_shape, site.envs
    yield "scheduler", site.scheduler
    yield "host", site.host
    yield "shared-root", str(site.paths.shared_root)
    yield "node-root", str(site.paths.node_root)
    yield "max-jobs", limits.max_jobs
    yield "jobs", limits.jobs
    yield "max-pending", limits.max_pending
    yield "max-cores", limits.max_cores
    yield "budget", limits.max_core_hours
    yield "prefer", site.prefer
    yield "idle-timeout", None if limits.idle_s is None else walltime_text(limits.idle_s)
    yield "status-interval", walltime_text(limits.status_interval_s)
    yield "keep-runs", walltime_text(site.keep_runs_days * 86400)
    yield "pilot.cores", shape.cores
    yield "pilot.memory", f"{shape.memory_mb}MB"
    yield "pilot.gpus", shape.gpus
    yield "pilot.walltime", walltime_text(shape.walltime_s)
    yield "pilot.queue", shape.queue
    yield "envs.channels", list(envs.channels)
    yield "envs.builder", envs.builder
    yield "envs.place", envs.place
    yield "envs.offline", envs.offline


def _source(key: str, found: Mapping[str, str], rows: list[Layer]) -> str:
    """Where a value is stated; a limit of the centre's that somebody wanted to pass is its own."""
    source = found.get(key, "default")
    theirs = [layer for layer in rows if layer.binds and layer.section.get(key) is not None]
    if key not in BINDING or not theirs or source == theirs[-1].source:
        return source
    return f"{source}, {theirs[-1].source} {CENTRE}"


def _queue_source(name: str, site: Site, found: Mapping[str, str]) -> str:
    sources = {source for key, source in found.items() if key.startswith(f"queues.{name}.")}
    told = "this machine" if site.scheduler == LOCAL else f"told by {site.scheduler}"
    return ", ".join(sorted(sources)) or told
