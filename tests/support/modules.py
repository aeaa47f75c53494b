"""The real module tools of this machine, and modulefiles for both of them.

Debian's `environment-modules` and `lmod` exclude each other. The second may be unpacked beside the
suite's other things: `apt-get download lmod && dpkg -x lmod_*.deb $CACHE/lmod`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.places import CACHE

Step = tuple[str, ...]
"""What a modulefile does: ("set", "CC", "gcc"), ("prepend", "PATH", "/gcc/bin"), ..."""

_TCL = {
    "set": "setenv",
    "unset": "unsetenv",
    "prepend": "prepend-path",
    "append": "append-path",
    "conflict": "conflict",
    "load": "module load",
}
_LUA = {"set": "setenv", "unset": "unsetenv", "prepend": "prepend_path", "append": "append_path"}


@dataclass(frozen=True)
class ModuleTool:
    """One tool as it is installed here.

    Attributes:
        name: Its name.
        variable: The variable in which it tells where its program is.
        command: That program.
        init: The shell file that defines `module`.
        home: Its folder, with `init/bash` in it.
    """

    name: str
    variable: str
    command: Path
    init: Path
    home: Path

    def write(self, folder: Path, name: str, steps: Sequence[Step]) -> None:
        """A modulefile in the tool's own language."""
        if self.name == "Lmod":
            text = "\n".join(_lua(*step) for step in steps)
            path = folder / f"{name}.lua"
        else:
            rows = [" ".join((_TCL[kind], *map(_braced, words))) for kind, *words in steps]
            text = "\n".join(["#%Module1.0", *rows])
            path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def environment_modules() -> ModuleTool | None:
    """Environment Modules, if it is installed."""
    home = Path("/usr/share/modules")
    found = sorted(Path("/usr/lib").glob("*/modulecmd.tcl")) or [Path("/usr/lib/modulecmd.tcl")]
    init = home / "init" / "bash"
    if not (found[0].exists() and init.exists()):
        return None
    return ModuleTool("Environment Modules", "MODULES_CMD", found[0], init, home)


def lmod(folder: Path) -> ModuleTool | None:
    """Lmod, if it is installed or unpacked and there is a Lua for it.

    Args:
        folder: Gets a copy of its shell file when it is not where it was made for.
    """
    for root in (Path("/"), CACHE / "lmod"):
        home = root / "usr" / "share" / "lmod" / "lmod"
        command = home / "libexec" / "lmod"
        if command.exists() and shutil.which("lua5.3"):
            init = folder / "lmod-init"
            text = (home / "init" / "bash").read_text()
            init.write_text(text.replace("/usr/share/lmod", str(home.parent)))
            return ModuleTool("Lmod", "LMOD_CMD", command, init, home)
    return None


def _lua(kind: str, *words: str) -> str:
    if kind == "load":
        return f"load({json.dumps(words[0])})"
    if kind == "conflict":
        return f"conflict({json.dumps(words[0])})"
    return f"{_LUA[kind]}({', '.join(map(json.dumps, words))})"


def _braced(word: str) -> str:
    return "{" + word + "}"
