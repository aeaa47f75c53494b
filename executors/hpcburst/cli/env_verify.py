"""`hpcburst env verify`: whether envs are what was installed, and building damaged ones again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_find import find_env, open_store
from hpcburst.cli.env_progress import shown_progress
from hpcburst.cli.env_words import (
    alarming,
    as_text,
    count_text,
    print_json,
    size_text,
)
from hpcburst.errors import EnvError, RequestError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from hpcburst.envs.child.process import Progress
    from hpcburst.envs.keeping.verify import Report
    from hpcburst.envs.store import EnvStore

FAULTS_SHOWN = 20
"""Faults of one env that are printed for people; JSON has them all."""


def verify(args: argparse.Namespace) -> int:
    """Compare envs with the records of their packages; exit status 1 if one is damaged.

    Raises:
        EnvError: There is no such env, or it cannot be built again.
        RequestError: No env was named.
    """
    if not args.envs and not args.all:
        raise RequestError(
            "Envs were to be verified", "none was named", "name keys or specs, or say --all"
        )
    with shown_progress() as board:
        progress = board("")
        store = open_store(progress)
        reports = _checked(store, _chosen(store, args), progress, quick=args.quick)
        shared = _sharing(store, [r for r in reports if r.damaged_entries])
        repaired: dict[str, str] = {}
        if args.repair and not args.dry_run:
            repaired = _repaired(store, reports, progress)
    for report in reports:
        row = _report_row(report, shared, repaired)
        if args.json:
            print_json(row, lines=True)
        else:
            _say_report(row, report, would_repair=args.repair and args.dry_run)
    return int(any(not report.good and report.prefix not in repaired for report in reports))


def _chosen(store: EnvStore, args: argparse.Namespace) -> list[Path]:
    """The prefixes of envs, and the packs of those that nodes link themselves."""
    if args.all:
        return [Path(record.prefix) for record in store.list()]
    found = []
    for text in args.envs:
        record = find_env(store, text)
        if not Path(record.prefix).exists():
            raise EnvError(
                f"The env {text!r} was to be verified",
                f"{record.key} is not built",
                f"run `hpcburst env create {text}` first",
            )
        found.append(Path(record.prefix))
    return list(dict.fromkeys(found))


def _checked(
    store: EnvStore, places: Iterable[Path], progress: Progress, *, quick: bool
) -> list[Report]:
    """Reports on envs, and on the others that were made from what was found damaged."""
    waiting = list(places)
    reports: list[Report] = []
    for place in waiting:  # it grows
        reports.append(_check(place, progress, quick=quick))
        others = _sharing(store, reports[-1:]).values()
        waiting += [Path(p) for paths in others for p in paths if Path(p) not in waiting]
    return reports


def _check(place: Path, progress: Progress, *, quick: bool = False) -> Report:
    from hpcburst.envs.keeping.verify import verify, verify_pack

    check = verify if place.is_dir() else verify_pack
    return check(place, quick=quick, progress=progress)


def _sharing(store: EnvStore, reports: Sequence[Report]) -> dict[str, list[str]]:
    """For each damaged part, the prefixes and packs of all envs that are made from it."""
    from hpcburst.envs.keeping.upkeep import find_things

    entries = dict.fromkeys(entry for report in reports for entry in report.damaged_entries)
    if not entries:
        return {}
    envs = [thing for thing in find_things(store.root) if thing.kind in ("env", "pack")]
    return {
        entry: sorted(env.paths[-1] for env in envs if Path(entry).name in env.needs)
        for entry in entries
    }


def _repaired(store: EnvStore, reports: Sequence[Report], progress: Progress) -> dict[str, str]:
    """Build the damaged envs again, from their locks and without the damaged parts.

    Raises:
        EnvError: One of them is not ours, or is damaged again at once.
    """
    from hpcburst.envs.keeping.upkeep import drop_entry

    damaged = [report for report in reports if not report.good]
    foreign = [report.prefix for report in damaged if not _is_ours(store, report)]
    if foreign:
        raise EnvError(
            f"The env {foreign[0]} was to be repaired",
            "it was not built in this store",
            "build it again with the tool that made it",
        )
    entries = dict.fromkeys(entry for report in damaged for entry in report.damaged_entries)
    for entry in map(Path, entries):
        _check_entry(store, entry)
        drop_entry(entry)
    return {report.prefix: _rebuilt(store, report, progress) for report in damaged}


def _rebuilt(store: EnvStore, report: Report, progress: Progress) -> str:
    env = store.rebuild(report.key)
    again = _check(Path(env.pack or env.prefix), progress)
    if not again.good:
        raise EnvError(
            f"The env {report.key} was built again",
            f"{again.faults[0].path} is {again.faults[0].kind} all the same",
            "a script of one of its packages may write it: such an env is whole",
        )
    return again.prefix


def _is_ours(store: EnvStore, report: Report) -> bool:
    record = store.find(report.key) if report.key else None
    return record is not None and record.prefix == report.prefix


def _check_entry(store: EnvStore, entry: Path) -> None:
    own = {store.folders.packages.resolve(), store.folders.depot.resolve() / "bundles"}
    if entry.resolve().parent not in own and not entry.parent.name.startswith("hpcburst-"):
        raise EnvError(
            f"The package {entry} was to be taken out of its cache",
            "the cache is not one of ours",
            "remove that folder yourself, then run it again",
        )


def _report_row(
    report: Report, shared: dict[str, list[str]], repaired: dict[str, str]
) -> dict[str, Any]:
    others = {path for entry in report.damaged_entries for path in shared.get(entry, ())}
    return {
        **asdict(report),
        "good": report.good,
        "damaged_entries": report.damaged_entries,
        "shared_with": sorted(others - {report.prefix}),
        "repaired": report.prefix in repaired,
    }


def _say_report(row: dict[str, Any], report: Report, *, would_repair: bool) -> None:
    name = report.key or report.prefix
    looked = "looked at" if report.quick else f"{size_text(report.read_bytes)} read"
    files = f"{count_text(report.files, 'file')}, {looked} in {report.seconds:.1f} s"
    if report.good:
        print(f"{name}  good  {files}")
        return
    print(f"{name}  {alarming('damaged')}  {count_text(len(report.faults), 'fault')} in {files}")
    shown = report.faults[:FAULTS_SHOWN]
    for fault in shown:
        print(f"  {fault.kind}: {as_text(fault.path)}")
        print(f"    {f'{fault.package}: ' if fault.package else ''}{as_text(fault.found)}")
    if len(report.faults) > FAULTS_SHOWN:
        print(f"  ... and {len(report.faults) - FAULTS_SHOWN} more; --json has them all")
    for entry in report.damaged_entries:
        print(f"  damaged where envs are linked from: {entry}")
    for prefix in row["shared_with"]:
        print(f"  linked from there as well: {prefix}")
    if row["repaired"]:
        print("  built again from its lock; it is good now")
    elif would_repair:
        print("  would be built again from its lock")
    else:
        print(f"  -> hpcburst env verify {name} --repair")
