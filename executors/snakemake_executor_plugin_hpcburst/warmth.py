"""What the zygote does once so that no call has to: imports, and what `conda` says about itself."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from snakemake_executor_plugin_hpcburst import fork

MODULES = (
    "snakemake.cli",
    "snakemake.workflow",
    "snakemake.scheduling.job_scheduler",
    "snakemake.deployment.conda",
    "snakemake.storage",
    "snakemake.script",
    "snakemake.benchmark",
    "smart_open",
    "requests",
    "encodings.idna",
    "getpass",
    "graphlib",
    "stringprep",
)
"""What a nested call of Snakemake 9 imports; one that another release lacks is left out."""

CONDA_MAJORS = ("9",)
"""Releases of Snakemake whose `Conda` object we know how to hand on."""

_DEPLOYMENT = ("--deployment-method", "--software-deployment-method", "--deployment", "--sdm")


def import_snakemake() -> None:
    """Import what every nested call imports; keep it shared with the forks. Starts no thread."""
    for name in MODULES:
        with suppress(ImportError):
            import_module(name)
    from snakemake import cli

    cli.get_argument_parser()  # fills the registries of plug-ins
    gc.collect()
    gc.freeze()


class WarmConda:
    """Snakemake's picture of the `conda` command, learnt once instead of three calls per job.

    A forked learner asks; meanwhile calls ask for themselves. What it learnt is handed only to
    calls with the very same environment and base. Whatever goes wrong, calls ask for themselves.
    """

    def __init__(self) -> None:
        self._asked: tuple[Mapping[str, str], str | None] | None = None
        self._learner: tuple[int, int] | None = None

    def learn_for(self, request: Mapping[str, Any]) -> None:
        """Start to learn, at the first request that uses conda."""
        if self._asked is None and uses_conda(request["argv"]) and _knows_this_release():
            self._asked = _conditions(request)
            with suppress(OSError):
                self._learner = _start_learner(request)

    def take_in(self) -> None:
        """Keep what the learner found, once it has ended."""
        if self._learner is None:
            return
        pid, descriptor = self._learner
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            self._learner = None
            with os.fdopen(descriptor, "rb") as pipe:
                learnt = pipe.read()
            if status == 0:
                _install(json.loads(learnt))

    def keep_for(self, request: Mapping[str, Any]) -> None:
        """In the fork of a call: forget what was learnt under other conditions."""
        if self._asked is not None and _conditions(request) != self._asked:
            _conda_class().instances.clear()

    def close(self) -> None:
        """End a learner that is still at it. Idempotent."""
        if self._learner is not None:
            pid, descriptor = self._learner
            self._learner = None
            os.close(descriptor)
            fork.signal_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def uses_conda(argv: list[str]) -> bool:
    """Whether a nested call makes Snakemake look for conda."""
    starts = [at for at, word in enumerate(argv) if word in _DEPLOYMENT]
    return any("conda" in _values_after(argv, start) for start in starts)


def _values_after(argv: list[str], at: int) -> list[str]:
    values = argv[at + 1 :]
    ends = [place for place, word in enumerate(values) if word.startswith("--")]
    return values[: ends[0]] if ends else values


def _conditions(request: Mapping[str, Any]) -> tuple[Mapping[str, str], str | None]:
    return request["environ"], _conda_base(request["argv"])


def _conda_base(argv: list[str]) -> str | None:
    return argv[argv.index("--conda-base-path") + 1] if "--conda-base-path" in argv else None


def _knows_this_release() -> bool:
    from snakemake.common import __version__ as release

    known = release.split(".", maxsplit=1)[0] in CONDA_MAJORS
    return known and isinstance(getattr(_conda_class(), "instances", None), dict)


def _conda_class() -> Any:
    return import_module("snakemake.deployment.conda").Conda


def _start_learner(request: Mapping[str, Any]) -> tuple[int, int]:
    """Fork a process that asks conda. Returns its pid and the pipe its answer comes through."""
    server = os.getpid()
    readable, writable = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writable)
        return pid, readable
    status = 1
    try:
        fork.leave_the_server(server)
        os.write(writable, json.dumps(_ask_conda(request)).encode())
        status = 0
    except Exception as error:  # noqa: BLE001 - the edge of a process whose answer may be missing
        sys.stderr.write(f"zygote: each job asks conda itself: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def _ask_conda(request: Mapping[str, Any]) -> dict[str, Any]:
    os.environ.clear()
    os.environ.update(request["environ"])
    found = _conda_class()(prefix_path=_conda_base(request["argv"]), check=True)
    return dict(vars(found))


def _install(learnt: dict[str, Any]) -> None:
    kind = _conda_class()
    known = object.__new__(kind)
    vars(known).update(learnt)
    kind.instances.setdefault(None, known)
