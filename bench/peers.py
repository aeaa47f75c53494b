"""The peers: what people use otherwise, made ready once and measured in the same run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import CACHE, say, timed

EXECUTORLIB = "executorlib==1.11.0"
NUMPY = "numpy==2.2.6"

DOUBLED_BY_EXECUTORLIB = """
import sys, time
import numpy
from executorlib import SingleNodeExecutor

def doubled(array):
    return array * 2

array = numpy.arange(int(sys.argv[1]) / 8)
with SingleNodeExecutor(max_workers=1, block_allocation=True) as executor:
    for _ in sys.stdin:
        for _ in range(2):  # the second one counts, as with the others
            begun = time.perf_counter()
            back = executor.submit(doubled, array).result()
            touched = float(back[::512].sum())
            took = time.perf_counter() - begun
            del back
        print(took, flush=True)
"""


def activated_python(prefix: Path, script: Path) -> list[str]:
    """What a start per call does at least: activate the env in a shell, become its interpreter.

    Returns:
        A command to which Python code is to be added.
    """
    script.write_text(
        f'export CONDA_PREFIX="{prefix}" PATH="{prefix}/bin:$PATH"\n'
        'for each in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do\n'
        '  [ -r "$each" ] && . "$each"\n'
        "done\n"
        'exec python -c "$1"\n'
    )
    return ["bash", str(script)]


@contextmanager
def executorlib(work: Path, size: int) -> Iterator[Callable[[], float] | None]:
    """Its warm worker doubles an array, in seconds; None where it cannot be had.

    Args:
        work: A folder for its script.
        size: Bytes of the array.
    """
    try:
        python = venv_with("executorlib", [EXECUTORLIB, NUMPY])
    except subprocess.CalledProcessError as error:
        say(f"executorlib is not to be had: {error}")
        yield None
        return
    script = work / "executorlib_peer.py"
    script.write_text(DOUBLED_BY_EXECUTORLIB)
    process = subprocess.Popen(
        [str(python), str(script), str(size)],
        cwd=work,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None

        def double() -> float:
            process.stdin.write("go\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield double
        process.stdin.close()


def numpy_by_pip(work: Path) -> float:
    """Seconds of the standard library's venv and of pip, from a wheel on this disk."""
    wheels = local_wheels()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        made = Path(folder) / "v"
        offline = ["--only-binary", ":all:", "--no-index", "--find-links", wheels]
        return timed(lambda: make_venv(made, [*offline, NUMPY]))


def numpy_by_uv(work: Path) -> float | None:
    """Seconds of uv for the same, from its warm cache; None where there is no uv."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    if not Path(uv).exists():
        return None
    wheels = local_wheels()

    def make() -> None:
        run([uv, "venv", "--quiet", "--python", sys.executable, made])
        run([uv, "pip", "install", "--quiet", "--python", made, *local, NUMPY])

    with tempfile.TemporaryDirectory(dir=work) as folder:
        made = str(Path(folder) / "v")
        local = ["--offline", "--no-index", "--find-links", wheels]
        return timed(make)


def local_wheels() -> str:
    """A folder with the wheel of numpy."""
    folder = CACHE / "wheels"
    if not list(folder.glob("numpy-*.whl")):
        say(f"Fetching {NUMPY} (once)")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        run([*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(folder), NUMPY])
    return str(folder)


def venv_with(name: str, packages: list[str], *, build: bool = False) -> Path:
    """The interpreter of a virtual environment that is made once and kept.

    Args:
        name: Of its folder.
        packages: What pip installs into it.
        build: Whether packages without a wheel are built.
    """
    folder = CACHE / name
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != " ".join(packages):
        say(f"Making a virtual environment with {' '.join(packages)} (once)")
        shutil.rmtree(folder, ignore_errors=True)
        make_venv(folder, packages if build else ["--only-binary", ":all:", *packages])
        ready.write_text(" ".join(packages))
    return folder / "bin" / "python"


def make_venv(folder: Path, packages: list[str]) -> None:
    """What the standard library and pip make of their arguments."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", *packages])


def run(argv: list[str]) -> None:
    """Run a program that must end well."""
    subprocess.run(argv, check=True)
