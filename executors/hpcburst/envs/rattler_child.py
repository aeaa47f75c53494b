"""The child process in which rattler works, and the only module that imports rattler.

Started as `python -P -m hpcburst.envs.rattler_child`. Requests are lines of JSON on stdin,
`{"verb": ..., ...}`; answers are lines of JSON on stdout: any number of `{"progress": [...]}`, then
`{"done": {...}}` or `{"error": {"kind": ..., "text": ...}}`. When stdin ends the process ends, in
the middle of a step if need be: a builder that is killed takes it along.

py-rattler 0.26 to 0.28 differ in names; `_platform` and `_package_cache` know both.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRESS_EVERY_S = 0.1
"""A person reads no faster, and thousands of packages would flood the pipe."""


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a package's script prints must not get between the answers
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    report = _Report(answers)
    while True:
        report.send(_answer(json.loads(requests.get()), report))


def _read_requests(requests: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    # Not sys.exit: the main thread may be deep in rattler, and rattler's own threads outlive it.
    os._exit(0)


class _Report:
    """Writes answers and progress; rattler calls from threads of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._next_at = 0.0

    def send(self, answer: dict[str, Any]) -> None:
        with self._lock:
            self._stream.write(json.dumps(answer) + "\n")
            self._stream.flush()

    def progress(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self._next_at and done != total:
            return
        self._next_at = now + PROGRESS_EVERY_S
        self.send({"progress": [what, done, total]})


def _answer(request: dict[str, Any], report: _Report) -> dict[str, Any]:
    verb = _VERBS[request.pop("verb")]
    try:
        return {"done": verb(report=report, **request)}
    except Exception as error:  # noqa: BLE001 - the edge of a process: every failure is an answer
        return {"error": {"kind": type(error).__name__, "text": str(error)}}


def _machine(*, report: _Report) -> dict[str, Any]:
    """Which platform this is and what it offers; CONDA_OVERRIDE_* variables are honoured."""
    del report
    return {
        "platform": _platform(),
        "virtual_packages": [str(package.into_generic()) for package in _virtual_packages()],
    }


def _solve(*, report: _Report, lock: str, repodata: str, **spec: Sequence[str]) -> dict[str, Any]:
    """Solve a spec (`channels`, `conda`, or `explicit` URLs) and write its lock file."""
    from rattler import Gateway

    report.progress("solving", 0, None)
    gateway = Gateway(cache_dir=Path(repodata))
    if spec["explicit"]:
        records = asyncio.run(_find_archives(gateway, spec["explicit"]))
    else:
        records = asyncio.run(_find_solution(gateway, spec["channels"], spec["conda"]))
    _write_lock(Path(lock), records, spec["channels"])
    return {"packages": _describe(records)}


async def _find_solution(
    gateway: Any, channels: Sequence[str], dependencies: Sequence[str]
) -> list[Any]:
    from rattler import solve

    records: list[Any] = await solve(
        list(channels),
        [_match_spec(text) for text in dependencies],
        gateway=gateway,
        virtual_packages=_virtual_packages(),
    )
    return records


def _match_spec(text: str) -> Any:
    from rattler import MatchSpec

    try:
        return MatchSpec(text, strict=False)
    except Exception as error:
        raise ValueError(f"{text!r}: {error}") from error


async def _find_archives(gateway: Any, urls: Sequence[str]) -> list[Any]:
    """The records of exact archives, from the channels that the URLs name."""
    wanted = list(dict.fromkeys(url.partition("#")[0] for url in urls))
    channels = dict.fromkeys(url.rsplit("/", 2)[0] for url in wanted)
    specs = [_match_spec(url.rsplit("/", 1)[1].rsplit("-", 2)[0]) for url in wanted]
    rows = await gateway.query(list(channels), [_platform(), "noarch"], specs, recursive=False)
    found = {record.url: record for row in rows for record in row}
    missing = [url for url in wanted if url not in found]
    if missing:
        raise FileNotFoundError("not in their channels any more: " + ", ".join(missing))
    return [found[url] for url in wanted]


def _write_lock(path: Path, records: Sequence[Any], channels: Sequence[str]) -> None:
    from rattler import Channel, LockChannel, LockFile, LockPlatform

    platform = LockPlatform(_platform())
    lock = LockFile([platform])
    lock.set_channels("default", [LockChannel(Channel(name).base_url) for name in channels])
    for record in records:
        lock.add_conda_package("default", platform, record)
    lock.to_path(path)


def _install(*, report: _Report, lock: str, stage: str, prefix: str, cache: list[str]) -> Any:
    """Link the packages of a lock into `stage`, with paths written for `prefix`."""
    from rattler import install

    records = _read_lock(Path(lock))
    asyncio.run(
        install(
            records,
            target_prefix=stage,
            alternative_target_prefix=prefix,
            execute_link_scripts=True,  # as conda does; some data packages are empty without
            show_progress=False,
            reporter=_Progress(report.progress),
            **_package_cache(cache),
        )
    )
    return {"packages": _describe(records)}


def _read_lock(path: Path) -> list[Any]:
    from rattler import LockFile

    lock = LockFile.from_path(path)
    environment = lock.default_environment()
    if environment is None:
        raise ValueError(f"{path} holds no default environment")
    packages = environment.packages(lock.platforms()[0]) or []
    return [package.repo_data_record() for package in packages]


def _describe(records: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": record.name.normalized,
            "version": str(record.version),
            "build": str(record.build),
            "size": record.size or 0,
        }
        for record in records
    ]


def _platform() -> str:
    try:
        from rattler.platform import Subdir
    except ImportError:  # before 0.27
        from rattler.platform import Platform as Subdir
    return str(Subdir.current())


def _virtual_packages() -> list[Any]:
    from rattler import VirtualPackage, VirtualPackageOverrides

    detected: list[Any] = VirtualPackage.detect(VirtualPackageOverrides.from_env())
    return detected


def _package_cache(folders: list[str]) -> dict[str, Any]:
    """How `install` is told the cache folders, the one to write to first."""
    if len(folders) > 1:
        try:
            from rattler.package_cache import PackageCache
        except ImportError:  # before 0.27: one folder only
            return {"cache_dir": folders[0]}
        return {"package_cache": PackageCache.new_layered(folders)}
    return {"cache_dir": folders[0]}


class _Progress:
    """Rattler's installation reporter: bytes and packages fetched, then packages linked."""

    def __init__(self, report: Callable[[str, int, int | None], None]) -> None:
        self._report = report
        self._operations = 0
        self._fetched = 0
        self._linked = 0
        self._bytes: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def on_transaction_start(self, total_operations: int) -> None:
        self._operations = total_operations

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:
        with self._lock:
            self._bytes[download_idx] = (progress, total or progress)
            done, of = (sum(column) for column in zip(*self._bytes.values(), strict=True))
        self._report("downloading", done, of)

    def on_populate_cache_complete(self, cache_entry: int) -> None:
        del cache_entry
        with self._lock:
            self._fetched += 1
        self._report("fetching packages", self._fetched, self._operations)

    def on_link_complete(self, index: int) -> None:
        del index
        with self._lock:
            self._linked += 1
        self._report("linking packages", self._linked, self._operations)

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_args, **_named: 0  # the other events are of no interest


_VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "machine": _machine,
    "solve": _solve,
    "install": _install,
}


if __name__ == "__main__":
    main()
