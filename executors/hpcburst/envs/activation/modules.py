"""Environment modules as data: what `module load` changes, found out once and replayed everywhere.

Lmod and Environment Modules both work. Modules are loaded in front of a plain environment: the
user's own PATH and LD_LIBRARY_PATH would decide what is found (a conda env's libtcl on
LD_LIBRARY_PATH breaks the module command itself), and would be replayed with the rest. What says
where modules are (MODULEPATH and the tools' settings) is taken from the user's environment, because
sites set it at login.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.activation.bash import BashFailed, Told, plain_environ, run_bash
from hpcburst.envs.activation.capture import MARK, difference
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SETTING = "hpcburst.envs.modules-init"

USUAL_FILES = (
    "/etc/profile.d/z00_lmod.sh",
    "/etc/profile.d/lmod.sh",
    "/etc/profile.d/modules.sh",
    "/usr/share/lmod/lmod/init/bash",
    "/opt/apps/lmod/lmod/init/bash",
    "/opt/cray/pe/lmod/lmod/init/bash",
    "/usr/share/modules/init/bash",
    "/usr/share/Modules/init/bash",
    "/usr/local/Modules/init/bash",
    "/opt/cray/pe/modules/default/init/bash",
)
"""Shell files that define `module`, where systems put them; those for logins know MODULEPATH."""

_INPUT = re.compile(r"MODULE(PATH|SHOME|RCFILE|CONTACT|S_)\w*|LMOD_\w+")
_LOADED = re.compile(r"MODULES_LM\w*|LMOD_FAMILY_\w*")
"""What the tools note about loaded modules: nothing is loaded in a plain environment."""

_NOTES = re.compile(r"PATH|LOADEDMODULES|_LMFILES_|(MODULE|LMOD_|_ModuleTable|__)\w*|\w+_modshare")
"""What the tools note, and PATH, which is never empty: no mark is put there."""

_COMMAND = 'module() { eval "$("$hpcburst_tool" bash "$@")"; }'
_FILE = '. "$hpcburst_tool"'
_LOAD = """
hpcburst_tool=$1; shift
hpcburst_modules=("$@"); set --
{define}
hpcburst_tell
for hpcburst_module in "${{hpcburst_modules[@]}}"; do
    module load "$hpcburst_module"
    hpcburst_tell
done
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """What defines `module` here.

    Attributes:
        path: The program that Lmod and Environment Modules have behind it, or a shell file.
        is_command: Whether it is that program.
    """

    path: str
    is_command: bool = False


def capture_modules(names: Sequence[str], init: str | None = None) -> dict[str, str | None]:
    """What loading these modules changes, in the form of `envs.activation.capture`.

    What a module appends to a list is put before what a node has in it, after what it prepends.

    Args:
        names: Modules, in the order of loading.
        init: Shell file that defines `module`; None is looked for.

    Raises:
        EnvError: There is no module command, or a module does not load; with the tool's own words.
    """
    if not names:
        return {}
    tool = find_tool(os.environ, init)
    base = plain_environ() | _inputs(os.environ)
    changes = difference(*_loaded(tool, names, base))
    lists = [name for name, value in changes.items() if _may_be_list(name, value)]
    return changes | _added(tool, names, base, lists)


def find_tool(environ: Mapping[str, str], init: str | None = None) -> Tool:
    """What defines `module`: as set, else as the environment says, else at the usual places.

    Args:
        environ: The user's environment.
        init: Shell file that defines it; None is looked for.

    Raises:
        EnvError: There is none.
    """
    candidates = [Tool(init)] if init else list(_candidates(environ))
    for tool in candidates:
        if (
            os.access(tool.path, os.X_OK if tool.is_command else os.R_OK)
            and Path(tool.path).is_file()
        ):
            return tool
    looked = ", ".join(tool.path for tool in candidates)
    raise EnvError(
        "Environment modules were to be loaded",
        f"no module command was found; looked for {looked}",
        f"set {SETTING} to the shell file that defines `module` here",
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Tool]:
    for name in ("LMOD_CMD", "MODULES_CMD"):
        if environ.get(name) and environ.get("MODULEPATH"):  # only files know the default of it
            yield Tool(environ[name], is_command=True)
    if environ.get("MODULESHOME"):
        yield Tool(f"{environ['MODULESHOME']}/init/bash")
    yield from map(Tool, USUAL_FILES)


def _inputs(environ: Mapping[str, str]) -> dict[str, str]:
    """Where modules are and how the tool is set, without what is loaded already."""
    kept = {
        name: text
        for name, text in environ.items()
        if _INPUT.fullmatch(name) and not _LOADED.fullmatch(name)
    }
    return kept | {"LMOD_COLORIZE": "no", "MODULES_COLOR": "never"}


def _loaded(
    tool: Tool, names: Sequence[str], base: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The environment before and after loading.

    Raises:
        EnvError: A module does not load.
    """
    script = _LOAD.format(define=_COMMAND if tool.is_command else _FILE)
    try:
        told, output = run_bash(script, base, [tool.path, *names])
    except BashFailed as error:
        raise _refusal(names, f"{error.found} ({tool.path})", error.output) from error
    for name, before, after in zip(names, told, told[1:], strict=False):
        if after.status != 0:
            raise _refusal(names, f"{name!r} does not load (status {after.status})", output)
        if not _shows(name, before, after):
            raise _refusal(names, f"{name!r} does not load", output)
    return told[0].environ, told[-1].environ


def _shows(name: str, before: Told, after: Told) -> bool:
    """Whether a module is loaded now. Older tools end with status 0 whatever happens."""
    old, new = (told.environ.get("LOADEDMODULES", "") for told in (before, after))
    return new != old or any(
        loaded == name or loaded.startswith(f"{name}/") for loaded in new.split(os.pathsep)
    )


def _may_be_list(name: str, value: str | None) -> bool:
    return value is not None and "/" in value and not _NOTES.fullmatch(name)


def _added(
    tool: Tool, names: Sequence[str], base: Mapping[str, str], lists: Sequence[str]
) -> dict[str, str | None]:
    """Which of these variables are added to and not set: loaded again, with a mark in each."""
    if not lists:
        return {}
    try:
        changes = difference(*_loaded(tool, names, {**base, **dict.fromkeys(lists, MARK)}))
    except EnvError:  # a module takes the mark amiss: then what it set is what it sets
        return {}
    found = {name: changes.get(name) or "" for name in lists}
    return {
        name: value
        for name, value in found.items()
        if value.endswith(f":${{{name}}}") and MARK not in value
    }


def _refusal(names: Sequence[str], found: str, output: str) -> EnvError:
    return EnvError(
        f"The modules {' '.join(names)} were to be loaded",
        found,
        "`module avail` lists what there is; try the same list in a terminal",
        tail=output,
    )
