"""The child process in which rattler works; it, `records` and `listed` alone import rattler.

Started as `python -P -m hpcburst.envs.child`. Requests are lines of JSON on stdin,
`{"verb": ..., ...}`; answers are lines of JSON on stdout: any number of `{"progress": [...]}`, then
`{"done": {...}}` or `{"error": {"kind": ..., "text": ...}}`. When stdin ends the process ends, in
the middle of a step if need be: a builder that is killed takes it along.

To start is a third of the time of an env whose packages are extracted already: each verb imports
what it alone needs.

py-rattler 0.26 to 0.28 differ in names; `_platform` and `_package_cache` know both.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.child.cache import drop_damaged, is_extracted
from hpcburst.envs.child.progress import LinkProgress, Report
from hpcburst.envs.child.records import (
    describe,
    raise_if_missing,
    read_lock,
    redirect,
    show_origins,
    write_lock,
)
from hpcburst.envs.child.refusals import LinkScriptFailed, Offline

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from hpcburst.envs.child.fetching import Fetch


DELETE_S = 10.0
"""What a failed installation leaves must be gone by then, or it is an error."""


def main() -> None:
    """Answer requests until stdin ends."""
    gc.disable()  # most of the work is importing, which makes no garbage and is slowed by looking
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a package's script prints must not get between the answers
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    report = Report(answers)
    while True:
        report.send(_answer(json.loads(requests.get()), report))


def _read_requests(requests: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    # Not sys.exit: the main thread may be deep in rattler, and rattler's own threads outlive it.
    os._exit(0)


def _answer(request: dict[str, Any], report: Report) -> dict[str, Any]:
    verb = _VERBS[request.pop("verb")]
    try:
        return {"done": verb(report=report, **request)}
    except Exception as error:  # noqa: BLE001 - the edge of a process: every failure is an answer
        return {"error": {"kind": type(error).__name__, "text": str(error)}}


def _machine(*, report: Report) -> dict[str, Any]:
    """Which platform this is and what it offers; CONDA_OVERRIDE_* variables are honoured."""
    del report
    return {
        "platform": _platform(),
        "virtual_packages": [str(package.into_generic()) for package in _virtual_packages()],
    }


def _solve(
    *,
    report: Report,
    lock: str,
    repodata: str,
    channels: Sequence[str],
    conda: Sequence[str],
    offline: bool = False,
) -> dict[str, Any]:
    """Choose the packages of a spec and write its lock file."""
    import asyncio

    from rattler import Gateway
    from rattler.networking import Client
    from rattler.repo_data.gateway import SourceConfig

    report.progress("solving", 0, None)
    kept = SourceConfig(cache_action="force-cache-only" if offline else "cache-or-fetch")
    client = Client.default_client()  # with credentials; a gateway's own one has none
    gateway = Gateway(cache_dir=Path(repodata), default_config=kept, client=client)
    try:
        records = asyncio.run(_find_solution(gateway, channels, conda))
    except Exception as error:
        if offline and type(error).__name__ == "GatewayError":
            raise Offline(f"{error}") from error
        raise
    write_lock(Path(lock), records, channels, _platform())
    return {"packages": [describe(record) for record in records]}


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


def _lock_archives(
    *,
    report: Report,
    lock: str,
    archives: Sequence[dict[str, Any]],
    folder: str,
    offline: bool = False,
) -> dict[str, Any]:
    """Write a lock for exact archives; those that the list says too little of are looked into."""
    from hpcburst.envs.child.listed import (
        Listed,
        check_records,
        record_from_file,
        record_from_list,
        refuse_others,
        wanted,
    )

    listed = [Listed(**row) for row in archives]
    platform = _platform()
    others = [a for a in listed if a.subdir not in {"", "noarch", platform}]
    refuse_others([(a.wanted.file_name, a.subdir) for a in others], platform)
    unclear = [archive.wanted for archive in listed if not archive.says_enough]
    fetcher = _fetcher(report, folder, offline=offline)
    files = fetcher.run(unclear)
    records = [
        record_from_file(a, files[a.url]) if a.url in files else record_from_list(a) for a in listed
    ]
    check_records(records, platform)
    fetcher.file_anew(files, [wanted(record) for record in records])
    write_lock(Path(lock), records, list(dict.fromkeys(a.channel for a in listed)), platform)
    return {"packages": [describe(record) for record in records]}


def _fetch(
    *, report: Report, lock: str, folder: str, cache: Sequence[str] = (), offline: bool = False
) -> dict[str, Any]:
    """Have the archives of a lock as files, except those of packages extracted in `cache`."""
    records = [record for record in read_lock(Path(lock)) if not is_extracted(record, cache)]
    if not records:
        return {"files": {}}
    from hpcburst.envs.child.listed import wanted

    files = _fetcher(report, folder, offline=offline).run([wanted(record) for record in records])
    return {"files": {url: str(path) for url, path in files.items()}}


def _fetcher(report: Report, folder: str, *, offline: bool) -> Fetch:
    from hpcburst.envs.child.fetching import Fetch

    return Fetch(Path(folder), partial(report.progress, "downloading"), _download, offline=offline)


def _download(url: str, path: Path) -> None:
    """Rattler's own way, which also knows keyrings, OAuth, `oci://` and `s3://`."""
    import asyncio

    from rattler.networking import Client
    from rattler.package_streaming import download_to_path

    asyncio.run(download_to_path(Client.default_client(), url, path))


def _install(  # noqa: PLR0913 - one for each field of the request
    *,
    report: Report,
    lock: str,
    stage: str,
    prefix: str,
    cache: list[str],
    archives: Mapping[str, str] | None = None,
    offline: bool = False,
    scripts: bool = True,
) -> dict[str, Any]:
    """Link the packages of a lock into `stage`, with paths written for `prefix`.

    They come from the extracted ones in `cache`, else from `archives` (URL to file), else from
    their URLs. `conda-meta` names the URL in each case. Without `scripts` the packages' own
    post-link scripts are not run.
    """
    records = read_lock(Path(lock))
    origins = redirect(records, archives or {}, offline=offline)
    raise_if_missing(records, cache)
    there = set(Path(stage).glob("*"))
    link = partial(_link, records, stage, prefix, cache, report, scripts=scripts)
    try:
        link()
    except Exception:
        if not drop_damaged(records, cache):
            raise
        raise_if_missing(records, cache)
        _delete(set(Path(stage).glob("*")) - there)
        link()
    show_origins(Path(stage), records, origins)
    return {"packages": [describe(record) for record in records]}


def _delete(paths: Collection[Path]) -> None:
    import shutil

    for path in paths:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        until = time.monotonic() + DELETE_S
        while path.exists():  # threads of rattler's may still be writing what will not be used
            shutil.rmtree(path, ignore_errors=time.monotonic() < until)


def _link(
    records: list[Any], stage: str, prefix: str, cache: list[str], report: Report, *, scripts: bool
) -> None:
    import asyncio

    from rattler import install
    from rattler.networking import Client

    progress = LinkProgress(report.progress)
    asyncio.run(
        install(
            records,
            target_prefix=stage,
            alternative_target_prefix=prefix,
            execute_link_scripts=scripts,  # as conda does; some data packages are empty without
            show_progress=False,
            client=Client.default_client(),
            reporter=progress,
            **_package_cache(cache),
        )
    )
    if progress.failed_scripts:
        # Rattler goes on; conda does not, and the package may be of no use.
        raise LinkScriptFailed(f"the script failed of {', '.join(progress.failed_scripts)}")


def _packages(*, report: Report, lock: str) -> dict[str, Any]:
    """What a lock holds."""
    del report
    return {"packages": [describe(record) for record in read_lock(Path(lock))]}


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


_VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "machine": _machine,
    "solve": _solve,
    "packages": _packages,
    "lock_archives": _lock_archives,
    "fetch": _fetch,
    "install": _install,
}


if __name__ == "__main__":
    main()
