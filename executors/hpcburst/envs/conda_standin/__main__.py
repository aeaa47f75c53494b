"""What the stand-in `conda` needs Python for: make an env, or say what is in one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.conda_standin import make, show
from hpcburst.errors import BurstError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one conda command; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except BurstError as error:
        sys.stderr.write(f"conda (hpcburst): {error}\n")
        return 1
    return 0


def create(args: argparse.Namespace) -> None:
    """Make an env at a prefix: from a file, or from the archives named."""
    if args.file:
        make.from_file(args.file, args.prefix)
    else:
        make.from_archives(args.archives, args.prefix)


def activation(args: argparse.Namespace) -> None:
    """Print the shell text that activates an env we did not make."""
    sys.stdout.write(make.kept_activation(args.prefix, args.keep))


def export(args: argparse.Namespace) -> None:
    """Print an env as an environment file, versions and builds included."""
    sys.stdout.write(show.as_environment_file(_prefix_of(args)))


def list_packages(args: argparse.Namespace) -> None:
    """Print what is in an env: its packages, or the URLs of their archives."""
    prefix = _prefix_of(args)
    digest = "md5" if args.md5 else "sha256" if args.sha256 else ""
    sys.stdout.write(
        show.as_explicit(prefix, digest) if args.explicit else show.as_table(prefix, args.json)
    )


def _prefix_of(args: argparse.Namespace) -> Path:
    from hpcburst.envs.specs.named import prefixes_named
    from hpcburst.envs.specs.places import env_path, is_prefix

    if args.prefix:
        return Path(args.prefix)
    found = {path.resolve(): path for path in prefixes_named(args.name) if is_prefix(path)}
    return next(iter(found.values())) if len(found) == 1 else env_path(args.name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conda", allow_abbrev=False)
    verbs = parser.add_subparsers(required=True)
    env = verbs.add_parser("env").add_subparsers(required=True)
    _add_create(verbs.add_parser("create"))
    _add_create(env.add_parser("create"))
    _add_reading(env.add_parser("export"), export)
    listing = verbs.add_parser("list")
    for flag in ("--explicit", "--md5", "--sha256"):
        listing.add_argument(flag, action="store_true")
    _add_reading(listing, list_packages)
    activating = verbs.add_parser("activation")
    activating.add_argument("--keep", type=Path, required=True)
    activating.add_argument("--prefix", type=Path, required=True)
    activating.set_defaults(run=activation)
    return parser


def _add_create(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-f", "--file", type=Path)
    source.add_argument("archives", type=Path, nargs="*", default=[])
    parser.add_argument("-p", "--prefix", type=Path, required=True)
    for flag in ("--quiet", "--yes", "--no-default-packages"):
        parser.add_argument(flag, action="store_true")
    parser.set_defaults(run=create)


def _add_reading(parser: argparse.ArgumentParser, run: object) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-p", "--prefix")
    where.add_argument("-n", "--name")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main())
