"""Compiles a staged tree with the Python it is for, so that no env compiles at its first import."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hpcburst_recipes.channel.interpreters import FoundPython

# Its text is rewritten at install, so bytecode made before that would be wrong.
_REWRITTEN_AT_INSTALL = r"/_sysconfigdata_[^/]*\.py$"


def compile_tree(python: FoundPython, stage: Path, tree: Path) -> None:
    """Byte-compile all of `tree`; files with another syntax are left as source.

    The bytecode is valid whatever the file times become in the env (`unchecked-hash`), and records
    paths relative to the prefix.
    """
    command = [python.executable, "-I", "-S", "-m", "compileall", "-q", "-s", str(stage)]
    command += ["--invalidation-mode", "unchecked-hash", "-x", _REWRITTEN_AT_INSTALL, str(tree)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
