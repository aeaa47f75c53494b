"""What the child says while it works: lines of JSON, and rattler's own events put into them."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRESS_EVERY_S = 0.1
"""A person reads no faster, and thousands of packages would flood the pipe."""


class Report:
    """Writes answers and progress; rattler calls from threads of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._next_at = 0.0

    def send(self, answer: dict[str, Any]) -> None:
        """Write one line."""
        with self._lock:
            self._stream.write(json.dumps(answer) + "\n")
            self._stream.flush()

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Say how far a step is; too soon after the last time, it is left out."""
        now = time.monotonic()
        if now < self._next_at and done != total:
            return
        self._next_at = now + PROGRESS_EVERY_S
        self.send({"progress": [what, done, total]})


class LinkProgress:
    """Rattler's installation reporter: bytes and packages fetched, then packages linked.

    Attributes:
        failed_scripts: Packages whose link script ended badly.
    """

    def __init__(self, report: Callable[[str, int, int | None], None]) -> None:
        self._report = report
        self._operations = 0
        self._fetched = 0
        self._linked = 0
        self._bytes: dict[int, tuple[int, int]] = {}
        self._scripts: list[str] = []
        self.failed_scripts: list[str] = []
        self._lock = threading.Lock()

    def on_transaction_start(self, total_operations: int) -> None:
        """Rattler has so much to do."""
        self._operations = total_operations

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:
        """Bytes of one archive came."""
        with self._lock:
            self._bytes[download_idx] = (progress, total or progress)
            done, of = (sum(column) for column in zip(*self._bytes.values(), strict=True))
        self._report("downloading", done, of)

    def on_populate_cache_complete(self, cache_entry: int) -> None:
        """A package is extracted."""
        del cache_entry
        with self._lock:
            self._fetched += 1
        self._report("fetching packages", self._fetched, self._operations)

    def on_post_link_start(self, package_name: str, script_path: str) -> int:
        """A script begins; the number returned stands for it."""
        del script_path
        with self._lock:
            self._scripts.append(package_name)
            return len(self._scripts) - 1

    def on_post_link_complete(self, index: int, success: bool) -> None:
        """That script ended."""
        if not success:
            self.failed_scripts.append(self._scripts[index])

    def on_link_complete(self, index: int) -> None:
        """A package is linked."""
        del index
        with self._lock:
            self._linked += 1
        self._report("linking packages", self._linked, self._operations)

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_args, **_named: 0  # the other events are of no interest
