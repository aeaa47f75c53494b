"""What the stand-in `conda` needs Python for: make an env, or say what is in one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.activation import as_shell
from hpcburst.envs.conda_standin import CHANNEL_MIRROR, ENV_ROOT
from hpcburst.errors import BurstError, EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcburst.envs.store import EnvStore

ACTIVATION = "conda-meta/hpcburst-activate.sh"
"""The file in a prefix that `bin/activate` sources."""


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
    """Make the env of a file at a prefix, with the script that activates it.

    Raises:
        EnvError: It cannot be made.
    """
    env = open_store().place(args.file, args.prefix)
    script = Path(env.prefix) / ACTIVATION
    aside = script.with_name(f".hpcburst-activate-{os.getpid()}")
    aside.write_text(as_shell(env.activation), encoding="utf-8", errors="surrogateescape")
    aside.replace(script)


def export(args: argparse.Namespace) -> None:
    """Print an env as an environment file, versions and builds included."""
    rows = _packages(args.prefix)
    channels = dict.fromkeys(str(row["channel"]) for row in rows)
    lines = [f"{row['name']}={row['version']}={row['build']}" for row in rows]
    document = {"channels": list(channels), "dependencies": lines}
    sys.stdout.write(json.dumps(document, indent=1) + "\n")  # JSON is YAML


def list_explicit(args: argparse.Namespace) -> None:
    """Print the URLs of an env's archives."""
    urls = [str(row["url"]) for row in _packages(args.prefix)]
    sys.stdout.write("\n".join(["@EXPLICIT", *urls]) + "\n")


def open_store() -> EnvStore:
    """The store of envs that the environment, or else the config, names.

    Raises:
        EnvError: The mirror variable is not a JSON object.
    """
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.load import load_site

    site = load_site()
    settings = replace(site.envs, mirror={**site.envs.mirror, **_mirror()})
    return EnvStore(os.environ.get(ENV_ROOT) or site.paths.shared_root / "envs", settings)


def _mirror() -> dict[str, str]:
    text = os.environ.get(CHANNEL_MIRROR, "")
    try:
        found = json.loads(text or "{}")
        return {str(name): str(url) for name, url in found.items()}
    except (ValueError, AttributeError) as error:
        raise EnvError(
            f"{CHANNEL_MIRROR} is {text[:80]!r}",
            "it is not a JSON object",
            'write {"conda-forge": "https://..."}',
        ) from error


def _packages(prefix: Path) -> list[dict[str, Any]]:
    rows = [json.loads(path.read_text()) for path in sorted((prefix / "conda-meta").glob("*.json"))]
    found = [row for row in rows if "url" in row and "build" in row]
    if not found:
        raise EnvError(
            f"The packages of {prefix} were asked for", "there are none", "check the prefix"
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conda", allow_abbrev=False)
    verbs = parser.add_subparsers(required=True)
    _add_create(verbs.add_parser("create"))
    listing = verbs.add_parser("list")
    listing.add_argument("--explicit", action="store_true", required=True)
    listing.set_defaults(run=list_explicit)
    env = verbs.add_parser("env").add_subparsers(required=True)
    _add_create(env.add_parser("create"))
    exporting = env.add_parser("export")
    exporting.set_defaults(run=export)
    for verb in (listing, exporting):
        verb.add_argument("-p", "--prefix", type=Path, required=True)
        verb.add_argument("--json", action="store_true")
    return parser


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", type=Path, required=True)
    parser.add_argument("-p", "--prefix", type=Path, required=True)
    for flag in ("--quiet", "--yes", "--no-default-packages"):
        parser.add_argument(flag, action="store_true")
    parser.set_defaults(run=create)


if __name__ == "__main__":
    sys.exit(main())
