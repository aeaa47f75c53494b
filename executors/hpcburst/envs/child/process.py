"""The driver's side of the child process in which rattler works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, Self

from hpcburst.errors import EnvError

Progress = Callable[[str, int, int | None], None]
"""Told `(what, done, total)` while a step runs; `total` is None when it is not known."""

STOP_S = 5.0
"""Seconds the child may take to end after its stdin closed, before it is killed."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """Show nothing."""


class RattlerFailed(Exception):
    """Rattler said no; `solve` and `build` put it into words.

    Attributes:
        kind: Name of rattler's exception type.
        text: What it said.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class RattlerProcess:
    """A child that solves and installs; started by the first call, gone at the end of `with`.

    Who needs it no more may `dismiss` it before that; a later call starts another one. Not for use
    by two threads at once.

    Args:
        progress: Told about steps as they run.
    """

    def __init__(self, progress: Progress = no_progress) -> None:
        self._progress = progress
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def call(self, verb: str, **request: Any) -> dict[str, Any]:
        """Have one step done.

        Args:
            verb: A verb of the child (`__main__`).
            **request: Its fields, as JSON can hold them.

        Returns:
            The child's answer.

        Raises:
            RattlerFailed: Rattler refused or failed.
            EnvError: The child died.
        """
        try:
            return self._exchange(verb, request)
        except RattlerFailed:
            raise
        except BaseException:
            # Interrupted: it must not go on writing into a stage that is being taken away.
            self.close()
            raise

    def _exchange(self, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._process and self._process.stdin and self._process.stdin.closed:
            self.close()
        process = self._process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the child was started without pipes")
        try:
            process.stdin.write(json.dumps({"verb": verb, **request}) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                answer = json.loads(line)
                if "progress" in answer:
                    self._progress(*answer["progress"])
                elif "error" in answer:
                    raise RattlerFailed(**answer["error"])
                else:
                    return dict(answer["done"])
        except BrokenPipeError:
            pass
        raise self._death(verb)

    def dismiss(self) -> None:
        """Let the child end without waiting for it, which takes some milliseconds."""
        if self._process and self._process.stdin:
            _close_quietly(self._process.stdin)

    def close(self) -> None:
        """End the child; may be called again."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                _close_quietly(process.stdin)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._errors is not None:
            self._errors.close()

    def _start(self) -> subprocess.Popen[str]:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - see close
        return subprocess.Popen(
            # -P: a file of the user's, named like a module of ours, must not be imported.
            [sys.executable, "-P", "-m", "hpcburst.envs.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "RUST_BACKTRACE": "0"},
            process_group=0,  # Ctrl-C reaches us; we end the child and then sweep
        )

    def _death(self, verb: str) -> EnvError:
        status = self._process.wait() if self._process else None
        output = ""
        if self._errors is not None:
            self._errors.seek(0)
            output = self._errors.read()[-4000:]
        return EnvError(
            f"Rattler was asked to {verb}",
            f"its process ended with status {status}",
            "look at the last output below; `python -m pip install -U py-rattler` may help",
            tail=output,
        )


def _close_quietly(stream: Any) -> None:
    with suppress(BrokenPipeError):
        stream.close()
