"""Become the kernel of an env: `kernel_start.py PLAN CONNECTION_FILE`.

The plan (JSON) names the interpreter, the variables that activating the env changes, and a folder
to find ipykernel in where the env has none. That folder comes last on the path: what the env has
itself counts more. The file is a program; it imports the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

BOOT = """
import sys
overlay = sys.argv.pop(1)
if sys.path and not sys.path[0]:
    del sys.path[0]
try:
    import ipykernel
except ImportError:
    sys.path.append(overlay)
from ipykernel import kernelapp
kernelapp.launch_new_instance()
"""


def main(argv: list[str]) -> None:
    """Take the place of this process by the kernel's."""
    plan = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    environ = {name: text for name, text in os.environ.items() if name not in plan["unset"]}
    environ.update(plan["set"])
    python = plan["interpreter"]
    os.execve(python, [python, "-c", BOOT, plan["overlay"], "-f", argv[1]], environ)  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main(sys.argv[1:])
