"""Run one task's work on the pilot. Never raises: whatever happens is an Outcome."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpcburst.errors import EnvError
from hpcburst.results import Failure, Fault, Line, Outcome, Usage
from hpcburst.tasks import Burst, Command, PythonCall
from hpcburst.workers.activation import replay
from hpcburst.workers.command_server import CommandServers
from hpcburst.workers.commands import run_command
from hpcburst.workers.guests import GuestPool, install_guest
from hpcburst.workers.local_envs import LocalEnvs

MAX_LINES = 10_000
"""Lines of output an outcome carries at most; a body that writes more wants a file."""


NODES_OWN = ("TMPDIR", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Variables that are true of this job on this node only: a command's environment comes from the
driver, and gets these from the pilot."""


class Workplace:
    """What a pilot needs to do work: its private folder, envs, guests and warm servers.

    Args:
        folder: A private folder on the node's own disk.
        environ: Process environment that guests get, before their env's activation.
        node_root: Folder on the node's own disk, for envs that outlive the pilot; None is the
            system's folder for temporary files.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str] | None = None,
        *,
        node_root: Path | None = None,
    ) -> None:
        base = dict(os.environ if environ is None else environ)
        self._own = {name: base[name] for name in NODES_OWN if name in base}
        self._guests = GuestPool(home=install_guest(folder), environ=base)
        self._servers = CommandServers()
        self._envs = LocalEnvs(node_root or Path(tempfile.gettempdir()))

    def do(
        self, burst: Burst, cancelled: threading.Event, on_line: Callable[[Line], None]
    ) -> Outcome:
        """Run a task's work to its end; blocks.

        Args:
            burst: The task.
            cancelled: Set by another thread to stop it.
            on_line: Gets each line of output as it comes.
        """
        begun = time.time()
        try:
            if isinstance(burst.work, Command):
                return self._command(burst, burst.work, cancelled, on_line)
            return self._call(burst, burst.work, cancelled, on_line)
        except EnvError as error:
            failure = Failure(
                Fault.ENV, type(error).__name__, str(error), pickled=pickle.dumps(error)
            )
            return Outcome(failure=failure, usage=Usage(started_at=begun))
        except Exception as error:  # noqa: BLE001 - the edge of the pilot: a fault of ours is told too
            failure = Failure(
                Fault.DIED,
                type(error).__name__,
                f"The pilot failed: {error}",
                traceback.format_exc(),
            )
            return Outcome(failure=failure, usage=Usage(started_at=begun))

    def close(self) -> None:
        """End all guests and servers. Idempotent."""
        with suppress(OSError):
            self._servers.close()
        self._guests.close()
        self._envs.close()

    def _command(
        self,
        burst: Burst,
        command: Command,
        cancelled: threading.Event,
        on_line: Callable[[Line], None],
    ) -> Outcome:
        environ = command.environ
        if burst.env is not None:
            environ = replay(self._envs.here(burst.env).activation, environ)
        reply = run_command(
            replace(command, environ={**environ, **self._own}),
            servers=self._servers,
            timeout_s=burst.timeout_s,
            cancelled=cancelled,
            on_line=on_line,
        )
        return Outcome(failure=reply.failure, returncode=reply.returncode, usage=reply.usage)

    def _call(
        self,
        burst: Burst,
        call: PythonCall,
        cancelled: threading.Event,
        on_line: Callable[[Line], None],
    ) -> Outcome:
        env = burst.env and self._envs.here(burst.env)
        with self._guests.lease(env) as guest:
            reply = guest.call(
                call,
                cwd=burst.cwd,
                paths=burst.paths,
                timeout_s=burst.timeout_s,
                cancelled=cancelled,
                on_line=on_line,
            )
        return Outcome(
            payload=reply.payload,
            buffers=reply.buffers,
            stored=reply.kept,
            failure=reply.failure,
            usage=reply.usage,
        )
