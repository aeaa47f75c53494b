"""`hpcburst checkpoint`: what waits for a person, and the ways to answer it.

Registered with every `hpcburst` command, so it imports nothing that costs time or may be missing.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from hpcburst.errors import SiteError

VERBS = "hpcburst_recipes.checkpoints.verbs"


def register(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "checkpoint",
        help="list what waits for a person, look at it, and answer",
        description="Checkpoints of flows: what waits for a person, the longest first.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add(actions, "list", "list checkpoints, the one that waits longest first", "run_list")
    _add(
        actions, "show", "say what is asked, what is shown, and what was answered", "run_show", "ID"
    )
    approve = _add(actions, "approve", "say yes", "run_approve", "ID")
    approve.add_argument("values", nargs="*", metavar="FIELD=VALUE", help="what is not the default")
    approve.add_argument("--note", default="", help="why, for the record")
    reject = _add(actions, "reject", "say no", "run_reject", "ID")
    reject.add_argument("why", nargs="*", help="why, for the record")
    _add_open(_add(actions, "open", "open its notebook on a compute node", "run_open", "ID"))
    extend = _add(actions, "extend", "give it, or its session, more time", "run_extend", "ID")
    extend.add_argument("--by", default="1h", help="how much (default 1h)")
    _add(actions, "close", "end its session; the checkpoint waits on", "run_close", "ID")


def _add(actions: Any, name: str, words: str, run: str, *arguments: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=words, description=words)
    for argument in arguments:
        parser.add_argument(
            argument.lower(), metavar=argument, help="its id, how that begins, or its name"
        )
    if name == "list":
        parser.add_argument("--all", action="store_true", help="those that are decided too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=lambda args: _run(run, args))
    return parser


def _add_open(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--walltime", help="of its session; default: what the flow said")
    parser.add_argument("--no-browser", action="store_true", help="print the address alone")
    parser.add_argument(
        "--print", action="store_true", help="print the command for a laptop, and make no tunnel"
    )


def _run(name: str, args: argparse.Namespace) -> int:
    try:
        verbs = import_module(VERBS)
    except ImportError as error:
        raise SiteError(
            "The checkpoints were asked for",
            f"a package is missing: {error.name}",
            "pip install 'hpcburst[jupyter]'",
        ) from error
    return int(getattr(verbs, name)(args))
