"""Where finished envs are kept: under the shared root, or as packs that nodes link them from."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from hpcburst.envs.activation.capture import capture
from hpcburst.envs.building.build import EnvRecord, Plan, build, forget, read_record, write_record
from hpcburst.envs.building.publish import claim, discard, stage_for, sweep
from hpcburst.envs.building.room import room_for
from hpcburst.envs.building.solve import Package, packages_in, write_lock
from hpcburst.envs.depot.depot import Depot
from hpcburst.envs.depot.node_disk import first_fit
from hpcburst.errors import EnvError
from hpcburst.tasks import Env

if TYPE_CHECKING:
    from hpcburst.envs.building.builders import Builder
    from hpcburst.envs.folders import Folders
    from hpcburst.envs.specs.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class Order:
    """One env that somebody wants.

    Attributes:
        key: Its key.
        spec: What it holds.
        source: What the spec is called in messages.
    """

    key: str
    spec: EnvSpec
    source: str


class Shelf(Protocol):
    """One way to keep envs."""

    def find(self, key: str) -> Env | None:
        """The finished env with this key; None when there is none."""

    def make(self, order: Order, builder: Builder) -> Env:
        """The env of an order, which `find` did not find; whoever comes first builds it.

        Raises:
            EnvError: It cannot be solved or built.
        """

    def discard(self, key: str) -> bool:
        """Take the env with this key away; returns whether there was one."""

    def records(self) -> list[EnvRecord]:
        """The records of all finished envs."""


@dataclass(frozen=True, slots=True)
class SharedShelf:
    """Envs that every node runs from the shared root.

    Attributes:
        folders: Where things lie.
        prefix: The one place of the one env, when the caller chooses it.
    """

    folders: Folders
    prefix: Path | None = None

    def find(self, key: str) -> Env | None:
        """See `Shelf.find`."""
        record = read_record(self._target(key))
        return activated(record) if record else None

    def make(self, order: Order, builder: Builder) -> Env:
        """See `Shelf.make`."""
        target = self._target(order.key)
        with room_for(order.source, target):
            self.folders.prepare()
            sweep(target.parent, self.folders.locks)
            with _claimed(self, order, self.folders.claim(target), target, builder) as stage:
                if stage is not None:
                    self._build(order, target, stage, builder)
        return self.find(order.key) or _gone(target)

    def discard(self, key: str) -> bool:
        """See `Shelf.discard`."""
        there = read_record(self._target(key)) is not None
        if there:
            discard(self._target(key))
        return there

    def records(self) -> list[EnvRecord]:
        """See `Shelf.records`."""
        folder = self.folders.envs
        paths = folder.iterdir() if folder.is_dir() else ()
        return [record for path in paths if (record := read_record(path))]

    def _target(self, key: str) -> Path:
        return self.prefix or self.folders.env(key)

    def _build(self, order: Order, target: Path, stage: Path, builder: Builder) -> None:
        if self.prefix is None and target.exists():
            discard(target)  # all that is there was published whole: somebody took its record away
        lock = locked(order, self.folders, builder)
        build(_plan(order, target, stage, lock, self.folders.caches()), builder)


@dataclass(frozen=True, slots=True)
class DepotShelf:
    """Envs that nodes link on their own disks, from packs of archives under the shared root.

    Attributes:
        folders: Where things lie.
        node_root: Folder on this node's own disk, to build on.
    """

    folders: Folders
    node_root: Path

    @property
    def depot(self) -> Depot:
        """The packs."""
        return Depot(self.folders.depot)

    def find(self, key: str) -> Env | None:
        """See `Shelf.find`."""
        pack = self.depot.read(key)
        if pack is None or not self.depot.is_whole(pack):
            return None
        return Env(key, pack.prefix, dict(pack.activation), pack=str(self.depot.path(pack)))

    def make(self, order: Order, builder: Builder) -> Env:
        """See `Shelf.make`; it is built on this node's disk, packed, and taken away again there.

        Raises:
            CannotMove: The env would be good at one prefix only.
        """
        here = first_fit(self.node_root)
        target = here.envs / self.folders.private_name(order.key)
        with room_for(order.source, target):
            self.folders.prepare()
            sweep(here.envs, self.folders.locks)
            marker = self.folders.claim(self.folders.env(order.key))
            with _claimed(self, order, marker, target, builder) as stage:
                if stage is not None:
                    discard(target)
                    lock = locked(order, self.folders, builder)
                    here.cache.mkdir(parents=True, exist_ok=True)
                    plan = _plan(order, target, stage, lock, (here.cache,))
                    self._publish(order, replace(plan, keep_archives=True), builder)
        return self.find(order.key) or _gone(self.folders.depot / order.key)

    def discard(self, key: str) -> bool:
        """See `Shelf.discard`; archives that no other env needs go too, a day later."""
        there = self.depot.remove(key)
        if there:
            self.depot.sweep()
        return there

    def records(self) -> list[EnvRecord]:
        """See `Shelf.records`."""
        known = {field.name for field in fields(EnvRecord)}
        return [
            replace(
                EnvRecord(**{k: v for k, v in pack.record.items() if k in known}),
                prefix=str(self.depot.path(pack)),
                activation=pack.activation,
            )
            for pack in self.depot.published()
        ]

    def _publish(self, order: Order, plan: Plan, builder: Builder) -> None:
        shop = builder.workshop
        packages = [Package.from_row(row) for row in packages_in(plan.lock, shop.rattler)]
        try:
            archives = build(plan, builder)
            record = read_record(plan.prefix)
            if record is None:
                raise _vanished(plan.prefix)
            shop.progress("packing for the nodes", 0, None)
            self.depot.publish(
                order.key,
                lock=plan.lock,
                files=archives,
                packages=packages,
                prefix=plan.prefix,
                record=replace(record, activation=capture(plan.prefix)),
                private=order.spec.holds_secrets,
            )
        finally:
            discard(plan.prefix)
        forget(archives, shop.incoming)


def locked(order: Order, folders: Folders, builder: Builder, *, anew: bool = False) -> Path:
    """The lock of an order; solved unless it is there, or anew.

    Raises:
        EnvError: It cannot be solved; a lock that is there stays then.
    """
    lock = folders.lock(order.key)
    folders.keep_spec(order.key, order.spec)
    if anew:
        aside = lock.with_name(f".{lock.name}-{secrets.token_hex(6)}")
        write_lock(order.spec, aside, builder=builder, source=order.source)
        folders.forget_pip_locks(order.key)
        aside.replace(lock)
    elif not lock.exists():
        write_lock(order.spec, lock, builder=builder, source=order.source)
    return lock


def activated(record: EnvRecord) -> Env:
    """The env of a record, its activation captured if it was not yet.

    Raises:
        EnvError: It cannot be activated.
    """
    if record.activation is None:
        record = replace(record, activation=capture(Path(record.prefix)))
        if record.made:  # an env of ours; in others we write nothing
            with suppress(OSError):
                write_record(Path(record.prefix), record)
    return Env(record.key, record.prefix, dict(record.activation or {}))


@contextmanager
def _claimed(
    shelf: Shelf, order: Order, marker: Path, target: Path, builder: Builder
) -> Iterator[Path | None]:
    """The stage to build in, or None when somebody else has done it."""
    progress, stage = builder.workshop.progress, stage_for(target)

    def told(host: str) -> None:
        progress(f"waiting for {host}, which builds the same env", 0, None)

    def done() -> bool:
        return shelf.find(order.key) is not None

    with claim(marker, stage, done=done, told=told) as mine:
        yield stage if mine else None


def _plan(order: Order, target: Path, stage: Path, lock: Path, cache: tuple[Path, ...]) -> Plan:
    return Plan(order.key, target, stage, lock, cache, order.spec, order.source)


def _gone(place: Path) -> NoReturn:
    raise _vanished(place)


def _vanished(place: Path) -> EnvError:
    return EnvError(f"The env {place} was built", "it is gone again", "run it again")
