"""The command line that all private clusters have in common."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from support.clusters.cluster import PrivateCluster, Size
from support.clusters.errors import ClusterError


def command(kind: type[PrivateCluster], about: str, argv: Sequence[str]) -> int:
    """Run one of up, down, env, run, hold; the exit status.

    Args:
        kind: The batch system.
        about: What help says.
        argv: The words after the program's name.
    """
    asked = _parser(kind.kind, about).parse_args(argv)
    cluster = kind(asked.folder)
    try:
        return _do(asked, cluster)
    except ClusterError as error:
        print(f"{kind.script.name}: {error}", file=sys.stderr)
        return 1


def _do(asked: argparse.Namespace, cluster: PrivateCluster) -> int:
    if asked.verb == "up":
        _up(asked, cluster)
    elif asked.verb == "down":
        cluster.down()
    elif asked.verb == "env":
        _print_environ(cluster)
    elif asked.verb == "run":
        _become(cluster, asked.command)
    else:
        _hold(asked, cluster)
    return 0


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"{name}.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    said = {
        "up": "start it; when it runs, leave it as it is",
        "down": "end it, and all that its jobs left behind",
        "env": "print what a shell must evaluate to use it",
        "run": "run a command as a user of it",
        "hold": "start it, and end it when standard input ends",
    }
    for verb, text in said.items():
        place = verbs.add_parser(verb, help=text, description=text)
        folder = Path(tempfile.gettempdir()) / f"hpcburst-{name}-{os.geteuid()}"
        place.add_argument("--folder", type=Path, default=folder, help="default: %(default)s")
        if verb in {"up", "hold"}:
            _add_size(place)
        if verb == "run":
            place.add_argument("command", nargs="+", metavar="-- COMMAND", help="and its words")
    return parser


def _add_size(place: argparse.ArgumentParser) -> None:
    size = Size()
    place.add_argument("--nodes", type=int, default=size.nodes)
    place.add_argument("--cores", type=int, default=size.cores, help="of each node")
    place.add_argument("--memory", type=int, default=size.memory_mb, help="of each node, in MB")
    place.add_argument("--install", action="store_true", help="what is missing (root, apt-get)")
    place.add_argument(
        "--line",
        action="append",
        default=[],
        metavar="TEXT",
        help="a line for the scheduler's configuration; repeatable, wins over ours",
    )


def _up(asked: argparse.Namespace, cluster: PrivateCluster) -> None:
    size = Size(asked.nodes, asked.cores, asked.memory)
    started = cluster.up(size, asked.line, install=asked.install)
    print(
        f"{cluster.kind}: {'started' if started else 'already running'} in {cluster.folder}",
        file=sys.stderr,
    )


def _print_environ(cluster: PrivateCluster) -> None:
    for name, value in cluster.environ.items():
        if os.environ.get(name) != value:
            print(f"export {name}={shlex.quote(value)}")


def _become(cluster: PrivateCluster, words: Sequence[str]) -> NoReturn:
    argv = [*cluster.inside, *words]
    try:
        os.execvpe(argv[0], argv, cluster.environ)  # noqa: S606 - its starter knows our pid
    except OSError as error:
        raise ClusterError(f"cannot run {argv[0]}: {error.strerror}") from error


def _hold(asked: argparse.Namespace, cluster: PrivateCluster) -> None:
    """Keep it up for whoever holds our standard input open: it ends however they end."""
    signal.signal(signal.SIGTERM, _stop_holding)
    try:
        _up(asked, cluster)
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        cluster.down()


def _stop_holding(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
