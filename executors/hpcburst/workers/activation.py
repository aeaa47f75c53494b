"""Replay an env's activation on a node: a dictionary in, a dictionary out, no shell.

`tasks.Env.activation` holds what activating an env changes. A value None unsets the variable. A
value that ends with its own name in the form `${NAME}` goes before what the node has there, and
takes its place when the node has nothing: `PATH` comes as `/envs/0123/bin:${PATH}`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hpcburst.envs.activation.capture import head_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def replay(activation: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that a process of the env gets.

    Args:
        activation: What activating the env changes.
        environ: The environment to change; it is left as it is.

    Returns:
        A new environment. Putting a value before nothing adds no empty entry to a list: programs
        take an empty entry for the working directory.
    """
    result = dict(environ)
    for name, value in activation.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _put_before(value, head_of(name, value), environ.get(name, ""))
    return result


def _put_before(value: str, head: str | None, old: str) -> str:
    if head is None:
        return value
    return os.pathsep.join(part for part in (head, old) if part)
