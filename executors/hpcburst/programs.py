"""Tasks whose body is a program: a script in R or Julia, a tool, a shell with a line of its own.

`needs(command=...)` and `shell` state such a task. It runs in the task's env like a Python body,
but needs no Python there. Arguments of the call become words of its command line as data.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.answers import raise_failure
from hpcburst.errors import TAIL_LINES, CommandFailed
from hpcburst.results import Failure, Fault, Line, Outcome
from hpcburst.tasks import ATTRIBUTE, Burst, Command, Needs, read_needs
from hpcburst.templates import arguments_of, fields_of, filled
from hpcburst.workers.commands import NOT_STARTED
from hpcburst.workers.guests import FOREIGN
from hpcburst.workers.work import MAX_LINES, Workplace

if TYPE_CHECKING:
    from hpcburst.policy.model import Site
    from hpcburst.tasks import Env

MAX_CHARS = 1_000_000
"""Characters of each output that a result carries; a program that writes more wants a file."""

TAIL_CHARS = 4096
"""The end of each output that an error carries."""

ANOTHER_JOB = ("SLURM_", "SLURMD_", "PBS_", "LSB_", "OAR_", "PMI_", "PMIX_")
"""What a driver that is itself in a batch job has, and what is not true of its pilots."""

_RUN = "__hpcburst_run__"
_BY_SIGNAL = 128
_TODO_FAILED = (
    "the last output may tell why; statuses that mean success are stated with ok=(0, ...)"
)
_TODO_NOT_STARTED = "add the package that brings it to the env, or the module to `modules`"


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended well.

    Attributes:
        returncode: Its exit status.
        stdout: What it wrote to stdout, without the end of the last line.
        stderr: The same of stderr.
        wall_s: Seconds it ran.
        whole: Whether that is all it wrote. Lines beyond the first 10,000 are left out, and of
            each output all but the last million characters.
    """

    returncode: int
    stdout: str = ""
    stderr: str = ""
    wall_s: float = 0.0
    whole: bool = True


def shell(
    template: str | Sequence[str], *, name: str | None = None, **fields: Any
) -> Callable[..., Completed]:
    """A function whose body is a command: `fit = task(shell("Rscript fit.R {block}"))`.

    The template is split into words as a shell would split it, once; no shell reads it. Its fields
    `{name}` are the parameters of the function. Where pipes or redirections are wanted, ask for a
    shell: `shell(["sh", "-c", 'sort "$1" > "$2"', "sh", "{table}", "{out}"])`.

    Args:
        template: The command, as one text or as a list of words.
        name: Name of the function; the program's if None.
        **fields: What `hpcburst.needs` takes.

    Returns:
        The function. Under a BurstTaskRunner the command runs on a pilot. Called by hand it runs
        here, in its env, in the working directory, and what it writes is shown. It returns a
        `Completed`.

    Raises:
        RequestError: The template or a field cannot be read.
    """
    frame = inspect.currentframe()
    caller = frame.f_back.f_globals if frame and frame.f_back else {}
    folder = str(Path(caller.get("__file__", ".")).absolute().parent)
    needs = replace(read_needs({**fields, "command": template}), folder=folder)
    function = _function(needs, name or Path((needs.command or ("",))[0]).name)
    function.__module__ = caller.get("__name__", __name__)
    setattr(function, ATTRIBUTE, needs)
    return function


def command_of(
    function: Callable[..., Any], needs: Needs, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Command:
    """The command of one call, with the driver's working directory and environment.

    Raises:
        RequestError: An argument has no place on a command line.
    """
    return _command(needs, arguments_of(function, args, kwargs))


def digest_of(needs: Needs) -> str:
    """Digest (sha256 in hex) of what the command is; the arguments of a call are not in it."""
    stated = repr((needs.command, sorted(needs.ok)))
    return hashlib.sha256(stated.encode()).hexdigest()


def completed_of(outcome: Outcome, needs: Needs, name: str) -> Completed:
    """What a command has come to.

    Args:
        outcome: How it ended, with its lines.
        needs: What it asked for; says which statuses mean success.
        name: The task's name, for the message.

    Raises:
        CommandFailed: It did not start, or ended with another status.
        BurstError: It did not end by itself.
    """
    failure, code = outcome.failure, outcome.returncode
    unstarted = failure.message if failure and _did_not_start(failure, code) else ""
    if failure and failure.fault is not Fault.NONZERO and not unstarted:
        told = replace(failure, traceback=failure.traceback or _tail(outcome))
        raise_failure(told, outcome.where, name)
    outputs = _text(outcome.lines, "stdout"), _text(outcome.lines, "stderr")
    if unstarted or code not in needs.ok:
        raise _failed(outcome, name, unstarted or _status(code), outputs)
    whole = len(outcome.lines) <= MAX_LINES and max(map(len, outputs)) <= MAX_CHARS
    stdout, stderr = (text[-MAX_CHARS:] for text in outputs)
    return Completed(code, stdout, stderr, outcome.usage.wall_s, whole)


def run_here(needs: Needs, name: str, values: Mapping[str, Any]) -> Completed:
    """Run a command on this machine as a pilot runs it; what it writes is shown as it comes.

    Args:
        needs: The command, its env and how long it may run; no queue is asked for the rest.
        name: What it is called in messages.
        values: What its fields stand for.

    Raises:
        RequestError: A value has no place on a command line.
        EnvError: Its env cannot be found, read, solved or built.
        CommandFailed: It did not start, or ended with a status that does not mean success.
        BurstError: It did not end by itself.
    """
    from hpcburst.policy.load import load_site

    command = _command(needs, values)
    site = load_site()
    burst = Burst(name, command, needs, _env_here(needs, site), needs.walltime_s)
    return completed_of(_outcome_here(burst, site), needs, name)


def _env_here(needs: Needs, site: Site) -> Env | None:
    from hpcburst.envs.specs.places import resolve_env
    from hpcburst.envs.store import EnvStore

    if needs.env is None and not needs.modules:
        return None
    folders = [needs.folder] if needs.folder else []
    wanted = None if needs.env is None else resolve_env(needs.env, folders)
    return EnvStore.of_site(site).ensure(wanted, needs.modules)


def _outcome_here(burst: Burst, site: Site) -> Outcome:
    lines: list[Line] = []

    def show(line: Line) -> None:
        if len(lines) <= MAX_LINES:
            lines.append(line)
        stream = sys.stderr if line.level == "stderr" else sys.stdout
        stream.write(f"{line.text}\n")

    with tempfile.TemporaryDirectory(prefix="hpcburst-") as folder:
        workplace = Workplace(Path(folder), node_root=site.paths.node_root)
        try:
            outcome = workplace.do(burst, threading.Event(), show)
        finally:
            workplace.close()
    return replace(outcome, lines=tuple(lines))


def _command(needs: Needs, values: Mapping[str, Any]) -> Command:
    argv = filled(needs.command or (), values)
    return Command(argv=argv, cwd=os.getcwd(), environ=_environ(needs))  # noqa: PTH109 - text travels


def _environ(needs: Needs) -> dict[str, str]:
    """The driver's environment, without what is not true elsewhere."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith(ANOTHER_JOB)}
    if needs.env is None and not needs.modules:  # the driver's own Python, and what is beside it
        beside = str(Path(sys.executable).parent)
        environ["PATH"] = os.pathsep.join([beside, environ.get("PATH", os.defpath)])
        return environ
    kept = {name: text for name, text in environ.items() if name not in FOREIGN}
    return kept | {"PYTHONNOUSERSITE": "1"}


def _function(needs: Needs, name: str) -> Callable[..., Completed]:
    """A function with the template's fields as its parameters, and a source of its own.

    Engines look at both: the parameters, and the source to know a task from another.
    """
    words = needs.command or ()
    fields = fields_of(words)
    values = ", ".join(f"{field!r}: {field}" for field in fields)
    called = name if name.isidentifier() and not iskeyword(name) else "command"
    text = (
        f"def {called}({', '.join(fields)}):\n"
        f"    # {words!r}, ok={needs.ok!r}\n"
        f"    return {_RUN}({{{values}}})\n"
    )
    place = f"<hpcburst.shell {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    made: dict[str, Any] = {_RUN: partial(run_here, needs, name)}
    exec(compile(text, place, "exec"), made)  # noqa: S102 - its names are checked identifiers
    function: Callable[..., Completed] = made[called]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Run `{shlex.join(words)}`."
    return function


def _did_not_start(failure: Failure, code: int | None) -> bool:
    return failure.fault is Fault.DIED and code == NOT_STARTED


def _tail(outcome: Outcome) -> str:
    return "\n".join(line.text for line in outcome.lines[-TAIL_LINES:])


def _text(lines: Iterable[Line], level: str) -> str:
    return "\n".join(line.text for line in lines if line.level == level)


def _failed(outcome: Outcome, name: str, found: str, texts: tuple[str, str]) -> CommandFailed:
    where, code = outcome.where, outcome.returncode or 0
    error = CommandFailed(
        f"Task {name!r} did not end well: {found}",
        "",
        _TODO_NOT_STARTED if code == NOT_STARTED else _TODO_FAILED,
        job_id=where.job_id or None,
        host=where.host or None,
        log=where.log or None,
        tail=_tail(outcome),
    )
    error.returncode = code
    error.stdout, error.stderr = (text[-TAIL_CHARS:] for text in texts)
    return error


def _status(code: int | None) -> str:
    """A status in words: above 128 a shell tells by which signal the program in it was killed."""
    with suppress(ValueError):
        if code is not None and code > _BY_SIGNAL:
            name = signal.Signals(code - _BY_SIGNAL).name
            return f"It ended with status {code} (a shell's word for {name})."
    return f"It ended with status {code}."
