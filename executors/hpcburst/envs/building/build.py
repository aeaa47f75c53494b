"""Locks to prefixes: built aside, finished, and only then given their name."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.building.finish import finish
from hpcburst.envs.building.pip_section import PipSection, install_pip, pip_lock
from hpcburst.envs.building.publish import staged
from hpcburst.envs.building.relocate import relocate
from hpcburst.envs.building.room import raise_if_no_room, room_for
from hpcburst.envs.child.process import RattlerFailed
from hpcburst.envs.specs.entries import redact
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hpcburst.envs.building.builders import Builder, Linked, Workshop
    from hpcburst.envs.specs.spec import EnvSpec

RECORD = "conda-meta/hpcburst.json"
"""The file that makes a prefix one of ours; written last, before it is published."""

LONGEST_PREFIX = 240
"""Characters: archives reserve 255 for the prefix, and paths inside it need some."""

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class EnvRecord:
    """What is known of an env that was built.

    Attributes:
        key: Its key.
        prefix: Where it is.
        spec: Name of the file that asked for it.
        packages: How many conda packages it has.
        made: Seconds since the epoch.
        host: Node it was built on.
        builder: Who chose and linked its packages.
        activation: What activating it changes; None until that has been captured.
    """

    key: str
    prefix: str
    spec: str = ""
    packages: int = 0
    made: float = 0.0
    host: str = ""
    builder: str = "rattler"
    activation: Mapping[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One env to build.

    Attributes:
        key: Its key.
        prefix: Where it goes.
        stage: Hidden folder beside it to build in.
        lock: Its packages.
        cache: Folders of extracted packages, the one to write to first.
        spec: What was asked.
        source: What the spec is called in messages.
        keep_archives: Whether all archives are wanted as files, and kept.
        archives: URL to file of the archives that are there already.
    """

    key: str
    prefix: Path
    stage: Path
    lock: Path
    cache: tuple[Path, ...]
    spec: EnvSpec
    source: str
    keep_archives: bool = False
    archives: Mapping[str, str] = field(default_factory=dict)


def build(plan: Plan, builder: Builder) -> Mapping[str, str]:
    """Build an env and publish it; when another builder was first, its env is the one.

    Archives are fetched into `builder.workshop.incoming`, where an interrupted download goes on and
    builders share what is there; they are taken away again unless the plan keeps them. Rattler is
    dismissed as soon as all is linked.

    Returns:
        URL to file of all archives, if `plan.keep_archives`; else nothing.

    Raises:
        EnvError: It cannot be built; nothing of it remains then.
    """
    _check_length(plan)
    shop = builder.workshop
    with room_for(plan.source, plan.prefix):
        plan = replace(plan, archives={**fetch(plan, builder), **plan.archives})
        with staged(plan.prefix, plan.stage) as publish:
            if plan.spec.holds_secrets:
                plan.stage.chmod(0o700)
            linked = _link(plan, builder)
            shop.rattler.dismiss()
            _add_own(plan, linked, builder)
            finish(plan.stage, plan.prefix, plan.spec, shop.progress)
            write_record(plan.stage, _record_of(plan, linked, builder.name))
            _publish(plan, publish)
    if plan.keep_archives:
        return plan.archives
    forget(plan.archives, shop.incoming)
    return {}


def fetch(plan: Plan, builder: Builder) -> dict[str, str]:
    """Have the archives as files that linking will need: not those that are extracted in a cache.

    Raises:
        EnvError: One cannot be had.
        OSError: No room.
    """
    shop = builder.workshop
    if builder.fetches and not plan.keep_archives:
        return {}
    cache = [] if plan.keep_archives else [str(folder) for folder in plan.cache]
    wanted = {"lock": str(plan.lock), "folder": str(shop.incoming), "cache": cache}
    try:
        return dict(shop.rattler.call("fetch", **wanted, offline=shop.offline)["files"])
    except RattlerFailed as failed:
        raise_if_no_room(failed.text)
        raise EnvError(
            f"The packages of {plan.source} were to be fetched",
            redact(failed.text),
            "run it again: what has come so far is kept; nodes without a network need a mirror "
            "(config `hpcburst.envs.mirror`)",
        ) from None


def forget(archives: Mapping[str, str], incoming: Path) -> None:
    """Take fetched archives away; those that lie elsewhere, in a channel of files, are left."""
    for file in map(Path, archives.values()):
        if file.parent.parent == incoming:
            with suppress(OSError):
                file.unlink()
                file.parent.rmdir()


def read_record(prefix: Path) -> EnvRecord | None:
    """The record of a finished env; None when there is none at this prefix."""
    try:
        raw = json.loads((prefix / RECORD).read_text(encoding="utf-8"))
        known = {f.name: raw[f.name] for f in fields(EnvRecord) if f.name in raw}
        return EnvRecord(**{**known, "prefix": str(prefix)})
    except (OSError, ValueError, TypeError):
        return None


def write_record(prefix: Path, record: EnvRecord) -> None:
    """Write an env's record, aside and then in place; several may do so at the same time.

    Raises:
        OSError: The env cannot be written to.
    """
    path = prefix / RECORD
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".hpcburst-{secrets.token_hex(8)}")
    try:
        aside.write_text(json.dumps({"schema": _SCHEMA, **asdict(record)}, indent=1))
        aside.chmod(0o644 if prefix.stat().st_mode & 0o044 else 0o600)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_length(plan: Plan) -> None:
    if len(str(plan.prefix)) > LONGEST_PREFIX:
        raise EnvError(
            f"The env {plan.prefix} was to be built",
            f"its path is longer than {LONGEST_PREFIX} characters, and packages cannot hold that",
            "choose a folder with a shorter path",
        )


def _link(plan: Plan, builder: Builder) -> Linked:
    try:
        return builder.link(plan)
    except EnvError:
        if all(Path(file).exists() for file in plan.archives.values()):
            raise
    # Another builder had the same archives, was done first and took them away.
    for path in plan.stage.iterdir():
        _delete(path)
    return builder.link(replace(plan, archives=fetch(plan, builder)))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _add_own(plan: Plan, linked: Linked, builder: Builder) -> None:
    """Add what no conda package brings: pip packages, variables, and the final paths."""
    if linked.written_for != plan.prefix:
        relocate(plan.stage, linked.written_for, plan.prefix)
    scripted = any((plan.stage / "bin").glob(".*-post-link.sh"))
    added = bool(plan.spec.pip) and install_pip(
        _pip_section(plan, builder.workshop), plan.stage, builder.workshop.progress
    )
    if added or scripted:
        relocate(plan.stage, plan.stage, plan.prefix)
    _set_variables(plan.stage, plan.spec.variables)


def _pip_section(plan: Plan, shop: Workshop) -> PipSection:
    # From a lock come exact archives, and pip lines as exact as they.
    lock = None if plan.spec.explicit else pip_lock(plan.lock, plan.key)
    return PipSection(plan.spec.pip, lock, plan.spec.holds_secrets, shop.offline)


def _publish(plan: Plan, publish: Callable[[], bool]) -> None:
    if not publish() and read_record(plan.prefix) is None:
        raise EnvError(
            f"The env {plan.prefix} was to be published",
            "something else is at that place",
            "move it away, or ask for another prefix",
        )


def _set_variables(stage: Path, variables: Mapping[str, str]) -> None:
    if variables:
        folder = stage / "etc/conda/env_vars.d"
        folder.mkdir(parents=True, exist_ok=True)
        # zz: after those of the packages, so that the user has the last word.
        (folder / "zz-hpcburst.json").write_text(json.dumps(dict(variables)), encoding="utf-8")


def _record_of(plan: Plan, linked: Linked, builder: str) -> EnvRecord:
    return EnvRecord(
        key=plan.key,
        prefix=str(plan.prefix),
        spec=Path(plan.source).name,
        packages=len(linked.packages),
        made=time.time(),
        host=socket.gethostname(),
        builder=builder,
    )
