"""Where the output of jobs goes: one folder a run, one file an attempt of a job."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpcburst.errors import TAIL_LINES

_TAIL_BYTES = 1 << 14
_NAME_LENGTH = 100
_RUN = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]+")
_DAY_S = 86400.0


TABLE = "efficiency.csv"
"""Name of the run's efficiency table."""


@dataclass(frozen=True, slots=True)
class RunLogs:
    """The log files of one run.

    Attributes:
        folder: The run's folder, 0700.
        keep: Whether logs of jobs that ended well stay.
    """

    folder: Path
    keep: bool = False

    @classmethod
    def of_this_process(cls, root: Path, *, keep: bool) -> RunLogs:
        """The logs of a run that begins now."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return cls(root.absolute() / f"{stamp}-{os.getpid()}", keep=keep)

    def begin(self, rule: str, label: str) -> Path:
        """The file for one attempt of a job; its folder is there when this returns.

        Args:
            rule: Name of the rule or group.
            label: What tells the attempt from the others of the rule.
        """
        folder = self._own_folder() / _as_file_name(rule)
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder / f"{_as_file_name(label)}.log"

    def end_well(self, log: Path) -> None:
        """Remove the log of a job that ended well, unless all are kept."""
        if not self.keep:
            log.unlink(missing_ok=True)

    def keep_table(self, text: str) -> Path:
        """Write the run's efficiency table beside its logs; the path of it."""
        path = self._own_folder() / TABLE
        path.write_text(text, encoding="utf-8")
        return path

    def sweep(self, days: float) -> None:
        """Remove what earlier runs left beside this one's folder, so many days after its last use.

        Nothing else in that place is touched, and no link is followed.
        """
        oldest = time.time() - days * _DAY_S
        for folder in self.folder.parent.glob("*-*-*"):
            is_run = _RUN.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
            if is_run and folder != self.folder and _last_used(folder) < oldest:
                shutil.rmtree(folder, ignore_errors=True)

    def _own_folder(self) -> Path:
        """The run's folder, there and closed to others; those above it are the user's."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.folder

    def close(self) -> None:
        """Remove folders that nothing is left in. Idempotent."""
        for folder in (*self.folder.glob("*"), self.folder):
            with suppress(OSError):  # not empty, or never made
                folder.rmdir()


def last_lines(log: Path) -> str:
    """The last lines of a log, at most `TAIL_LINES`; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = deque(file.read().decode(errors="replace").splitlines(), maxlen=TAIL_LINES)
    except OSError:
        return ""
    return "\n".join(lines)


def _last_used(folder: Path) -> float:
    """When something in it last changed; a run of many days still writes."""
    return max(_changes(folder), default=time.time())


def _changes(folder: Path) -> Iterator[float]:
    for path in (folder, *folder.glob("*"), *folder.glob("*/*")):
        with suppress(OSError):  # another run was faster
            yield path.lstat().st_mtime


def _as_file_name(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", text)[:_NAME_LENGTH] or "_"
