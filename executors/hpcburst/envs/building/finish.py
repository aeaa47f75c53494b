"""What makes linked files an env that others can use: compiled, readable, and seen to start."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hpcburst.envs.child.process import Progress
    from hpcburst.envs.specs.spec import EnvSpec

SMOKE_S = 30
"""Seconds the first imports may take; on a slow file system large packages need that long, and
when the time is up the env is taken for good."""

COMPILERS = 4
"""Processes that compile at most: a login node has other users."""

WORTH_A_COMPILER = 150
"""Files for which one more process pays: it starts in the time of about twenty of them."""

# To look for garbage takes 5 % of the time of what only imports or compiles, and then ends.
_TALK = r"""
import sys, os, json, gc
gc.disable()
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
job = json.load(sys.stdin)
def say(**words):
    answers.write(json.dumps(words) + "\n")
    answers.flush()
"""

_COMPILE = r"""
import py_compile
stage = job["stage"]
for n, path in enumerate(job["sources"], 1):
    try:
        py_compile.compile(path, dfile=job["prefix"] + path[len(stage):], doraise=True)
    except Exception:
        pass
    if n % 50 == 0:
        say(compiled=n)
"""

# What is let pass here: machines without the driver, display or variables that a module looks for
# when it is imported. That says nothing of the env, and login nodes have none of them.
_SMOKE = r"""
if os.path.realpath(sys.prefix) != os.path.realpath(job["stage"]):
    say(failed="its Python says that it belongs to " + sys.prefix)
    raise SystemExit
import signal
signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
signal.alarm(job["limit_s"])
for name in job["modules"]:
    try:
        __import__(name)
    except (OSError, RuntimeError, LookupError):
        pass
    except Exception as error:
        if "cannot open shared object file" not in str(error):
            import traceback
            say(failed="`import " + name + "` fails", trace=traceback.format_exc())
            break
    except BaseException:
        pass
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    found: os.stat_result


def finish(stage: Path, prefix: Path, spec: EnvSpec, progress: Progress) -> None:
    """Compile what is not compiled, open all to its readers, and see that the env's Python starts.

    Args:
        stage: The env, whole except for its record.
        prefix: Where it will be.
        spec: What was asked: the modules of what it names are imported; and with a password in it
            the env is nobody else's to read.
        progress: Told what is done.

    Raises:
        EnvError: Its Python does not start, or a module that was asked for cannot be imported.
    """
    python = stage / "bin/python"
    libraries = _libraries(stage)
    if not libraries or not python.exists():
        open_to_readers(_walk(stage), private=spec.holds_secrets)
        return
    names = asked_names(spec)
    modules = [module for folder in libraries for module in modules_of(names, folder)]
    job = {"stage": str(stage), "modules": modules, "limit_s": SMOKE_S}
    # The first imports take longer than all the rest, and meanwhile the rest is done.
    with _Child(python, _SMOKE, job) as smoke:
        entries = list(_walk(stage))
        open_to_readers(entries, private=spec.holds_secrets)
        compile_all(python, list(_uncompiled(entries, libraries)), stage, prefix, progress)
        progress("starting its Python", 0, None)
        _raise_if_failed(smoke, prefix)


def asked_names(spec: EnvSpec) -> tuple[str, ...]:
    """The names of the packages that a spec asks for itself.

    Of exact archives they are those that no other one needs, if that is known.
    """
    patterns = (r"(?:\S+::)?([A-Za-z0-9_][\w.\-]*)", r"([A-Za-z0-9][\w.\-]*)")
    lines = [(patterns[0], line) for line in spec.conda if "://" not in line.partition("::")[0]]
    lines += [(patterns[1], line) for line in spec.pip if not spec.explicit]
    found = [match[1] for pattern, line in lines if (match := re.match(pattern, line))]
    if any(archive.depends for archive in spec.explicit):
        needed = {d.split()[0] for archive in spec.explicit for d in archive.depends if d.strip()}
        names = [a.url.rpartition("/")[2].rsplit("-", 2)[0] for a in spec.explicit]
        found += [name for name in names if name not in needed]
    return tuple(dict.fromkeys(name.lower() for name in found if name.lower() != "python"))


def modules_of(names: Iterable[str], library: Path) -> list[str]:
    """The top modules that packages of these names have put into a `site-packages` folder."""
    wanted = {_normal(name): name for name in names}
    known: dict[str, list[str]] = {}
    for info in library.glob("*.dist-info"):
        name = _normal(info.stem.rpartition("-")[0])
        if name in wanted:
            known[name] = _tops(info)
    found = [top for name in wanted for top in known.get(name, [name.replace("-", "_")])]
    return [top for top in dict.fromkeys(found) if _is_module(library, top)]


def open_to_readers(entries: Iterable[Any], *, private: bool) -> None:
    """Set the modes of all files and folders: 0755 and 0644; 0700 and 0600 if private.

    Rattler writes some files for their owner alone, and then `conda list` of a colleague fails. A
    file with other hard links belongs to other envs too and stays open: the folder hides it.
    """
    for entry in entries:
        mode = entry.found.st_mode
        if stat.S_ISLNK(mode):
            continue
        runs = stat.S_ISDIR(mode) or mode & stat.S_IXUSR
        shared = stat.S_ISREG(mode) and entry.found.st_nlink > 1
        wanted = (0o755 if runs else 0o644) & (0o777 if shared or not private else 0o700)
        if mode & 0o777 != wanted:
            with suppress(PermissionError):  # it is linked to somebody else's, which we may read
                Path(entry.path).chmod(wanted)


def _libraries(stage: Path) -> list[Path]:
    found = [path for path in stage.glob("lib/python3*/site-packages") if path.is_dir()]
    # lib/python3.1 is a link: conda-forge's fallback for tools that read 3.10 as 3.1.
    return [path for path in found if not path.parent.is_symlink()]


def _walk(folder: Path) -> Iterator[_Entry]:
    yield _Entry(str(folder), folder.stat())
    todo = [str(folder)]
    while todo:
        with os.scandir(todo.pop()) as listed:
            for entry in listed:
                yield _Entry(entry.path, entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)


def _uncompiled(entries: Sequence[_Entry], libraries: Sequence[Path]) -> Iterator[str]:
    """The Python files that rattler or uv left uncompiled, or every task would compile them."""
    heads = tuple(f"{folder}/" for folder in libraries)
    ours = [entry.path for entry in entries if entry.path.startswith(heads)]
    compiled = {_source_of(path) for path in ours if path.endswith(".pyc")}
    for path in ours:
        if path.endswith(".py") and path not in compiled:
            yield path


def _source_of(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"


def compile_all(
    python: Path, sources: Sequence[str], stage: Path, prefix: Path, progress: Progress
) -> None:
    """Compile Python files of a stage for their final place; those that cannot be are left.

    Args:
        python: The env's own.
        sources: The files.
        stage: Where they are.
        prefix: Where they will be: tracebacks name that.
        progress: Told how many are done.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    count = min(COMPILERS, cores, -(-len(sources) // WORTH_A_COMPILER))
    job = {"stage": str(stage), "prefix": str(prefix)}
    with ExitStack() as stack:
        children = [
            stack.enter_context(_Child(python, _COMPILE, {**job, "sources": sources[n::count]}))
            for n in range(count)
        ]
        for words in children[0].answers() if children else ():
            progress("byte-compiling", min(len(sources), words["compiled"] * count), len(sources))


class _Child:
    """The env's Python at work: told by an object on stdin, it answers by lines on stdout."""

    def __init__(self, python: Path, program: str, job: dict[str, Any]) -> None:
        self._job = job
        self._errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - see __exit__
        self._process = subprocess.Popen(
            [str(python), "-I", "-B", "-c", _TALK + program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd="/",
            env=_environ(python),
        )

    def __enter__(self) -> Self:
        with suppress(BrokenPipeError):
            stdin = self._process.stdin or _no_pipe()
            stdin.write(json.dumps(self._job))
            stdin.close()
        return self

    def __exit__(self, kind: object, *_exception: object) -> None:
        if kind is not None:
            self._process.kill()
        for _words in self.answers():
            pass
        self.status()
        (self._process.stdout or _no_pipe()).close()
        self._errors.close()

    def answers(self) -> Iterator[dict[str, Any]]:
        """What it says, until it ends."""
        for line in self._process.stdout or _no_pipe():
            with suppress(ValueError):  # it was killed in the middle of a word
                yield json.loads(line)

    def status(self) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait()

    def tail(self) -> str:
        """The last that it wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read()[-4000:]


def _no_pipe() -> NoReturn:
    raise RuntimeError("the env's Python was started without pipes")


def _raise_if_failed(smoke: _Child, prefix: Path) -> None:
    asked = f"The env {prefix} was to be seen working before anybody uses it"
    todo = "put versions that fit each other into its file, and build it again"
    for words in smoke.answers():
        raise EnvError(asked, words["failed"], todo, tail=words.get("trace", ""))
    status = smoke.status()
    if status != 0:
        raise EnvError(asked, f"its Python ended with status {status}", todo, tail=smoke.tail())


def _environ(python: Path) -> dict[str, str]:
    """As plain as a task's, with the programs of the env.

    One thread: numpy's libraries start one for each core when they are imported, and those spin
    for work that never comes while others build and link.
    """
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL") if name in os.environ}
    folder = python.parent
    path = os.pathsep.join([str(folder), "/usr/local/bin", "/usr/bin", "/bin"])
    own = {"PATH": path, "CONDA_PREFIX": str(folder.parent)}
    return {**kept, **own, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}


def _tops(info: Path) -> list[str]:
    """The top modules of a distribution, by its own account."""
    with suppress(OSError):
        return (info / "top_level.txt").read_text(encoding="utf-8").split()
    with suppress(OSError):
        lines = (info / "RECORD").read_text(encoding="utf-8").splitlines()
        heads = (re.match(r"([A-Za-z_]\w*)(?:/|\.py,|\.[\w\-]+\.so,)", line) for line in lines)
        return list(dict.fromkeys(head[1] for head in heads if head))
    return []


def _is_module(library: Path, name: str) -> bool:
    if not name.isidentifier() or name.startswith("_"):
        return False
    places = (library / name / "__init__.py", library / f"{name}.py")
    return any(p.exists() for p in places) or any(library.glob(f"{name}.*.so"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
