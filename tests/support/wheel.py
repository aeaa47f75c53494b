"""Build the wheel, install it in a clean environment with the sources out of sight, and use it.

    python tests/support/wheel.py

What is tested is what users get: that every file is in the wheel, that Snakemake finds the executor
and Prefect the task runner, and that a small burst of each kind runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FLOW = """
from prefect import flow, task
from hpcburst import needs
from prefect_hpcburst import BurstTaskRunner

@task
@needs(cores=1)
def double(x):
    return 2 * x

@flow(task_runner=BurstTaskRunner(max_jobs=1))
def doubled():
    return double.map(range(4)).result()

if __name__ == "__main__":
    print("doubled", doubled())
"""

SNAKEFILE = """
rule all:
    input: "greeting.txt"

rule greet:
    output: "greeting.txt"
    shell: "echo hello > {output}"
"""


def main() -> int:
    """Run it; the exit status tells."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        python = install(wheel, folder / "venv")
        return use(python, folder)


def build(folder: Path) -> Path:
    """The wheel, built from the sources as they are."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, place: Path) -> Path:
    """The Python of a fresh environment that has the wheel and what it asks for."""
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[prefect,snakemake]")
    return python


def use(python: Path, folder: Path) -> int:
    """Use it as its users do, from a folder of their own."""
    home = folder / "home"
    home.mkdir()
    work = folder / "work"
    work.mkdir()
    (work / "flow.py").write_text(FLOW)
    (work / "Snakefile").write_text(SNAKEFILE)
    hpcburst = python.with_name("hpcburst")
    snakemake = python.with_name("snakemake")
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    told = run(hpcburst, "--version", env=environ, cwd=work)
    assert "hpcburst" in told, told
    run(hpcburst, "doctor", env=environ, cwd=work)
    told = run(python, "flow.py", env=environ, cwd=work)
    assert "doubled [0, 2, 4, 6]" in told, told
    run(snakemake, "--executor", "hpcburst", "--jobs", "2", env=environ, cwd=work)
    assert (work / "greeting.txt").read_text() == "hello\n"
    print("the wheel installs and works")
    return 0


def run(*argv: object, **kwargs: object) -> str:
    """Run a program; its output. A failure shows what it said."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **kwargs,
    )
    if done.returncode:
        print(done.stdout)
        raise SystemExit(f"{argv[0]} ended with status {done.returncode}")
    return str(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
