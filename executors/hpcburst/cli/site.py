"""`hpcburst site`: what holds here, what the batch system says, whether a file is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_words import print_columns, print_json, strong
from hpcburst.policy.present import SCHEDULERS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from hpcburst.policy.check import Problem
    from hpcburst.policy.model import Queue, Site

QUEUE_HEAD = ("QUEUE", "CORES", "MEMORY", "GPUS", "WALLTIME", "PRICE", "BURST", "STATED IN")


def register(verbs: Any) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser(
        "site",
        help="say what this site allows, ask its batch system, check a config file",
        description="What a site allows is stated in the hpcburst section of Dask's config.",
    )
    own = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (_discover, _show, _check):
        add(own)


def _discover(own: Any) -> None:
    verb = own.add_parser("discover", help="ask the batch system for its queues; print the config")
    systems = [name for name in SCHEDULERS if name != "local"]
    verb.add_argument("--scheduler", choices=systems, help="which one (default: found on PATH)")
    verb.add_argument("--write", metavar="FILE", help="write it there; no file is overwritten")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.set_defaults(run=discover)


def _show(own: Any) -> None:
    verb = own.add_parser("show", help="say what holds here, and where each value is stated")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.set_defaults(run=show)


def _check(own: Any) -> None:
    verb = own.add_parser("check", help="say all that is wrong with a config file")
    verb.add_argument("file", nargs="?", metavar="FILE", help="default: all files that are read")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.set_defaults(run=check)


def discover(args: argparse.Namespace) -> int:
    """Ask the batch system for its queues, print them as a section of the config.

    Raises:
        SiteError: There is no batch system, it tells no queues, or the file exists.
    """
    from dataclasses import asdict

    from hpcburst.policy.discover import discover as ask_queues
    from hpcburst.policy.discovery.page import page

    scheduler = args.scheduler or _scheduler_here()
    found = ask_queues(scheduler)
    text = page(scheduler, found)
    if args.write:
        _write_new(Path(args.write), text)
    if args.json:
        print_json({"scheduler": scheduler, **asdict(found), "written": args.write})
    elif args.write:
        print(f"{args.write}: {len(found.queues)} queues of {scheduler}")
    else:
        print(text, end="")
    return 0


def show(args: argparse.Namespace) -> int:
    """Print the site as a run would find it, with the source of each value.

    Raises:
        SiteError: The config is wrong.
    """
    from hpcburst.policy.load import load_site
    from hpcburst.policy.shown import document

    site = load_site()
    shown = document(site)
    if args.json:
        print_json(shown)
    else:
        _say_site(site, shown)
    return 0


def check(args: argparse.Namespace) -> int:
    """Print all that is wrong with a file, or with every file that is read; 1 if anything is.

    Raises:
        SiteError: The file cannot be read.
    """
    from dataclasses import asdict

    from hpcburst.policy.check import problems

    paths = [Path(args.file)] if args.file else _files_read()
    wrong = [(path, problem) for path in paths for problem in problems(_text_of(path))]
    if args.json:
        print_json([{"file": str(path), **asdict(problem)} for path, problem in wrong])
        return int(bool(wrong))
    for path, problem in wrong:
        print(_problem_line(path, problem))
    for path in paths:
        if path not in {bad for bad, _ in wrong}:
            print(f"{path}: nothing is wrong")
    if not paths:
        print("no file of Dask's config has an hpcburst section: the defaults hold")
    return int(bool(wrong))


def _scheduler_here() -> str:
    from hpcburst.errors import SiteError
    from hpcburst.policy.discover import scheduler_here
    from hpcburst.policy.present import LOCAL

    name = scheduler_here()
    if name == LOCAL:
        raise SiteError(
            "A batch system was looked for",
            "none has its commands on PATH",
            "load its module, or say --scheduler; without one, jobs run on this machine",
        )
    return name


def _write_new(path: Path, text: str) -> None:
    from hpcburst.errors import SiteError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise SiteError(
            f"{path} was to be written", "it exists, and nothing is overwritten", "name another"
        ) from None
    except OSError as error:
        raise SiteError(f"{path} was to be written", f"it cannot be: {error.strerror}") from error


def _files_read() -> list[Path]:
    from hpcburst.policy.sources import layers

    sources = [layer.source for layer in layers()]
    return [Path(source) for source in sources if "/" in source]


def _text_of(path: Path) -> str:
    from hpcburst.errors import SiteError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path} was to be checked", f"it cannot be read: {error}") from error


def _problem_line(path: Path, problem: Problem) -> str:
    place = f"{path}:{problem.line}" if problem.line else str(path)
    named = problem.key.replace("_", "-") in problem.text
    key = f"{problem.key}: " if problem.key and not named else ""
    return f"{place}: {key}{problem.text}"


def _say_site(site: Site, shown: Mapping[str, Any]) -> None:
    if site.message:
        print(strong(site.message), end="\n\n")
    rows = [(row["key"], _as_text(row["value"]), row["source"]) for row in shown["settings"]]
    print_columns(rows, head=("KEY", "VALUE", "STATED IN"))
    print()
    print_columns(list(_queue_rows(site.queues, shown)), head=QUEUE_HEAD, right=(1, 2, 3, 4, 5))
    if site.forbidden:
        print(f"\nnever used: {', '.join(site.forbidden)}")


def _queue_rows(queues: Sequence[Queue], shown: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    from hpcburst.policy.discovery.page import memory_text, walltime_text

    for queue, row in zip(queues, shown["queues"], strict=True):
        yield (
            queue.name,
            queue.max_cores,
            memory_text(queue.max_memory_mb),
            queue.max_gpus,
            walltime_text(queue.max_walltime_s),
            f"{queue.price:g}",
            "yes" if queue.burst else "",
            row["source"],
        )


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
