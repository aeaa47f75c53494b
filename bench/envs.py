"""Envs: what a call, a start, large data and an env cost, side by side with peers in one run.

    python bench/envs.py [--quick]

Prints one JSON line per figure; what they mean is told in README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import peers
from figures import CACHE, Figure, compare, paired, say, second, show, timed


def nothing() -> None:
    """The body that costs nothing."""


def uses_numpy() -> int:
    """The body that needs a library, and nothing of it."""
    import numpy as np

    return int(np.int64(1))


def doubled(array: Any) -> Any:
    """A body that takes an array and gives another one."""
    return array * 2


def raised(array: Any) -> Any:
    """A body that changes an array in place."""
    array += 1
    return array


@dataclass(frozen=True)
class Bench:
    """What all figures need."""

    work: Path
    channel: str
    prefix: Path
    runs: int
    calls: int
    size: int
    full: bool

    @property
    def python(self) -> str:
        """The env's interpreter."""
        return str(self.prefix / "bin" / "python")


# --- the guest -----------------------------------------------------------------------------------


@contextmanager
def guests(bench: Bench) -> Iterator[Any]:
    """Starts guests of the env; ends them all."""
    from hpcburst.workers.guests import Guest, install_guest

    (bench.work / "pilot").mkdir(mode=0o700, exist_ok=True)
    home = install_guest(bench.work / "pilot")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with ExitStack() as stack:

        def start() -> Any:
            guest = Guest(bench.python, environ=environ, home=home)
            stack.callback(guest.close)
            return guest

        yield start


def called(guest: Any, call: Any) -> Any:
    """Make a call and give its reply; it must end well."""
    reply = guest.call(call, cwd=str(Path.cwd()), timeout_s=600.0)
    assert reply.failure is None, reply.failure
    return reply


def calls(bench: Bench) -> Iterator[Figure]:
    """A warm call against a start of an activated interpreter for each call."""
    from hpcburst.bodies import call_of

    argv = peers.activated_python(bench.prefix, bench.work / "start.sh")
    with guests(bench) as start:
        guest = start()
        for name, body, code, goals in (
            ("guest call, nothing to do", nothing, "pass", {"most": 150.0}),
            ("guest call, numpy imported", uses_numpy, "import numpy", {"ratio": 1000.0}),
        ):
            call = call_of(body)
            runs = paired(
                partial(median_us, bench, partial(called, guest, call)),
                partial(started_us, [*argv, code]),
                bench.runs,
            )
            peer = f"bash, activation, python -c '{code}'"
            yield compare(name, runs, peer_name=peer, unit="us", **goals)
        yield from against_conda_run(bench, partial(called, guest, call_of(nothing)))


def against_conda_run(bench: Bench, call: Callable[[], object]) -> Iterator[Figure]:
    """The same against a real `conda run`, where there is one."""
    conda = shutil.which("conda")
    if conda is None:
        say("No conda on PATH: nothing is compared with a real `conda run`")
        return
    argv = [conda, "run", "-p", str(bench.prefix), "python", "-c", "pass"]
    runs = paired(partial(median_us, bench, call), partial(started_us, argv), bench.runs)
    yield compare("guest call", runs, peer_name="conda run", unit="us", ratio=1000.0)


def median_us(bench: Bench, call: Callable[[], object]) -> float:
    """Microseconds of one of many calls."""
    return statistics.median(timed(call) for _ in range(bench.calls)) * 1e6


def started_us(argv: list[str]) -> float:
    """Microseconds of a program."""
    return timed(partial(peers.run, argv)) * 1e6


def cold_start(bench: Bench) -> Iterator[Figure]:
    """From nothing to the first answer, against a start of the bare interpreter."""
    from hpcburst.bodies import call_of

    call = call_of(nothing)
    with guests(bench) as start:

        def ours() -> float:
            made: list[Any] = []
            seconds = timed(lambda: called(made.append(start()) or made[0], call))
            made[0].close()
            return seconds * 1e3

        argv = [bench.python, "-c", "pass"]
        runs = paired(ours, lambda: started_us(argv) / 1e3, bench.runs)
    peer = "python -c pass"
    yield compare("guest cold start to first answer", runs, peer_name=peer, unit="ms", most=60.0)


# --- large data ----------------------------------------------------------------------------------


def arrays(bench: Bench) -> Iterator[Figure]:
    """An array in and another one out, against a copy in this process, and against executorlib."""
    import numpy as np

    array = np.arange(bench.size / 8)
    name = f"{bench.size >> 20} MiB array"
    with guests(bench) as start, peers.executorlib(bench.work, bench.size) as peer:
        guest = start()
        moved_gb = 2 * array.nbytes / 1e9

        def ours(body: Callable[[Any], Any]) -> float:
            return second(lambda: there_and_back(guest, body, array))

        def copied() -> float:
            return array.nbytes / 1e9 / second(array.copy)

        for what, body, ratio in (
            ("in and a new one out", doubled, 0.4 if bench.full else None),
            ("in, changed in place, out", raised, None),
        ):
            runs = paired(lambda body=body: moved_gb / ours(body), copied, bench.runs)
            yield compare(
                f"{name} {what}",
                runs,
                peer_name="array.copy() in process",
                unit="GB/s",
                more_is_better=True,
                ratio=ratio,
            )
        if peer is not None:
            runs = paired(lambda: ours(doubled), peer, bench.runs)
            what, best = f"{name} in and a new one out", 5.0 if bench.full else None
            yield compare(what, runs, peer_name=peers.EXECUTORLIB, unit="s", ratio=best)


def there_and_back(guest: Any, body: Any, array: Any) -> float:
    """The whole way, from an array here to an array here of which every page is looked at."""
    from hpcburst.bodies import call_of
    from hpcburst.workers.guest import values

    reply = called(guest, call_of(body, (array,)))
    back = values.loads(reply.payload, reply.buffers)
    assert back.shape == array.shape
    return float(back[::512].sum())


# --- envs ----------------------------------------------------------------------------------------


def env_from_cache(bench: Bench) -> Iterator[Figure]:
    """An env whose packages are on this machine already, against what people make without conda."""
    spec = spec_file(bench, "cached")
    store(bench, "cached").ensure(spec)

    def ours() -> float:
        fresh = store(bench, "cached")
        fresh.remove(fresh.key(spec))
        return timed(partial(fresh.ensure, spec)) * 1e3

    files = sum(path.is_file() for path in bench.prefix.rglob("*"))
    name = f"env of {files} files from a warm cache"
    for peer, peer_name, slow in (
        (peers.numpy_by_pip, "venv + pip, numpy from a local wheel", True),
        (peers.numpy_by_uv, "uv venv + uv pip, numpy from its cache", False),
    ):
        if (bench.full or not slow) and peer(bench.work) is not None:
            runs = paired(ours, lambda peer=peer: peer(bench.work) * 1e3, bench.runs)
            yield compare(name, runs, peer_name=peer_name, unit="ms", most=250.0)


def env_found(bench: Bench) -> Iterator[Figure]:
    """Asking for an env that exists, against pip's look whether a package is there."""
    spec = spec_file(bench, "found")
    kept = store(bench, "found")
    kept.ensure(spec)
    python = peers.venv_with("pip", [peers.NUMPY])
    argv = [str(python), "-m", "pip", "install", "--quiet", peers.NUMPY]
    for name, ask in (
        ("env that exists, asked again", lambda: kept.ensure(spec)),
        ("env that exists, asked by a new process", lambda: store(bench, "found").ensure(spec)),
    ):
        runs = paired(lambda ask=ask: timed(ask) * 1e3, lambda: started_us(argv) / 1e3, bench.runs)
        peer = "pip install of what is installed"
        yield compare(name, runs, peer_name=peer, unit="ms", most=1.0)


def ten_envs(bench: Bench) -> Iterator[Figure]:
    """The room that ten envs of the same packages take, against ten copies."""
    ten = store(bench, "ten")
    root = bench.work / "ten"
    sizes = []
    for number in range(10):
        env = ten.ensure(spec_file(bench, f"ten-{number}", f"variables: {{N: '{number}'}}\n"))
        if number == 0:
            one, cache = used_mb(Path(env.prefix)), used_mb(root / "pkgs")
    sizes = [used_mb(root) / cache]
    copies = [(10 * one + cache) / cache]
    peer = "ten copies"
    yield compare("ten envs and their cache", (sizes, copies), peer_name=peer, unit="x", most=1.3)


def store(bench: Bench, name: str) -> Any:
    """A store of envs of this bench's own, as a new process opens it."""
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.model import EnvSettings

    settings = EnvSettings(channels=(bench.channel,), place="shared")
    return EnvStore(bench.work / name, settings)


def spec_file(bench: Bench, name: str, more: str = "") -> Path:
    """An environment file: Python and numpy."""
    path = bench.work / f"{name}.yaml"
    minor = "{}.{}".format(*sys.version_info[:2])
    path.write_text(f"dependencies: [python ={minor}, numpy]\n{more}")
    return path


def used_mb(folder: Path) -> float:
    """Room on disk, files with several names counted once, in MB (10^6 bytes)."""
    seen, blocks = set(), 0
    for path in [folder, *folder.rglob("*")]:
        found = path.lstat()
        if found.st_ino not in seen:
            seen.add(found.st_ino)
            blocks += found.st_blocks
    return blocks * 512 / 1e6


# --- all together --------------------------------------------------------------------------------

FIGURES = (calls, cold_start, arrays, env_found, env_from_cache, ten_envs)


@contextmanager
def prepared(*, quick: bool) -> Iterator[Bench]:
    """A folder to work in, a channel, and one env of it."""
    from hpcburst_recipes.channel import build_channel, find_pythons

    minor = "{}.{}".format(*sys.version_info[:2])
    pythons = [python for python in find_pythons() if python.minor == minor]
    say("Looking for the channel (built once, about 20 s)")
    channel = build_channel(CACHE / "channel", pythons=pythons, requirements={minor: [peers.NUMPY]})
    with tempfile.TemporaryDirectory(prefix="work-", dir=CACHE) as folder:
        bench = Bench(
            work=Path(folder),
            channel=channel.url,
            prefix=Path(folder),
            runs=3 if quick else 5,
            calls=200 if quick else 2000,
            size=(64 if quick else 512) << 20,
            full=not quick,
        )
        env = store(bench, "main").ensure(spec_file(bench, "main"))
        yield Bench(**{**vars(bench), "prefix": Path(env.prefix)})


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs, smaller data")
    parser.add_argument("--only", default="", help="figures whose function has this in its name")
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
    with prepared(quick=args.quick) as bench:
        for figures in FIGURES:
            if args.only in figures.__name__:
                say(f"Measuring: {(figures.__doc__ or '').splitlines()[0]}")
                for figure in figures(bench):
                    show(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
