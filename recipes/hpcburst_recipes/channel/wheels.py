"""Fetches wheels from PyPI and turns each into a staged conda package."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

from hpcburst.errors import EnvError
from hpcburst_recipes.channel.archive import Package
from hpcburst_recipes.channel.bytecode import compile_tree
from hpcburst_recipes.channel.metadata import (
    depends_of,
    destination,
    entry_points_of,
    glibc_of,
    python_pin,
    read_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hpcburst_recipes.channel.interpreters import FoundPython
    from hpcburst_recipes.channel.metadata import EntryPoint

DOWNLOAD_TIMEOUT_S = 600.0
"""Seconds for all wheels of one Python; a slow mirror needs minutes, a dead one must not hang."""

_SCRIPT = """\
#!{stage}/bin/python{minor}
import sys
from {module} import {root}
sys.exit({function}())
"""


def pip_command(pythons: Sequence[FoundPython]) -> list[str]:
    """How to call pip: this interpreter's, or the first that one of the Pythons has.

    Raises:
        EnvError: None of them has pip.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for python in pythons:
        command = [python.executable, "-I", "-m", "pip"]
        if not subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
            return command
    raise EnvError(
        "wheels for the local conda channel were asked for",
        "neither this Python nor those found on this machine have pip",
        "install it with: python -m ensurepip",
    )


def fetch_wheels(
    pip: Sequence[str], python: FoundPython, requirements: Sequence[str], folder: Path
) -> list[Path]:
    """Download the wheels of requirements and of all they depend on, for one Python.

    pip runs under that Python, because it judges markers by the Python it runs in.

    Raises:
        EnvError: pip failed; its last lines are in the tail.
    """
    command = [*pip, "--python", python.executable, "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder)]
    asked = f"wheels of {', '.join(requirements)} for Python {python.minor} were asked for"
    try:
        subprocess.run(
            [*command, "--", *requirements],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        todo = "check that PyPI can be reached (a proxy, or PIP_INDEX_URL for a mirror)"
        raise EnvError(asked, "pip could not get them", todo, tail=error.stderr) from None
    except subprocess.TimeoutExpired:
        found = f"pip was not done after {DOWNLOAD_TIMEOUT_S:.0f} s"
        raise EnvError(asked, found, "set PIP_INDEX_URL to a nearer mirror") from None
    return sorted(folder.glob("*.whl"))


def stage_wheel(wheel: Path, python: FoundPython, stage: Path) -> Package:
    """Fill the stage with what installing the wheel would put into a prefix.

    Returns:
        What the package says about itself; it is for this Python minor alone, also when the wheel
        is pure, because markers are judged and bytecode is made for that minor.
    """
    with zipfile.ZipFile(wheel) as box:
        info = _info_folder(box)
        facts = read_metadata(box.read(f"{info}/METADATA").decode())
        _unpack(box, python.minor, stage)
        scripts = _read_optional(box, f"{info}/entry_points.txt")
    for entry in entry_points_of(scripts):
        _write_script(entry, python.minor, stage)
    compile_tree(python, stage, stage / "lib")
    glibc = glibc_of(wheel.name)
    return Package(
        name=facts.name,
        version=facts.version,
        build=f"py{python.minor.replace('.', '')}_0",
        depends=(
            python_pin(python.minor),
            *((f"__glibc >={glibc}",) if glibc else ()),
            *depends_of(facts.requires, python.version),
        ),
        license=facts.license,
    )


def _info_folder(box: zipfile.ZipFile) -> str:
    tops = {name.split("/")[0] for name in box.namelist()}
    return next(top for top in sorted(tops) if top.endswith(".dist-info"))


def _read_optional(box: zipfile.ZipFile, name: str) -> str:
    return box.read(name).decode() if name in box.namelist() else ""


def _unpack(box: zipfile.ZipFile, minor: str, stage: Path) -> None:
    for member in box.infolist():
        place = destination(member.filename, minor)
        if place is None or member.is_dir():
            continue
        target = stage / place
        target.parent.mkdir(parents=True, exist_ok=True)
        data = box.read(member)
        if place.startswith("bin/"):
            data = _own_interpreter(data, minor, stage)
        target.write_bytes(data)
        if place.startswith("bin/") or (member.external_attr >> 16) & 0o111:
            target.chmod(0o755)


def _own_interpreter(script: bytes, minor: str, stage: Path) -> bytes:
    """Wheels begin their scripts with `#!python`; the installer fills in which."""
    first, _, rest = script.partition(b"\n")
    if not first.startswith(b"#!python"):
        return script
    return f"#!{stage}/bin/python{minor}\n".encode() + rest


def _write_script(entry: EntryPoint, minor: str, stage: Path) -> None:
    script = stage / "bin" / entry.command
    script.parent.mkdir(exist_ok=True)
    root = entry.function.split(".")[0]
    script.write_text(
        _SCRIPT.format(
            stage=stage, minor=minor, module=entry.module, root=root, function=entry.function
        )
    )
    script.chmod(0o755)
