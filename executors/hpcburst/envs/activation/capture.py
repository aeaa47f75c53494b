"""What activating an env changes, found out once and kept, so that tasks need no shell.

The changes are captured in front of a plain PATH and can be replayed on any other. A value that
ends with the name of its own variable in the form `${NAME}` is put before what is there already:
`PATH` is kept as `/envs/0123/bin:${PATH}`. A value None unsets the variable. Shell functions and
aliases are not kept. `workers.activation.replay` applies an activation.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from typing import TYPE_CHECKING, Any

from hpcburst.envs.activation.bash import NAME, BashFailed, plain_environ, plain_path, run_bash
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Activation = Mapping[str, str | None]

MARK = "/hpcburst-was-here"
"""Stands for what a list of folders holds before: what comes around it was added."""

_LISTS = ("LD_LIBRARY_PATH", "MANPATH", "PKG_CONFIG_PATH", "CMAKE_PREFIX_PATH", "XDG_DATA_DIRS")
_SHELL_OWN = {"_", "SHLVL", "PWD", "OLDPWD"}


def capture(prefix: Path) -> dict[str, str | None]:
    """Run an env's activation in bash and return what it changes.

    Packages' `activate.d` scripts and the env's own variables are run and set once, here: some of
    those scripts rewrite files of the env, which tasks side by side must not do.

    Raises:
        EnvError: Bash is missing, or the activation does not come to its end.
    """
    base = plain_environ() | dict.fromkeys(_LISTS, MARK)
    try:
        told, _ = run_bash(_script(prefix), base)
    except BashFailed as error:
        raise _refusal(prefix, error) from error
    return {"CONDA_DEFAULT_ENV": str(prefix), **difference(base, told[-1].environ)}


def own_variables(prefix: Path) -> dict[str, str]:
    """The variables an env sets: those of its packages, then those of its user."""
    found: dict[str, str] = {}
    for path in sorted((prefix / "etc/conda/env_vars.d").glob("*.json")):
        found.update(_read_object(path))
    state = _read_object(prefix / "conda-meta/state").get("env_vars")
    found.update(state if isinstance(state, dict) else {})
    return {name: str(text) for name, text in found.items() if NAME.fullmatch(name)}


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """What changed, with values put before (or after) the old ones written relative to them."""
    names = sorted((set(before) | set(after)) - _SHELL_OWN)
    changed = {
        name: _relative(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }
    return {name: value for name, value in changed.items() if value != f"${{{name}}}"}


def head_of(name: str, value: str) -> str | None:
    """What a value puts before what is there already; None when it takes the place of it.

    >>> head_of("PATH", "/env/bin:${PATH}"), head_of("PATH", "/bin")
    ('/env/bin', None)
    """
    old = f"${{{name}}}"
    if not value.endswith(old):
        return None
    return value.removesuffix(old).removesuffix(os.pathsep)


def compose(first: Activation, then: Activation) -> dict[str, str | None]:
    """One activation that does what two do one after the other, wherever it is replayed."""
    both = {**first, **then}
    for name in first.keys() & then.keys():
        both[name] = _composed(name, first[name], then[name])
    return both


def relocated(activation: Activation, old_prefix: str, new_prefix: str) -> dict[str, str | None]:
    """The activation of the same env at another prefix.

    Only whole paths change: those that are the old prefix or below it. Folders beside it that
    begin with its name, and other paths that end in it, are left alone.

    Args:
        activation: What activating the env changes at its old prefix.
        old_prefix: Absolute path of the env.
        new_prefix: Absolute path of the same env elsewhere.
    """
    pattern = _path_pattern(old_prefix.rstrip("/"))
    new = new_prefix.rstrip("/")

    def moved(value: str | None) -> str | None:
        return None if value is None else pattern.sub(lambda found: found["before"] + new, value)

    return {name: moved(value) for name, value in activation.items()}


def python_on(activation: Activation) -> str:
    """Path of the Python that an activation puts first, for envs that bring no prefix.

    Raises:
        EnvError: There is none, not even the system's own.
    """
    value = activation.get("PATH", plain_path()) or ""
    head = head_of("PATH", value)
    path = value if head is None else os.pathsep.join(part for part in (head, plain_path()) if part)
    found = shutil.which("python3", path=path) or shutil.which("python", path=path)
    if found is None:
        raise EnvError(
            "A Python was looked for to run bodies in an env of modules alone",
            f"there is neither python3 nor python on {path}",
            "add a module that brings Python, or an env",
        )
    return found


def as_shell(activation: Activation) -> str:
    """The changes as POSIX shell text, to be sourced; it starts no process."""
    lines = ["# The changes that activating this env makes. Written once, by hpcburst."]
    lines += [_shell_line(name, value) for name, value in sorted(activation.items())]
    return "\n".join(lines) + "\n"


def _shell_line(name: str, value: str | None) -> str:
    if value is None:
        return f"unset {name}"
    head = head_of(name, value)
    if head is None:
        return f"export {name}={shlex.quote(value)}"
    if not head:
        return f'export {name}="${{{name}-}}"'
    return f"export {name}={shlex.quote(head)}${{{name}:+:${name}}}"


def _composed(name: str, first: str | None, then: str | None) -> str | None:
    head = None if then is None else head_of(name, then)
    if head is None:
        return then
    under = "" if first is None else head_of(name, first)
    old = [] if first is None else [f"${{{name}}}"]
    if first is not None and under is None:
        under, old = first, []
    return os.pathsep.join([part for part in (head, under) if part] + old)


_SEPARATOR = r"\s:;,='\"()\[\]{}<>|&"


def _path_pattern(prefix: str) -> re.Pattern[str]:
    """Finds a path that begins a word, or follows the letters of an option as in `-L/envs/0123`."""
    before = rf"(?P<before>(?:(?<=[{_SEPARATOR}])|\A)(?:/*|-\w*|@))"
    return re.compile(rf"{before}{re.escape(prefix)}(?=[/{_SEPARATOR}]|\Z)")


def _script(prefix: Path) -> str:
    """The bash text that activates a prefix; values reach the shell quoted, as data."""
    variables = {"CONDA_PREFIX": str(prefix), "CONDA_SHLVL": "1", **own_variables(prefix)}
    lines = [f'export PATH={shlex.quote(f"{prefix}/bin")}:"$PATH"']
    lines += [f"export {name}={shlex.quote(text)}" for name, text in variables.items()]
    scripts = sorted((prefix / "etc/conda/activate.d").glob("*.sh"))
    return "\n".join([*lines, *(f". {shlex.quote(str(path))}" for path in scripts)])


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _relative(name: str, old: str | None, new: str | None) -> str | None:
    if new is None:
        return None
    if name == "PATH" and old:
        return _before(name, _without(new.split(os.pathsep), old.split(os.pathsep)))
    if MARK not in new:
        return new
    rest = _without(new.split(os.pathsep), [MARK])
    return _before(name, rest) if old == MARK else os.pathsep.join(rest)


def _before(name: str, parts: list[str]) -> str:
    kept = dict.fromkeys(part for part in parts if part)
    return os.pathsep.join([*kept, f"${{{name}}}"])


def _without(parts: list[str], run: list[str]) -> list[str]:
    """The parts without any unbroken occurrence of `run`."""
    kept: list[str] = []
    for part in parts:
        kept.append(part)
        if kept[-len(run) :] == run:
            del kept[-len(run) :]
    return kept


def _refusal(prefix: Path, error: BashFailed) -> EnvError:
    return EnvError(
        f"The env {prefix} was to be activated",
        error.found,
        f"run the scripts in {prefix}/etc/conda/activate.d by hand to see which one fails",
        tail=error.output,
    )
