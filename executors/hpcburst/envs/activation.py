"""What activating an env changes, found out once and kept, so that tasks need no shell.

The changes are captured in front of a plain PATH and can be replayed on any other. A value that
ends with the name of its own variable in the form `${NAME}` is put before what is there already:
`PATH` is kept as `/envs/0123/bin:${PATH}`. A value None unsets the variable. Shell functions and
aliases are not kept.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT_S = 120.0
"""Activation scripts take milliseconds; one that asks a question would wait for ever."""

_PLAIN_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
_KEPT = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL")
_LISTS = ("LD_LIBRARY_PATH", "MANPATH", "PKG_CONFIG_PATH", "CMAKE_PREFIX_PATH", "XDG_DATA_DIRS")
_SHELL_OWN = {"_", "SHLVL", "PWD", "OLDPWD"}
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_MARK = "/hpcburst-was-here"


def capture(prefix: Path) -> dict[str, str | None]:
    """Run an env's activation in bash and return what it changes.

    Packages' `activate.d` scripts and the env's own variables are run and set once, here: some of
    those scripts rewrite files of the env, which tasks side by side must not do.

    Raises:
        EnvError: Bash is missing, or the activation does not come to its end.
    """
    base = plain_environ()
    changes = difference(base, _run(_script(prefix), base, prefix))
    return {"CONDA_DEFAULT_ENV": str(prefix), **changes}


def own_variables(prefix: Path) -> dict[str, str]:
    """The variables an env sets: those of its packages, then those of its user."""
    found: dict[str, str] = {}
    for path in sorted((prefix / "etc/conda/env_vars.d").glob("*.json")):
        found.update(_read_object(path))
    state = _read_object(prefix / "conda-meta/state").get("env_vars")
    found.update(state if isinstance(state, dict) else {})
    return {name: str(text) for name, text in found.items() if _NAME.fullmatch(name)}


def plain_environ() -> dict[str, str]:
    """An environment without anything of this process, with marks where lists may be added to."""
    environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environ["PATH"] = os.pathsep.join(_PLAIN_PATH)
    return environ | dict.fromkeys(_LISTS, _MARK)


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """What changed, with values put before (or after) the old ones written relative to them."""
    names = sorted((set(before) | set(after)) - _SHELL_OWN)
    changed = {
        name: _relative(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }
    return {name: value for name, value in changed.items() if value != f"${{{name}}}"}


def as_shell(activation: Mapping[str, str | None]) -> str:
    """The changes as POSIX shell text, to be sourced; it starts no process."""
    lines = ["# The changes that activating this env makes. Written once, by hpcburst."]
    for name, value in sorted(activation.items()):
        if value is None:
            lines.append(f"unset {name}")
            continue
        old = f"${{{name}}}"
        if value.endswith(os.pathsep + old):
            head = shlex.quote(value.removesuffix(os.pathsep + old))
            lines.append(f"export {name}={head}${{{name}:+:${name}}}")
        else:
            lines.append(f"export {name}={shlex.quote(value)}")
    return "\n".join(lines) + "\n"


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
    if _MARK not in new:
        return new
    rest = _without(new.split(os.pathsep), [_MARK])
    return _before(name, rest) if old == _MARK else os.pathsep.join(rest)


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


def _run(script: str, environ: Mapping[str, str], prefix: Path) -> dict[str, str]:
    mark = secrets.token_hex(16)
    argv = ["bash", "--noprofile", "--norc", "-c", f"{script}\nprintf '%s\\0' {mark}; env -0"]
    try:
        done = subprocess.run(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refusal(prefix, str(error)) from error
    head, found, tail = done.stdout.partition(mark.encode() + b"\0")
    if not found or done.returncode != 0:
        output = (head + done.stderr).decode(errors="replace")
        raise _refusal(prefix, f"bash ended with status {done.returncode}", output)
    pairs = tail.decode("utf-8", "surrogateescape").split("\0")
    read = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {name: text for name, text in read.items() if _NAME.fullmatch(name)}


def _refusal(prefix: Path, found: str, tail: str = "") -> EnvError:
    return EnvError(
        f"The env {prefix} was to be activated",
        found,
        f"run the scripts in {prefix}/etc/conda/activate.d by hand to see which one fails",
        tail=tail,
    )
