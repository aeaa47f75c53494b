"""The child's side of the zygote: from a copy of the server to the nested call, and out."""

from __future__ import annotations

import atexit
import ctypes
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

from snakemake_executor_plugin_hpcburst import endings

ORPHANED = signal.SIGHUP
"""The signal a process asks the kernel for when its parent dies."""

_NOT_FOUND, _CANNOT_START = 127, 126
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def run(request: Mapping[str, Any], *, server: int, before: Callable[[], None]) -> NoReturn:
    """Run one request in this fresh fork and end the process.

    Args:
        request: What to run: `argv`, `cwd`, `environ`, `log`.
        server: Pid of the server, whose death is ours.
        before: Called once the environment is the request's, before a nested snakemake.
    """
    status = _CANNOT_START
    try:
        leave_the_server(server)
        _enter(request)
        if is_nested_snakemake(request["argv"]):
            before()
            status = _run_snakemake(request["argv"])
            if status and endings.was_killed(_status_of_rule(request)):
                status = endings.KILLED  # so that the pilot asks why
        else:
            _become(request["argv"], server)
    except FileNotFoundError:
        traceback.print_exc()
        status = _NOT_FOUND
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        _leave(status)


def is_nested_snakemake(argv: list[str]) -> bool:
    """Whether a fork of this process can stand for it: the same Python, and snakemake."""
    return argv[:3] == [sys.executable, "-m", "snakemake"]


def end_with_parent(number: int, parent: int) -> None:
    """Have the kernel send this process a signal when its parent dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(number), 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), number)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a child of ours and all of its process group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it has not made its session yet
        os.kill(pid, number)
    except PermissionError:  # what is left of the group runs as another user
        pass


def leave_the_server(server: int) -> None:
    """In a fresh fork: own session, default signals, and the server's death is ours."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    # Snakemake answers SIGTERM by waiting for its job, so an orphan takes its whole group along.
    signal.signal(ORPHANED, _end_group)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    end_with_parent(ORPHANED, server)


def _end_group(_number: int, _frame: FrameType | None) -> None:
    os.killpg(0, signal.SIGKILL)


def _enter(request: Mapping[str, Any]) -> None:
    """Take the request's output, folder and environment, as a new process would have them."""
    _redirect(os.devnull, os.O_RDONLY, 0)
    if request.get("log"):
        _redirect(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1, 2)
    os.chdir(request["cwd"])
    _extend_module_path(os.environ.get("PYTHONPATH"), request["environ"].get("PYTHONPATH"))
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    random.seed()


def _redirect(path: str, flags: int, *descriptors: int) -> None:
    opened = os.open(path, flags, 0o600)
    for descriptor in descriptors:
        os.dup2(opened, descriptor)
    os.close(opened)


def _extend_module_path(served: str | None, asked: str | None) -> None:
    """What `PYTHONPATH` and the working directory do to `sys.path` when Python starts."""
    if asked != served:
        gone = _path_entries(served)
        rest = [entry for entry in sys.path[1:] if entry not in gone]
        sys.path[1:] = [*_path_entries(asked), *rest]
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # noqa: PTH109 - sys.path holds text


def _path_entries(text: str | None) -> list[str]:
    return [os.path.abspath(entry) for entry in (text or "").split(os.pathsep) if entry]  # noqa: PTH100


def _run_snakemake(argv: list[str]) -> int:
    from snakemake import cli
    from snakemake.workflow import Workflow

    if hasattr(Workflow, "_rundir"):  # noted when Snakemake is imported, for its log's head
        Workflow._rundir = os.getcwd()  # noqa: PTH109, SLF001 - text; see above
    sys.argv = ["snakemake", *argv[3:]]
    try:
        cli.main(argv[3:])
    except SystemExit as end:
        return _status(end.code)
    return 0


def _status_of_rule(request: Mapping[str, Any]) -> int | None:
    sys.stdout.flush()
    sys.stderr.flush()
    return endings.command_status(endings.end_of(request.get("log")))


def _status(code: str | int | None) -> int:
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        return 1
    return (code or 0) & 0xFF


def _become(argv: list[str], server: int) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ, ORPHANED):  # Python's own choices, not theirs
        signal.signal(number, signal.SIG_DFL)
    end_with_parent(signal.SIGKILL, server)
    os.execvpe(argv[0], argv, os.environ)  # noqa: S606 - data all the way, no shell


def _leave(status: int) -> NoReturn:
    """End as the interpreter would, without returning into the server's frames."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for a rule's threads
        atexit._run_exitfuncs()  # noqa: SLF001 - temporary folders go
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
