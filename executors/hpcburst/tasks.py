"""What to run, in which env, with which resources: frozen data, decided before anything is queued.

`needs` is the one thing a user writes in a flow file. It holds data only: under any other task
runner, or called directly, the function runs as written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.errors import RequestError
from hpcburst.placement import ANYWHERE, ONE_NODE, Placement, Spread
from hpcburst.templates import check_fields, read_statuses, read_words

F = TypeVar("F", bound=Callable[..., Any])

ATTRIBUTE = "__hpcburst__"
"""Where `needs` leaves its data on a function; Prefect copies it onto the Task around it."""


START_S = 30.0
"""Seconds of a job's walltime that pass before its pilot takes a task: a job for a task of five
minutes asks for five and a half."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one task asks for. `None` means: what the site gives by default.

    Attributes:
        env: Path of an environment file, a lock, a pixi project or an existing prefix, or the name
            of a conda env; None is the driver's own Python, or with `modules` the one they bring.
        modules: Environment modules to load before the env is activated, in this order.
        cores: CPU cores the body uses.
        memory_mb: Memory in MB (10^6 bytes) the body uses at most.
        gpus: GPUs the body uses.
        walltime_s: Seconds the body may run; it is stopped when they are over.
        queue: Queue (partition) the job must go to.
        folder: Folder that a relative `env` is looked up in first.
        command: Words of the program that is run in place of the function's body; `{name}` in them
            stands for an argument of the call. None: the body is run.
        ok: Exit statuses of that program that mean success.
        placement: On whose account and on which nodes it runs.
        larger_memory_mb: What it asks for next, one after the other, when it ran out of memory.
        longer_walltime_s: What it asks for next when its walltime was over.
    """

    env: str | None = None
    modules: tuple[str, ...] = ()
    cores: int = 1
    memory_mb: int | None = None
    gpus: int = 0
    walltime_s: float | None = None
    queue: str | None = None
    folder: str | None = None
    command: tuple[str, ...] | None = None
    ok: tuple[int, ...] = (0,)
    placement: Placement = ANYWHERE
    larger_memory_mb: tuple[int, ...] = ()
    longer_walltime_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_count("cores", self.cores, at_least=1)
        _check_count("gpus", self.gpus, at_least=0)


@dataclass(frozen=True, slots=True)
class Shape:
    """What one pilot is: the resources of its batch job.

    Attributes:
        cores: CPU cores.
        memory_mb: Memory in MB (10^6 bytes).
        gpus: GPUs.
        walltime_s: Seconds the job may last.
        queue: Queue (partition) it goes to; None is the site's default.
        placement: On whose account and on which nodes it runs.
        spread: Nodes and processes of a job that is no pilot; the rest is then for each node.
    """

    cores: int = 1
    memory_mb: int = 2000
    gpus: int = 0
    walltime_s: float = 1800.0
    queue: str | None = None
    placement: Placement = ANYWHERE
    spread: Spread = ONE_NODE

    def __post_init__(self) -> None:
        if isinstance(self.placement, Mapping):  # as records on disk have it
            object.__setattr__(self, "placement", Placement(**self.placement))
        if isinstance(self.spread, Mapping):
            object.__setattr__(self, "spread", Spread(**self.spread))
        _check_count("cores", self.cores, at_least=1)
        _check_count("gpus", self.gpus, at_least=0)

    def __hash__(self) -> int:
        """Of what shapes mostly differ in: they are looked up a hundred times for each task."""
        return hash((self.cores, self.memory_mb, self.gpus, self.walltime_s, self.queue))

    @classmethod
    def of(cls, **fields: Any) -> Shape:
        """A shape from what a user writes: `cores=4, memory="8GB", walltime="10m"`.

        Raises:
            RequestError: A field is unknown or cannot be read.
        """
        return cls(**_read_fields(fields, _SHAPE_FIELDS, what="a shape"))

    def holds(self, needs: Needs) -> bool:
        """Whether a task with these needs runs on a fresh pilot of this shape."""
        return (
            needs.cores <= self.cores
            and (needs.memory_mb or 0) <= self.memory_mb
            and needs.gpus <= self.gpus
            and (needs.walltime_s or 0) + (START_S if needs.walltime_s else 0) <= self.walltime_s
            and needs.queue in (None, self.queue)
            and needs.placement == self.placement
        )

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU" if self.gpus else ""
        queue = f" on {self.queue}" if self.queue else ""
        size = f"{self.cores} core, {self.memory_mb} MB{gpus}, {self.walltime_s / 60:g} min{queue}"
        nodes = f"{self.spread.nodes} nodes of " if self.spread.nodes > 1 else ""
        return f"{nodes}{size}{f' ({self.placement})' if self.placement else ''}"


@dataclass(frozen=True, slots=True)
class Env:
    """The built env a task runs in.

    Attributes:
        key: Digest of what was asked; names the env in records and caches.
        prefix: The conda prefix; its `bin/python` runs the body. "" when modules alone make the
            env. With a `pack` it is the prefix that `activation` speaks of; nothing need be there.
        activation: What activating it changes in the process environment (None: unset; a value
            that ends with its own `${NAME}` goes before what is there). `workers.activation.replay`
            applies it.
        pack: File in the depot that nodes link the env from, on their own disk; "" when `prefix` is
            seen by every node.
        python: The interpreter, when it is not the prefix's own.
    """

    key: str
    prefix: str
    activation: Mapping[str, str | None] = field(default_factory=dict)
    pack: str = ""
    python: str = ""

    @property
    def interpreter(self) -> str:
        """Path of the Python that runs bodies."""
        return self.python or f"{self.prefix}/bin/python"


@dataclass(frozen=True, slots=True)
class Body:
    """A function as data that another Python minor can rebuild.

    Attributes:
        name: Qualified name, for messages.
        digest: sha256 in hex of the source and what goes along, not of its place: equal bodies have
            equal digests.
        blob: What the guest rebuilds the function from.
    """

    name: str
    digest: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class PythonCall:
    """A call of a function in the task's env.

    Attributes:
        body: The function.
        payload: Arguments `(args, kwargs)`, pickled by `workers.guest.values.dumps`.
        buffers: Their large buffers, out of band.
        keep: Folder on the shared file system where a large value is left; None: it comes home.
    """

    body: Body
    payload: bytes
    buffers: tuple[bytes, ...] = ()
    keep: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run on the pilot: data all the way, no shell reads it.

    Attributes:
        argv: Program and arguments.
        cwd: Working directory.
        environ: The whole process environment, except what the pilot adds.
        log: File its output is appended to; None sends it home as lines.
        server: Module of a warm server that runs such commands (`python -m MODULE` on the pilot),
            or None to start a process.
    """

    argv: tuple[str, ...]
    cwd: str
    environ: Mapping[str, str]
    log: str | None = None
    server: str | None = None


@dataclass(frozen=True, slots=True)
class Burst:
    """One task, ready to be queued.

    Attributes:
        name: What people see: the task run's name or the rule's.
        work: What to run.
        needs: What it asks for.
        env: The env it runs in; None for commands that bring their own.
        timeout_s: Seconds the work may run (the smaller of walltime and the engine's time-out).
        cwd: Folder a Python body runs in; None is the pilot's own.
        paths: Folders a Python body may import from, after its env's own.
    """

    name: str
    work: PythonCall | Command
    needs: Needs = field(default_factory=Needs)
    env: Env | None = None
    timeout_s: float | None = None
    cwd: str | None = None
    paths: tuple[str, ...] = ()


def needs(**fields: Any) -> Callable[[F], F]:
    """State what a task needs: `@needs(env="stats.yaml", cores=2, memory="4GB", walltime="5m")`.

    Put it under `@task`. A relative `env` is looked up beside the file that defines the function,
    then in the working directory.

    Args:
        **fields: `env`, `modules` (a list of environment modules), `cores`, `memory` (a number of
            MB, or text like "4GB", "512MiB"), `gpus`, `walltime` (seconds, or text like "90s",
            "5m", "1h30m", "01:30:00"), `queue`; `command` (a program to run in place of the body:
            "Rscript fit.R --block {block}", with the arguments of the call for `{name}`; no shell
            reads it) and `ok` (its exit statuses that mean success). `memory` and `walltime` may
            be lists that grow, ["4GB", "16GB"]: a task that ran out of memory asks for the next
            memory, one that ran out of time for the next walltime.

    Returns:
        A decorator that leaves the function as it is and the data on it.

    Raises:
        RequestError: A field is unknown or its value cannot be read, or a `{name}` of the command
            is no parameter of the function.
    """
    read = read_needs(fields)

    def mark(fn: F) -> F:
        target = getattr(fn, "fn", fn)  # a Prefect Task carries its function as `.fn`
        if read.command:
            check_fields(read.command, target)
        code = getattr(target, "__code__", None)
        folder = str(Path(code.co_filename).absolute().parent) if code else None
        stated = replace(read, folder=folder)
        setattr(target, ATTRIBUTE, stated)
        if target is not fn:
            setattr(fn, ATTRIBUTE, stated)
        return fn

    return mark


def read_needs(fields: Mapping[str, Any]) -> Needs:
    """Needs from the fields a user writes.

    Raises:
        RequestError: A field is unknown or its value cannot be read.
    """
    return changed_needs(Needs(), fields)


def changed_needs(stated: Needs, fields: Mapping[str, Any]) -> Needs:
    """Needs with some fields said anew, as a user writes them; the others stay.

    Raises:
        RequestError: A field is unknown or its value cannot be read.
    """
    if fields.get("ok") is not None and not (stated.command or fields.get("command")):
        raise RequestError("@needs was given ok and no command", "only a command has a status")
    first, later = _read_steps(fields)
    return replace(stated, **_read_fields(first, _NEEDS_FIELDS, what="@needs"), **later)


def needs_of(fn: Any) -> Needs:
    """What a function or task states that it needs; the defaults when it states nothing."""
    stated = getattr(fn, ATTRIBUTE, None) or getattr(getattr(fn, "fn", None), ATTRIBUTE, None)
    return stated if isinstance(stated, Needs) else Needs()


_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\-/=@:]*")


def read_modules(value: Any) -> tuple[str, ...]:
    """Names of environment modules from a list, or from one text with spaces between them.

    >>> read_modules(["gcc/13", "cuda/12.4"]), read_modules("gcc/13 cuda/12.4")
    (('gcc/13', 'cuda/12.4'), ('gcc/13', 'cuda/12.4'))

    Raises:
        RequestError: It is no list of names.
    """
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) and _MODULE.fullmatch(name) for name in names
    ):
        raise RequestError(
            f"The modules {str(value)[:80]!r} were asked for",
            "they are not a list of module names",
            'write for instance ["gcc/13", "cuda/12.4"]',
        )
    return tuple(dict.fromkeys(names))


def _as_is(value: Any) -> Any:
    return value


def _read_text(value: Any) -> str | None:
    return None if value is None else str(value)


_NEEDS_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "env": ("env", _read_text),
    "modules": ("modules", read_modules),
    "cores": ("cores", _as_is),
    "memory": ("memory_mb", read_memory_mb),
    "gpus": ("gpus", _as_is),
    "walltime": ("walltime_s", read_walltime_s),
    "queue": ("queue", _read_text),
    "command": ("command", read_words),
    "ok": ("ok", read_statuses),
}
_LATER_STEPS = {"memory": "larger_memory_mb", "walltime": "longer_walltime_s"}
_OF_THE_TASK = ("env", "modules", "command", "ok")
_SHAPE_FIELDS = {name: row for name, row in _NEEDS_FIELDS.items() if name not in _OF_THE_TASK}


def _read_steps(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields with the first of each list that grows, and what comes after it."""
    first, later = dict(fields), {}
    for name, field_name in _LATER_STEPS.items():
        value = fields.get(name)
        if value is None:
            continue
        steps = value if isinstance(value, (list, tuple)) and value else (value,)
        read = tuple(map(_NEEDS_FIELDS[name][1], steps))
        if any(after <= before for before, after in pairwise(read)):
            raise RequestError(
                f"{name}={list(steps)!r} was asked for",
                "each step has to be more than the one before",
                f"write them in order, or one {name} alone",
            )
        first[name], later[field_name] = steps[0], read[1:]
    return first, later


def _read_fields(
    fields: Mapping[str, Any],
    known: Mapping[str, tuple[str, Callable[[Any], Any]]],
    *,
    what: str,
) -> dict[str, Any]:
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise RequestError(
            f"{what} was given {', '.join(map(repr, unknown))}",
            "there is no such field",
            f"the fields are {', '.join(known)}",
        )
    return {
        known[name][0]: known[name][1](value) for name, value in fields.items() if value is not None
    }


def _check_count(name: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise RequestError(
            f"{name}={value!r} was asked for",
            f"{name} is a whole number of at least {at_least}",
            f"write for instance {name}={max(at_least, 2)}",
        )
