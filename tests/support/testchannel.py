"""A local conda channel for tests: real Pythons and numpy, and tiny packages hard to solve.

toylib 1.0 and 2.0, app1 (needs toylib 1) and app2 (needs toylib 2) cannot be in one env; hpctool
brings what activation must find: a prefix in a script, an activate.d script, an env_vars.d file.
"""

import json
import sys
import tempfile
from pathlib import Path

from hpcburst_recipes.channel import FoundPython, build_channel, find_pythons
from hpcburst_recipes.channel.archive import Package, new_stage, pack

TINY_PACKAGES = "tiny-1"
"""Change it when a tiny package changes: cached channels are then built again."""


def build_test_channel(folder: Path) -> str:
    """The url of the channel in `folder`; built there first if it is missing or outdated."""
    pythons = two_pythons()
    channel = build_channel(
        folder,
        pythons=pythons,
        requirements={python.minor: ["numpy"] for python in pythons},
        also=(TINY_PACKAGES, add_tiny_packages),
    )
    return channel.url


def two_pythons() -> list[FoundPython]:
    """The running minor and the newest other one, oldest first; one if there is no other."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = find_pythons()
    ours = [python for python in found if python.minor == running]
    others = [python for python in found if python.minor != running]
    chosen = {python.minor for python in ours + others[-1:]}
    return [python for python in found if python.minor in chosen]


PREFIX = "@PREFIX@"
"""Stands in a file for the prefix it will be installed into."""

HPCTOOL = {
    "bin/hpctool": f'#!/bin/sh\n. "{PREFIX}/share/hpctool/lib.sh"\necho "prefix is {PREFIX}"\n',
    "share/hpctool/lib.sh": "# sourced\n",
    "share/hpctool/data.txt": "hello from the env\n",
    "etc/conda/activate.d/hpctool.sh": (
        'export HPCTOOL_HOME="$CONDA_PREFIX/share/hpctool"\n'
        'export HPCTOOL_STACKED="on:${HPCTOOL_STACKED:-}"\n'
        "hpctool_function() { echo a shell function; }\n"
    ),
    "etc/conda/deactivate.d/hpctool.sh": "unset HPCTOOL_HOME\n",
    "etc/conda/env_vars.d/hpctool.json": json.dumps({"HPCTOOL_THREADS": "4"}),
}


def add_tiny_packages(channel: Path, work: Path) -> None:
    """Put the tiny packages into a channel that is being built."""
    for version in ("1.0", "2.0"):
        text = f"__version__ = {version!r}\n\n\ndef who():\n    return 'toylib ' + __version__\n"
        _pack(channel, work, _pure("toylib", version), {"site-packages/toylib/__init__.py": text})
    for number in ("1", "2"):
        text = f"import toylib\n\nassert toylib.__version__ == '{number}.0'\n"
        package = _pure(f"app{number}", "0.1", f"toylib {number}.*")
        _pack(channel, work, package, {f"site-packages/app{number}.py": text})
    _pack(channel, work, Package("hpctool", "1.2.3", "0"), HPCTOOL)


def _pure(name, version, *needs):
    return Package(name, version, "py_0", depends=("python >=3.8", *needs), noarch="python")


def _pack(channel, work, package, files):
    with tempfile.TemporaryDirectory(dir=work) as folder:
        stage = new_stage(Path(folder), "p")
        for path, text in files.items():
            target = stage / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace(PREFIX, str(stage)))
            target.chmod(0o755 if path.startswith("bin/") else 0o644)
        pack(package, stage, channel)
