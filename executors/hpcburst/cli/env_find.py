"""Which env a word on the command line means: a key, the beginning of one, a spec or a prefix."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.errors import EnvError

if TYPE_CHECKING:
    import argparse

    from hpcburst.envs.building.build import EnvRecord
    from hpcburst.envs.child.process import Progress
    from hpcburst.envs.specs.spec import EnvSpec
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.model import Site

SHORTEST_KEY = 4
"""Characters of a key that must be given: fewer name an env by accident."""

NEAR_KEYS = 5
"""Keys that an answer about an unknown one lists at most."""

_KEY = re.compile(r"[0-9a-f]+")


def open_store(progress: Progress | None = None, site: Site | None = None) -> EnvStore:
    """The site's store of envs."""
    from hpcburst.envs.store import EnvStore
    from hpcburst.policy.load import load_site

    return EnvStore.of_site(site or load_site(), progress)


def chosen_site(args: argparse.Namespace) -> Site:
    """The site, with what the command line says about building."""
    from hpcburst.policy.load import load_site

    site = load_site()
    asked = {"builder": args.builder, "place": getattr(args, "place", None)}
    stated = {name: value for name, value in asked.items() if value is not None}
    envs = replace(site.envs, offline=args.offline or site.envs.offline, **stated)
    return replace(site, envs=envs)


def find_by_key(store: EnvStore, text: str) -> EnvRecord:
    """The env with a key, or with the only key that begins so.

    Raises:
        EnvError: There is none, or there are several.
    """
    record = store.find(text)
    if record is not None:
        return record
    records = store.list()
    begun = [r for r in records if r.key.startswith(text)] if len(text) >= SHORTEST_KEY else []
    if len(begun) == 1:
        return begun[0]
    if begun:
        keys = ", ".join(record.key for record in begun)
        raise EnvError(f"The env {text!r} was asked for", f"{keys} begin so", "say more of its key")
    raise _unknown(store, text, [record.key for record in records])


def find_env(store: EnvStore, text: str) -> EnvRecord:
    """The env that a key, its beginning, a spec or a prefix means; its `made` is 0 if not built.

    Raises:
        EnvError: There is nothing of that name.
    """
    from hpcburst.envs.building.build import EnvRecord, read_record
    from hpcburst.envs.specs.places import resolve_env

    if _is_key(text):
        try:
            return find_by_key(store, text)
        except EnvError:
            if not Path(text).exists():
                raise
    place = resolve_env(text)
    if place.is_prefix:
        record = read_record(place.path)
        return record or EnvRecord(store.key(place), str(place.path), place.path.name)
    key = bare_key(store, store.read(place))
    prefix = store.folders.env(key)
    return store.find(key) or EnvRecord(key, str(prefix), place.path.name)


def spec_named(store: EnvStore, text: str) -> EnvSpec | None:
    """The spec that a word on the command line names; None for keys and prefixes.

    Raises:
        EnvError: It is a spec that cannot be read.
    """
    from hpcburst.envs.specs.places import resolve_env

    if _is_key(text) and not Path(text).exists():
        return None
    place = resolve_env(text)
    return None if place.is_prefix else store.read(place)


def bare_key(store: EnvStore, spec: EnvSpec) -> str:
    """The key of the env itself: those of a spec with modules and without them share it."""
    return store.key(replace(spec, modules=()))


def _is_key(text: str) -> bool:
    return len(text) >= SHORTEST_KEY and _KEY.fullmatch(text) is not None


def _unknown(store: EnvStore, text: str, keys: list[str]) -> EnvError:
    near = difflib.get_close_matches(text, keys, NEAR_KEYS, cutoff=0.5) or keys[-NEAR_KEYS:]
    listed = f"keys there are {', '.join(near)}" if near else "there are none yet"
    if len(text) < SHORTEST_KEY:
        listed += f" (give at least {SHORTEST_KEY} characters)"
    return EnvError(
        f"The env {text!r} was asked for",
        f"there is no such env in {store.root}",
        f"{listed}; `hpcburst env list` shows all",
    )
