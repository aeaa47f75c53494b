"""`hpcburst env list`, `show` and `why`: what there is, what is in it, what sets it apart."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_find import find_env, open_store, spec_named
from hpcburst.cli.env_words import (
    ago_text,
    as_text,
    count_text,
    moment_text,
    print_columns,
    print_json,
    size_text,
    strong,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from hpcburst.envs.building.build import EnvRecord
    from hpcburst.envs.keeping.contents import Installed
    from hpcburst.envs.store import EnvStore

HEAD = ("KEY", "AGE", "USED", "SIZE", "PACKAGES", "BUILDER", "SPEC")

CHANNEL_HOST = "https://conda.anaconda.org/"


def list_envs(args: argparse.Namespace) -> int:
    """Print the envs of the store, the oldest first."""
    store = open_store()
    rows = [_row(store, record) for record in store.list()]
    if args.json:
        print_json(rows)
    elif rows:
        print_columns([_cells(row) for row in rows], head=HEAD, right=(1, 2, 3, 4))
    else:
        print("no envs yet: hpcburst env create FILE")
    return 0


def show(args: argparse.Namespace) -> int:
    """Print what is known of one env, built or not; with `--activation`, text to source.

    Raises:
        hpcburst.errors.EnvError: There is no such env, or it is not built and cannot be activated.
    """
    store = open_store()
    record = find_env(store, args.env)
    if args.activation:
        print(_activation_text(store, record, args.env), end="")
        return 0
    asked = spec_named(store, args.env)
    document = describe(store, record, modules=asked.modules if asked else ())
    if args.json:
        print_json(document)
    else:
        _say_env(document)
    return 0


def why(args: argparse.Namespace) -> int:
    """Say why the envs of two or more specs are not the same one.

    Raises:
        hpcburst.errors.EnvError: One of them cannot be found or read.
    """
    from hpcburst.cli.env_why import compare

    return compare(open_store(), args.envs, as_json=args.json)


def describe(store: EnvStore, record: EnvRecord, *, modules: Sequence[str] = ()) -> dict[str, Any]:
    """All that is known of an env, as JSON can hold it."""
    from hpcburst.envs.activation.capture import own_variables
    from hpcburst.envs.keeping.contents import read_contents

    prefix = Path(record.prefix)
    lock = store.folders.lock(record.key)
    packages = read_contents(prefix)[0] if prefix.is_dir() else ()
    rows = [_package_row(package) for package in packages] or _locked_rows(store, lock)
    return {
        **_row(store, record),
        "built": bool(record.made) or prefix.is_dir(),
        "lock": str(lock) if lock.exists() else None,
        "owner": _owner(prefix),
        "python": next((row["version"] for row in rows if row["name"] == "python"), None),
        "variables": own_variables(prefix),
        "modules": list(modules),
        "activation": dict(record.activation) if record.activation is not None else None,
        "packages": sorted(rows, key=lambda row: (row["channel"] == "pip", row["name"])),
    }


def _row(store: EnvStore, record: EnvRecord) -> dict[str, Any]:
    """A record as JSON holds it: without its activation, with what upkeep knows."""
    from hpcburst.envs.keeping.sizes import size_of
    from hpcburst.envs.keeping.upkeep import last_used

    row = {name: value for name, value in asdict(record).items() if name != "activation"}
    used = last_used(store.root, record.key) or record.made or None
    size = {"held_bytes": None, "files": None}
    if record.made and Path(record.prefix).is_dir():
        size = asdict(size_of(store.root, record))
    builder = record.builder if record.made else ""  # of others' envs nobody knows
    return {**row, "builder": builder, "used": used, **size}


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    return (
        row["key"],
        ago_text(row["made"]).removesuffix(" ago"),
        ago_text(row["used"]).removesuffix(" ago"),
        "-" if row["held_bytes"] is None else size_text(row["held_bytes"]),
        row["packages"],
        row["builder"],
        as_text(row["spec"]),
    )


def _package_row(package: Installed) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "channel": channel_text(package.channel),
    }


def _locked_rows(store: EnvStore, lock: Path) -> list[dict[str, Any]]:
    """The packages of an env that is not built here, from its lock."""
    if not lock.exists():
        return []
    return [
        {
            "name": package.name,
            "version": package.version,
            "build": package.build,
            "channel": channel_text(package.url.rsplit("/", 2)[0]),
        }
        for package in store.packages(lock)
    ]


def channel_text(url: str) -> str:
    """A channel as people write it, without passwords."""
    from hpcburst.envs.specs.entries import redact

    return redact(url).removeprefix(CHANNEL_HOST).rstrip("/")


def _owner(prefix: Path) -> str | None:
    try:
        return prefix.owner()
    except (OSError, KeyError):
        return None


def _activation_text(store: EnvStore, record: EnvRecord, asked: str) -> str:
    from hpcburst.envs.activation.capture import as_shell
    from hpcburst.errors import EnvError

    prefix = Path(record.prefix)
    if not record.made and not prefix.is_dir():
        raise EnvError(
            f"The activation of the env {record.key} was asked for",
            "it is not built",
            f"run `hpcburst env create {asked}` first",
        )
    if record.activation is not None:
        return as_shell(record.activation)
    return as_shell(store.ensure(prefix).activation)


def _say_env(env: Mapping[str, Any]) -> None:
    print(strong(f"{env['key']}  {as_text(env['spec'])}"))
    facts = [(f"  {name}", as_text(value)) for name, value in _facts(env) if value]
    print_columns(facts)
    print(f"  {count_text(len(env['packages']), 'package')}")
    rows = [(f"    {p['name']}", p["version"], p["build"], p["channel"]) for p in env["packages"]]
    if rows:
        print_columns(rows)


def _facts(env: Mapping[str, Any]) -> list[tuple[str, str]]:
    prefix = env["prefix"]
    made = f"{moment_text(env['made'])} on {env['host']} by {env['owner']}, with {env['builder']}"
    size = "" if env["held_bytes"] is None else size_text(env["held_bytes"])
    facts = [
        ("prefix", prefix if env["built"] else f"{prefix} (not built)"),
        ("lock", env["lock"] or ""),
        ("built", made if env["made"] else ""),
        ("last used", ago_text(env["used"]) if env["used"] else ""),
        ("on disk", size and f"{size}, {count_text(env['files'], 'file')}"),
        ("python", env["python"] or ""),
        ("modules", " ".join(env["modules"])),
    ]
    variables = [f"{name}={value}" for name, value in sorted(env["variables"].items())]
    changes = [
        f"unset {name}" if value is None else f"{name}={_shortened(name, value, prefix)}"
        for name, value in sorted((env["activation"] or {}).items())
    ]
    return facts + _labelled("variables", variables) + _labelled("activation", changes)


def _shortened(name: str, value: str, prefix: str) -> str:
    own = name in ("CONDA_PREFIX", "CONDA_DEFAULT_ENV")
    return value if own else value.replace(prefix, "$CONDA_PREFIX")


def _labelled(label: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    return [("" if number else label, line) for number, line in enumerate(lines)]
