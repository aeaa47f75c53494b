"""`hpcburst`: find the verb, run it, turn an error into one clear message and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from hpcburst._version import __version__
from hpcburst.errors import BurstError

INTERRUPTED = 130
FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help()
        return 2
    try:
        return int(args.run(args) or 0)
    except BurstError as error:
        print(f"hpcburst: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("hpcburst: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hpcburst",
        description="Prefect and Snakemake tasks on short batch jobs, each in its own conda env.",
    )
    parser.add_argument("--version", action="version", version=f"hpcburst {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for register in (*_own_verbs(), *_plugged_in_verbs()):
        register(verbs)
    return parser


def _own_verbs() -> list[Any]:
    from hpcburst.cli import doctor, env, jobs, plan, site

    return [doctor.register, site.register, env.register, jobs.register, plan.register]


def _plugged_in_verbs() -> list[Any]:
    """Verbs of installed extras; one whose packages are missing must not break the others."""
    found = []
    for entry in entry_points(group="hpcburst.commands"):
        try:
            found.append(entry.load())
        except (ImportError, AttributeError) as error:
            print(f"hpcburst: the verb {entry.name!r} is left out: {error}", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())
