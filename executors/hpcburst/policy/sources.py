"""Where the config comes from: our defaults, files, the environment, the program; and who binds.

A file of the centre's (in `/etc/dask`, or `$DASK_ROOT_CONFIG`) binds: what it states of the limits
in `BINDING` users may lower in their own files, and not raise by oversight.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.policy.values import count, dashed, number, texts

DEFAULTS = Path(__file__).with_name("hpcburst.yaml")
"""Every key there is, with what it is when nobody states it."""

SECTIONS = ("pilot", "envs")
"""Keys whose own keys are ours too: a file that states some keeps the others."""

CENTRE_FOLDER = "/etc/dask"
"""Where a centre's files are, unless DASK_ROOT_CONFIG says another folder."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source states, in the order in which the later one wins.

    Attributes:
        source: "default", a file's path, "environment", "program" or "call".
        section: The `hpcburst` section it states.
        binds: Whether it is the centre's: its limits hold for all.
    """

    source: str
    section: Mapping[str, Any]
    binds: bool = False


def centre_layers() -> list[Layer]:
    """The centre's own files, in the order in which Dask reads them."""
    return list(_file_layers([_centre_folder()]))


def layers(overrides: Mapping[str, Any] | None = None) -> list[Layer]:
    """All sources that state something, the strongest last.

    Raises:
        SiteError: A section is no mapping.
    """
    import dask.config

    files = list(_file_layers(dask.config.paths))
    environment = dask.config.collect_env(os.environ).get("hpcburst") or {}
    program = dask.config.get("hpcburst", {}) or {}
    rows = [
        Layer("default", default_section()),
        *files,
        Layer("environment", dashed(environment, "hpcburst")),
        Layer("program", dashed(program, "hpcburst")),
        Layer("call", dashed(overrides or {}, "hpcburst")),
    ]
    return [layer for layer in rows if layer.section]


def default_section() -> dict[str, Any]:
    """Our own section: every key there is."""
    import yaml

    section: dict[str, Any] = yaml.safe_load(DEFAULTS.read_text())["hpcburst"]
    return section


def origins(rows: Sequence[Layer]) -> dict[str, str]:
    """Dotted key to the source of its value; the program's only where it says something new."""
    values: dict[str, Any] = {}
    found: dict[str, str] = {}
    for layer in rows:
        for key, value in flat(layer.section):
            if layer.source != "program" or key not in values or values[key] != value:
                found[key] = layer.source
            values[key] = value
    return found


def flat(section: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a mapping that has nothing in it is a value."""
    for key, value in section.items():
        name = f"{path}{key}" if path.startswith("queues.") else f"{path}{key}".replace("_", "-")
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def centre_section(rows: Sequence[Layer]) -> dict[str, Any]:
    """What the centre's own files among these state together."""
    import dask.config

    return dict(dask.config.merge(*(dict(layer.section) for layer in rows if layer.binds)))


def bound(section: Mapping[str, Any], centre: Mapping[str, Any]) -> dict[str, Any]:
    """The section with no limit beyond the centre's.

    Raises:
        SiteError: A limit cannot be read.
        RequestError: An amount cannot be read.
    """
    held = dict(section) | _strictest(section, centre, BINDING, "hpcburst")
    both = [
        *texts(centre.get("forbidden") or (), _FORBIDDEN),
        *texts(held["forbidden"], _FORBIDDEN),
    ]
    held["forbidden"] = list(dict.fromkeys(both))
    theirs = centre.get("queues")
    if theirs and isinstance(held["queues"], Mapping):
        held["queues"] = dict(_bound_queues(held["queues"], dashed_queues(theirs)))
    return held


def dashed_queues(queues: object) -> dict[str, Any]:
    """Queues with dashes in the keys of each, and their names as they are."""
    rows = queues.items() if isinstance(queues, Mapping) else ()
    return {
        str(name): dashed(fields, f"hpcburst.queues.{name}")
        for name, fields in rows
        if isinstance(fields, Mapping)
    }


_FORBIDDEN = "hpcburst.forbidden"

_Reader = Callable[[Any, str], float]


def _walltime(value: Any, path: str) -> float:  # noqa: ARG001 - read as the others are
    return read_walltime_s(value)


def _memory(value: Any, path: str) -> float:  # noqa: ARG001 - read as the others are
    return read_memory_mb(value)


def _amount(value: Any, path: str) -> float:
    return count(value, path, at_least=0)


BINDING: Mapping[str, tuple[_Reader, Callable[..., Any]]] = {
    "max-jobs": (_amount, min),
    "max-pending": (_amount, min),
    "max-cores": (_amount, min),
    "budget": (number, min),
    "status-interval": (_walltime, max),
}
"""Keys that a centre's file binds: how they are read, and which of two is the stricter."""

BINDING_IN_QUEUES: Mapping[str, tuple[_Reader, Callable[..., Any]]] = {
    "cores": (_amount, min),
    "memory": (_memory, min),
    "gpus": (_amount, min),
    "walltime": (_walltime, min),
    "total-cores": (_amount, min),
}
"""Keys of a queue that a centre's file binds; so it does the price, whatever that is."""


def _strictest(
    asked: Mapping[str, Any],
    centre: Mapping[str, Any],
    keys: Mapping[str, tuple[_Reader, Callable[..., Any]]],
    path: str,
) -> dict[str, Any]:
    """For each key that the centre states, the stricter value, as it was written."""
    held = {}
    for key, (read, choose) in keys.items():
        theirs, own = centre.get(key), asked.get(key)
        if theirs is not None:
            limits = [read(value, f"{path}.{key}") for value in (theirs, own) if value is not None]
            held[key] = theirs if choose(limits) == limits[0] else own
    return held


def _bound_queues(
    asked: Mapping[str, Any], centre: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Any]]:
    for name, fields in asked.items():
        theirs = centre.get(str(name))
        if theirs is None or not isinstance(fields, Mapping):
            yield name, fields
            continue
        path = f"hpcburst.queues.{name}"
        own = dashed(fields, path)
        held = own | _strictest(own, theirs, BINDING_IN_QUEUES, path)
        yield name, held | {key: theirs[key] for key in ("price",) if key in theirs}


def _file_layers(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Layer]:
    """Files of these folders that have a section of ours, in the order in which Dask reads them."""
    import dask.config

    folder = Path(_centre_folder())
    for path, config in dask.config.collect_yaml(list(paths), return_paths=True):
        stated = config.get("hpcburst") if isinstance(config, Mapping) else None
        if stated:
            yield Layer(str(path), dashed(stated, "hpcburst"), binds=Path(path).parent == folder)


def _centre_folder() -> str:
    return os.environ.get("DASK_ROOT_CONFIG", CENTRE_FOLDER)
