"""`hpcburst doctor`: what is found on this machine, and whether a burst can run here."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import check_private
from hpcburst.errors import BurstError
from hpcburst.policy.discover import batch_systems, this_machine
from hpcburst.policy.load import load_site
from hpcburst.policy.model import Site

ROOM_NEEDED_MB = 500
"""Less free space than this does not hold one env with NumPy and a plot library."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the doctor looked at.

    Attributes:
        about: What it is.
        found: What was found, in words.
        verdict: "ok", "note" (good to know) or "bad" (a burst cannot run).
        todo: What to do about it.
    """

    about: str
    found: str
    verdict: str = "ok"
    todo: str = ""


def register(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("doctor", help="say what is found here, and whether a burst can run")
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; exit status 0 if a burst can run here."""
    findings = list(examine())
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(_line(finding))
    return int(any(finding.verdict == "bad" for finding in findings))


def examine() -> Iterator[Finding]:
    """Look at everything a burst needs. Writes nothing that stays."""
    yield Finding("Python", f"{sys.version.split()[0]} at {sys.executable}")
    yield _config()
    try:
        site = load_site()
    except BurstError:
        return
    yield from _scheduler(site)
    yield from _roots(site)
    yield from _envs(site)
    yield from _engines()


def _config() -> Finding:
    try:
        site = load_site()
    except BurstError as error:
        return Finding("config", str(error), "bad")
    return Finding(
        "config", f"scheduler {site.scheduler}, at most {site.limits.max_jobs} jobs at once"
    )


def _scheduler(site: Site) -> Iterator[Finding]:
    systems = batch_systems()
    machine = this_machine()
    yield Finding(
        "this machine",
        f"{machine.cores} cores and {machine.memory_mb} MB for jobs of the local queue",
    )
    words = ", ".join(f"{name} ({path})" for name, path in systems.items()) or "none on PATH"
    unused = bool(systems) and site.scheduler == "local"
    note = "not used: `hpcburst.scheduler` is local; name it there, or say auto" if unused else ""
    yield Finding("batch system", words, "note" if unused else "ok", note)
    for queue in site.queues:
        yield Finding(
            f"queue {queue.name}",
            f"jobs of up to {queue.max_cores} cores, {queue.max_memory_mb} MB, "
            f"{queue.max_gpus} GPUs, {queue.max_walltime_s / 3600:g} h",
        )


def _roots(site: Site) -> Iterator[Finding]:
    yield _shared_root(site.paths.shared_root)
    yield _root("node root", site.paths.node_root, "hpcburst.node-root")


def _shared_root(path: Path) -> Finding:
    try:
        if path.exists():
            check_private(path.resolve())  # a link is as good as what it leads to
    except (BurstError, OSError) as error:
        return Finding("shared root", str(error), "bad")
    return _root("shared root", path, "hpcburst.shared-root")


def _root(about: str, path: Path, key: str) -> Finding:
    place = next(p for p in (path, *path.parents) if p.exists())
    probe = place / f".hpcburst-doctor-{id(path):x}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        return Finding(about, f"{path}: {error.strerror}", "bad", f"set {key} to a folder of yours")
    free_mb = int(shutil.disk_usage(place).free / 1e6)
    if free_mb < ROOM_NEEDED_MB:
        return Finding(about, f"{path}: {free_mb} MB free", "bad", f"make room, or set {key}")
    return Finding(about, f"{path}: can be written, {free_mb} MB free")


def _envs(site: Site) -> Iterator[Finding]:
    yield _installed("py-rattler", "bad", "pip install py-rattler")
    conda = shutil.which("conda")
    words = conda or "none; a stand-in answers for Snakemake's --sdm conda"
    yield Finding("conda command", words)
    for channel in site.envs.channels:
        yield _channel(channel, site.envs.mirror.get(channel, channel))


def _channel(name: str, url: str) -> Finding:
    from hpcburst.envs.building.channels import channel_answers

    if channel_answers(url):
        return Finding(f"channel {name}", f"{url} answers")
    return Finding(
        f"channel {name}",
        f"{url} does not answer",
        "note",
        "new envs cannot be solved from it; set hpcburst.envs.mirror to a channel that does",
    )


def _engines() -> Iterator[Finding]:
    yield _installed("prefect", "note", "pip install 'hpcburst[prefect]'", _load_prefect)
    yield _installed("snakemake", "note", "pip install 'hpcburst[snakemake]'", _find_executor)
    yield _installed("dask-jobqueue", "bad", "pip install dask-jobqueue")
    yield _installed("distributed", "bad", "pip install distributed")


def _installed(
    package: str, missing: str, todo: str, check: Callable[[], str] | None = None
) -> Finding:
    try:
        found = version(package)
    except PackageNotFoundError:
        return Finding(package, "not installed", missing, todo)
    trouble = check() if check else ""
    if trouble:
        return Finding(package, f"{found}: {trouble}", "bad", todo)
    return Finding(package, found)


def _find_executor() -> str:
    import pkgutil

    names = {module.name for module in pkgutil.iter_modules()}
    known = "snakemake_executor_plugin_hpcburst" in names
    return "" if known else "it does not see the executor 'hpcburst'"


def _load_prefect() -> str:
    import importlib.util

    return (
        "" if importlib.util.find_spec("prefect_hpcburst") else "the task runner is not installed"
    )


def _line(finding: Finding) -> str:
    mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}[finding.verdict]
    todo = f" -> {finding.todo}" if finding.todo else ""
    return f"{mark} {finding.about}: {finding.found}{todo}"
