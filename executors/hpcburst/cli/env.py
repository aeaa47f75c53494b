"""`hpcburst env`: build envs ahead of a run, see which there are, take them away."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from hpcburst.envs.build import EnvRecord
    from hpcburst.envs.rattler_process import Progress
    from hpcburst.envs.store import EnvStore, Preview

SHOW_AFTER_S = 1.0
"""A step that ends sooner needs no words."""

SAY_EVERY_S = 5.0
"""Without a terminal, one line of progress in so many seconds: it ends up in a log."""


def register(verbs: Any) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser("env", help="build, list and remove conda envs")
    own = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    creating = own.add_parser("create", help="build the env of an environment file")
    creating.add_argument("file", help="an environment.yml")
    creating.set_defaults(run=create)
    listing = own.add_parser("list", help="list the envs that are built")
    listing.set_defaults(run=list_envs)
    removing = own.add_parser("remove", help="take an env away")
    removing.add_argument("key", help="its key, as `hpcburst env list` shows it")
    removing.add_argument(
        "--lock", action="store_true", help="its lock as well: the next build chooses packages anew"
    )
    removing.set_defaults(run=remove)
    for verb in (creating, removing):
        verb.add_argument("--dry-run", action="store_true", help="say what would be done")
    for verb in (creating, listing, removing):
        verb.add_argument("--json", action="store_true", help="print JSON")


def create(args: argparse.Namespace) -> int:
    """Build the env of a file, unless it is there; print its key and prefix.

    Raises:
        hpcburst.errors.EnvError: It cannot be built.
    """
    with shown_progress() as progress:
        store = open_store(progress)
        if args.dry_run:
            return _print_preview(store.preview(args.file), as_json=args.json)
        env = store.ensure(args.file)
    found = {"key": env.key, "prefix": env.prefix}
    print(json.dumps(found) if args.json else f"{env.key}  {env.prefix}")
    return 0


def list_envs(args: argparse.Namespace) -> int:
    """Print the envs of the store, the oldest first."""
    records = open_store().list()
    if args.json:
        print(json.dumps([_as_row(record) for record in records], indent=1))
        return 0
    for record in records:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.made))
        print(f"{record.key}  {made}  {record.packages:4d} packages  {record.spec}")
    if not records:
        print("no envs yet: hpcburst env create FILE")
    return 0


def remove(args: argparse.Namespace) -> int:
    """Take an env away.

    Raises:
        hpcburst.errors.EnvError: There is no env with this key.
    """
    store = open_store()
    record = store.find(args.key)
    if args.dry_run and record is not None:
        what = f"would remove {record.prefix}"
    else:
        record = store.remove(args.key, lock_too=args.lock)
        what = f"removed {record.prefix}"
    print(json.dumps(_as_row(record)) if args.json else what)
    return 0


def open_store(progress: Progress | None = None) -> EnvStore:
    """The site's store of envs."""
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.load import load_site

    return EnvStore.of_site(load_site(), progress)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Progress on stderr while something is built: a bar on a terminal, lines without one."""
    with _bar() if sys.stderr.isatty() else _lines() as progress:
        yield progress


@contextmanager
def _lines() -> Iterator[Progress]:
    """Say now and then what is being done, also while a step itself reports nothing."""
    latest = [""]
    ended = threading.Event()

    def tell(what: str, done: int, total: int | None) -> None:
        latest[0] = f"{what} {done}/{total}" if total else what

    def say() -> None:
        pause = SHOW_AFTER_S
        while not ended.wait(pause):
            pause = SAY_EVERY_S
            print(latest[0] or "looking", file=sys.stderr, flush=True)

    speaker = threading.Thread(target=say, name="env-progress", daemon=True)
    speaker.start()
    try:
        yield tell
    finally:
        ended.set()
        speaker.join()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("looking", total=None)

        def tell(what: str, done: int, total: int | None) -> None:
            bar.update(line, description=what, completed=done, total=total)

        yield tell


def _print_preview(preview: Preview, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(preview), indent=1))
        return 0
    if preview.built:
        print(f"{preview.key}  is there: {preview.prefix}")
        return 0
    size_mb = sum(package.size for package in preview.packages) / 1e6
    print(f"{preview.key}  would be built in {preview.prefix}")
    print(f"{len(preview.packages)} packages, archives of {size_mb:.1f} MB:")
    for package in sorted(preview.packages, key=lambda package: package.name):
        print(f"  {package.name} {package.version} {package.build}")
    return 0


def _as_row(record: EnvRecord) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name != "activation"}
