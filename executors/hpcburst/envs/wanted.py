"""What an env is asked for with, and what environment modules make of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from hpcburst.envs.activation.capture import compose, python_on
from hpcburst.envs.activation.modules import capture_modules
from hpcburst.envs.specs.places import Place, resolve_env
from hpcburst.envs.specs.spec import KEY_LENGTH, EnvSpec
from hpcburst.tasks import Env

Wanted = EnvSpec | Place | Path | str
"""A spec, or the place or name of one."""


def placed(wanted: Place | Path | str) -> Place:
    """Where it is.

    Raises:
        EnvError: There is nothing of that name.
    """
    return wanted if isinstance(wanted, Place) else resolve_env(wanted)


def with_modules(spec: EnvSpec, modules: tuple[str, ...]) -> EnvSpec:
    """The spec with more modules, each once."""
    return replace(spec, modules=tuple(dict.fromkeys((*spec.modules, *modules))))


def added_key(key: str, modules: tuple[str, ...]) -> str:
    """The key of an env that has no spec, with modules loaded before it."""
    if not modules:
        return key
    text = "\n".join((key, *modules))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def fingerprint(place: Place) -> tuple[tuple[str, int, int], ...]:
    """Changes when one of its files does."""
    found = [(str(path), path.stat()) for path in place.files]
    rows = tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)
    return (*rows, (place.environment, 0, 0))


def loaded(env: Env | None, modules: tuple[str, ...], key: str, init: str | None) -> Env:
    """An env with modules loaded before it; without an env, what they bring by themselves.

    Args:
        env: The env.
        modules: Names of the modules, in their order.
        key: The key of both together.
        init: Shell file that defines the `module` command; None is looked for.

    Raises:
        EnvError: The modules cannot be loaded.
    """
    if not modules and env is not None:
        return env
    brought = capture_modules(modules, init)
    if env is None:
        return Env(key, "", brought, python=python_on(brought))
    return replace(env, key=key, activation=compose(brought, env.activation))
