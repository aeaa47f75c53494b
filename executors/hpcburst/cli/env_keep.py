"""`hpcburst env gc` and `remove`: taking envs away."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_find import find_by_key, open_store
from hpcburst.cli.env_progress import shown_progress
from hpcburst.cli.env_words import (
    as_text,
    count_text,
    print_columns,
    print_json,
    size_text,
    span_text,
)
from hpcburst.errors import RequestError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from hpcburst.envs.keeping.retention import Verdict
    from hpcburst.envs.keeping.upkeep import Collected

HEAD = ("WHAT", "NAME", "AGE", "SIZE", "FILES", "WHY")


def collect(args: argparse.Namespace) -> int:
    """Take away what nobody has used for long.

    Raises:
        EnvError: Envs would be taken from jobs that may be running.
        RequestError: The age cannot be read.
    """
    from hpcburst.envs.keeping.retention import DAY_S, Rule
    from hpcburst.envs.keeping.upkeep import collect as take_away
    from hpcburst.policy.load import load_site

    site = load_site()
    longest_s = max([DAY_S, *(queue.max_walltime_s for queue in site.queues)])
    with shown_progress() as board:
        progress = board("")
        store = open_store(progress, site)
        keep = frozenset(find_by_key(store, key).key for key in args.keep)
        rule = Rule(time.time(), _age_s(args.older_than), keep, locks=args.locks)
        least_s = 0.0 if args.force else longest_s
        found = take_away(
            store.root, rule, dry_run=args.dry_run, least_s=least_s, progress=progress
        )
    if args.json:
        print_json(_collected_document(found))
    else:
        _say_collected(found)
    return int(any(row.failed for row in found.verdicts))


def remove(args: argparse.Namespace) -> int:
    """Take envs away; their locks stay unless asked for.

    Raises:
        EnvError: There is no env with one of these keys; none is removed then.
    """
    store = open_store()
    records = [find_by_key(store, key) for key in args.keys]
    for record in dict.fromkeys(record.key for record in records):
        found = find_by_key(store, record)
        if not args.dry_run:
            found = store.remove(record, lock_too=args.lock)
        if args.json:
            row = {name: value for name, value in asdict(found).items() if name != "activation"}
            print_json(row, lines=True)
        else:
            print(f"{'would remove' if args.dry_run else 'removed'} {found.prefix}")
    return 0


def _collected_document(found: Collected) -> dict[str, Any]:
    return {
        "dry_run": found.dry_run,
        "freed_bytes": found.freed_bytes,
        "freed_files": found.freed_files,
        "gone": [asdict(row) for row in found.gone],
        "kept": [asdict(row) for row in found.verdicts if not row.goes],
        "failed": [asdict(row) for row in found.verdicts if row.failed],
    }


def _say_collected(found: Collected) -> None:
    if found.gone:
        print_columns([_gone_cells(row) for row in found.gone], head=HEAD, right=(2, 3, 4))
    for row in found.verdicts:
        if row.failed:
            print(f"{row.kind} {as_text(row.name)} stays: {row.failed}")
    would = "would free" if found.dry_run else "freed"
    files = count_text(found.freed_files, "file")
    print(f"{would} {size_text(found.freed_bytes)} and {files}; {_staying(found.verdicts)} stay")


def _gone_cells(row: Verdict) -> Sequence[object]:
    size = size_text(row.freed_bytes)
    return (row.kind, as_text(row.name), span_text(row.age_s), size, row.freed_files, row.why)


def _staying(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(row.kind for row in verdicts if not row.goes or row.failed)
    kinds = ("env", "pack", "package", "lock")
    return ", ".join(count_text(counts[kind], kind) for kind in kinds if counts[kind]) or "none"


def _age_s(text: str) -> float:
    from hpcburst.amounts import read_walltime_s

    unitless = text.strip().replace(".", "").isdigit()
    try:
        if text.strip() in ("0", "0d"):
            return 0.0
        if not unitless:
            return read_walltime_s(text)
    except RequestError:
        pass
    raise RequestError(
        f"Envs not used for {text!r} were to be taken away",
        "that is not a length of time",
        "write for instance 30d, 12h or 1d12h",
    )
