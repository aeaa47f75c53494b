"""The store of envs: ask it for one, and it is there, built once by whoever asked first."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.building.build import EnvRecord, read_record
from hpcburst.envs.building.builders import Builder, Workshop, builder_for
from hpcburst.envs.building.room import room_for
from hpcburst.envs.building.solve import Package, detect_machine, packages_in, preview
from hpcburst.envs.child.process import Progress, RattlerProcess, no_progress
from hpcburst.envs.depot.extras import CannotMove
from hpcburst.envs.depot.placing import filesystem_of, placement
from hpcburst.envs.folders import Folders
from hpcburst.envs.keeping.upkeep import mark_used
from hpcburst.envs.machine import overrides, this_machine
from hpcburst.envs.shelves import DepotShelf, Order, SharedShelf, Shelf, activated, locked
from hpcburst.envs.specs.places import Place, is_prefix, prefix_key
from hpcburst.envs.specs.reading import read_spec
from hpcburst.envs.specs.spec import EnvSpec
from hpcburst.envs.wanted import Wanted, added_key, fingerprint, loaded, placed, with_modules
from hpcburst.errors import EnvError
from hpcburst.policy.model import EnvSettings
from hpcburst.tasks import Env

if TYPE_CHECKING:
    from hpcburst.policy.model import Site


@dataclass(frozen=True, slots=True)
class Preview:
    """What `ensure` would do.

    Attributes:
        key: The env's key.
        prefix: Where it is or would be.
        built: Whether it is there.
        packages: What a solution has now; empty if the env is there.
    """

    key: str
    prefix: str
    built: bool
    packages: tuple[Package, ...] = ()


class EnvStore:
    """Envs under one folder (`folders.Folders` says what lies where in it).

    The folder may be shared between nodes and people; it is made for its owner alone (0700) when it
    is not there. Threads, processes and nodes may ask for the same env at the same time.

    Args:
        root: The folder.
        settings: How envs are built and where they lie.
        node_root: Folder on this node's own disk.
        pilots_here: Whether tasks run on this machine alone; counts for the place "auto".
        progress: Told `(what, done, total)` while something takes time.
    """

    def __init__(
        self,
        root: Path | str,
        settings: EnvSettings | None = None,
        *,
        node_root: Path | None = None,
        pilots_here: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self.folders = Folders(Path(root).expanduser().absolute())
        self.settings = settings or EnvSettings()
        self._node_root = node_root or Path(tempfile.gettempdir())
        self._pilots_here = pilots_here
        self._progress = progress or no_progress
        self._guard = threading.Lock()
        self._locks: dict[object, threading.Lock] = {}
        self._known: dict[object, Env] = {}
        self._keys: dict[object, str] = {}

    @classmethod
    def of_site(cls, site: Site, progress: Progress | None = None) -> EnvStore:
        """The store that a site's config describes."""
        return cls(
            site.paths.shared_root / "envs",
            site.envs,
            node_root=site.paths.node_root,
            pilots_here=site.scheduler == "local",
            progress=progress,
        )

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self.folders.root

    # -- envs --------------------------------------------------------------------------------

    def ensure(self, wanted: Wanted | None, modules: Sequence[str] = ()) -> Env:
        """The env that is wanted, with environment modules loaded before it; built if need be.

        Args:
            wanted: A spec; an environment file, a lock, a pixi project, a prefix or the name of an
                env that is there; None is no env but what the modules bring.
            modules: Environment modules, after those that a spec names itself.

        Raises:
            EnvError: It cannot be found, read, solved, built or loaded.
        """
        env = self._env(wanted, tuple(modules))
        if not self._is_there(env):  # somebody else took it away since we last saw it
            with self._guard:
                self._known.clear()
            env = self._env(wanted, tuple(modules))
        self._mark(env)
        return env

    def key(self, wanted: Wanted | None, modules: Sequence[str] = ()) -> str:
        """The key of the env that is wanted, known without building it.

        Raises:
            EnvError: It cannot be found or read.
        """
        names = tuple(modules)
        if wanted is None:
            return added_key("", names)
        if isinstance(wanted, EnvSpec):
            return self._key(with_modules(wanted, names))
        place = placed(wanted)
        if place.is_prefix:
            record = read_record(place.path)
            return added_key(record.key if record else prefix_key(place.path), names)
        name = (fingerprint(place), names, overrides())
        if name not in self._keys:
            self._keys[name] = self._key(with_modules(self.read(place), names))
        return self._keys[name]

    def place(self, wanted: Wanted, prefix: Path | str) -> Env:
        """Build an env at a prefix of the caller's choice, from the same locks and package cache.

        Raises:
            EnvError: It cannot be built, or something else is at that place.
        """
        spec, source = self._spec_of(wanted)
        target = Path(prefix).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._builder() as builder:
            order = self._order(spec, source, builder)
            _check_place(target, order.key)
            shelf = SharedShelf(self.folders, target)
            env = shelf.find(order.key) or shelf.make(order, builder)
        return self._loaded(env, spec.modules, order.key)

    def preview(self, wanted: Wanted, *, anew: bool = False) -> Preview:
        """What `ensure` would do; nothing is built, and nothing is written under the root.

        Args:
            wanted: What is wanted.
            anew: Choose packages for an env that is there, too.

        Raises:
            EnvError: The spec cannot be read or solved.
        """
        spec, source = self._spec_of(wanted)
        with self._builder() as builder:
            order = self._order(spec, source, builder)
            record = self.find(order.key)
            if record and not anew:
                return Preview(order.key, record.prefix, built=True)
            packages = preview(spec, builder=builder, source=source)
            return Preview(
                order.key, str(self.folders.env(order.key)), built=False, packages=packages
            )

    def lock(self, wanted: Wanted, *, anew: bool = False) -> Path:
        """The lock of an env, in the store; solved unless it is there, or anew.

        Raises:
            EnvError: The spec cannot be read or solved.
        """
        spec, source = self._spec_of(wanted)
        with self._builder() as builder:
            order = self._order(spec, source, builder)
            self.folders.prepare()
            with room_for(source, self.folders.locks):
                return locked(order, self.folders, builder, anew=anew)

    def rebuild(self, key: str) -> Env:
        """Build an env again, from its lock, in the place of the one that is there.

        Raises:
            EnvError: Nothing is known of such an env, or it cannot be built.
        """
        spec = self.folders.spec(key)
        if spec is None:
            raise self._unknown(key, "was to be built again")
        record = self.find(key)
        if record:
            self.remove(key)
        return self._of_spec(spec, record.spec if record and record.spec else "the spec")

    def read(self, wanted: Place | Path | str) -> EnvSpec:
        """The spec in a file or project, with this store's channels and mirrors.

        Raises:
            EnvError: The file cannot be read, or is not right.
        """
        place = placed(wanted)
        channels, mirror = self.settings.channels, self.settings.mirror
        return read_spec(
            place.path, channels=channels, mirror=mirror, environment=place.environment
        )

    def spec(self, key: str) -> EnvSpec | None:
        """What was asked for the env with this key; None if that is not known."""
        return self.folders.spec(key)

    def packages(self, lock: Path) -> tuple[Package, ...]:
        """The packages of a lock.

        Raises:
            EnvError: The lock cannot be read.
        """
        with RattlerProcess(self._progress) as rattler:
            return tuple(Package.from_row(row) for row in packages_in(lock, rattler))

    def find(self, key: str) -> EnvRecord | None:
        """The record of the env with this key; None when there is none."""
        return next((record for record in self.list() if record.key == key), None)

    def list(self) -> tuple[EnvRecord, ...]:
        """The records of all finished envs, the oldest first.

        The `prefix` of one that nodes link themselves is the file they link it from.
        """
        found = [record for shelf in self._shelves for record in shelf.records()]
        return tuple(sorted(found, key=lambda record: (record.made, record.key)))

    def remove(self, key: str, *, lock_too: bool = False) -> EnvRecord:
        """Take an env away. Its lock stays, so that building it again gives the same packages.

        Args:
            key: The env's key.
            lock_too: Take its lock as well: the next build solves anew.

        Raises:
            EnvError: There is no such env.
        """
        record = self.find(key)
        if record is None:
            raise self._unknown(key, "was to be removed")
        for shelf in self._shelves:
            shelf.discard(key)
        if lock_too:
            self.folders.forget_lock(key)
        with self._guard:
            self._known.clear()  # modules and specs of other names may stand on it
        return record

    # -- how ---------------------------------------------------------------------------------

    @cached_property
    def _shelves(self) -> tuple[Shelf, Shelf]:
        """Where envs may be kept, the place for new ones first."""
        asked = self.settings.place
        disk = filesystem_of(self.root) if asked == "auto" else ""
        chosen = placement(asked, disk, pilots_here=self._pilots_here)
        shared, depot = SharedShelf(self.folders), DepotShelf(self.folders, self._node_root)
        return (shared, depot) if chosen == "shared" else (depot, shared)

    @contextmanager
    def _builder(self) -> Iterator[Builder]:
        with RattlerProcess(self._progress) as rattler:
            folders, offline = self.folders, self.settings.offline
            yield builder_for(
                self.settings.builder,
                Workshop(rattler, folders.repodata, folders.incoming, offline, self._progress),
            )

    def _env(self, wanted: Wanted | None, names: tuple[str, ...]) -> Env:
        if wanted is None:
            return self._remembered(
                ("", names), lambda: self._loaded(None, names, added_key("", names))
            )
        if isinstance(wanted, EnvSpec):
            return self._of_spec(with_modules(wanted, names), "the spec")
        place = placed(wanted)
        if place.is_prefix:
            return self._existing(place.path, names)
        name = (fingerprint(place), names, overrides())
        return self._remembered(
            name, lambda: self._of_spec(with_modules(self.read(place), names), str(place))
        )

    def _order(self, spec: EnvSpec, source: str, builder: Builder) -> Order:
        bare = replace(spec, modules=())
        return Order(self._key_of(bare, builder.workshop.rattler), bare, source)

    def _key(self, spec: EnvSpec) -> str:
        with RattlerProcess(self._progress) as rattler:
            return self._key_of(spec, rattler)

    def _key_of(self, spec: EnvSpec, rattler: RattlerProcess) -> str:
        machine = this_machine(self.folders.machines, lambda: detect_machine(rattler))
        return spec.key(machine.platform, machine.virtual_packages)

    def _of_spec(self, spec: EnvSpec, source: str) -> Env:
        with self._builder() as builder:
            order = self._order(spec, source, builder)
            key = self._key_of(spec, builder.workshop.rattler) if spec.modules else order.key
            if not spec.conda and not spec.explicit:
                return self._loaded(None, spec.modules, key)
            env = self._remembered(order.key, lambda: self._made(order, builder))
        return self._loaded(env, spec.modules, key)

    def _is_there(self, env: Env) -> bool:
        if env.pack:
            return Path(env.pack).exists()
        return not env.prefix or is_prefix(Path(env.prefix))

    def _mark(self, env: Env) -> None:
        """Note that an env of this store is used: what nobody uses is taken away one day."""
        if env.pack:
            mark_used(self.root, Path(env.pack).stem.rpartition("-")[0])
        elif Path(env.prefix).parent == self.folders.envs:
            mark_used(self.root, Path(env.prefix).name)

    def _made(self, order: Order, builder: Builder) -> Env:
        first, second = self._shelves
        env = first.find(order.key)
        if env is None and self.settings.place == "auto":
            env = second.find(order.key)
        return env or self._make(order, builder)

    def _make(self, order: Order, builder: Builder) -> Env:
        first, second = self._shelves
        try:
            return first.make(order, builder)
        except CannotMove:
            if self.settings.place != "auto":
                raise
            return second.make(order, builder)

    def _existing(self, prefix: Path, modules: tuple[str, ...]) -> Env:
        record = read_record(prefix) or EnvRecord(key=prefix_key(prefix), prefix=str(prefix))
        key = added_key(record.key, modules)
        name = (key, str(prefix))
        return self._remembered(name, lambda: self._loaded(activated(record), modules, key))

    def _loaded(self, env: Env | None, modules: tuple[str, ...], key: str) -> Env:
        return loaded(env, modules, key, self.settings.modules_init)

    def _remembered(self, name: object, make: Callable[[], Env]) -> Env:
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            env = self._known.get(name)
            if env is None:
                env = make()
                with self._guard:
                    self._known[name] = env
        return env

    def _spec_of(self, wanted: Wanted) -> tuple[EnvSpec, str]:
        if isinstance(wanted, EnvSpec):
            return wanted, "the spec"
        place = placed(wanted)
        if place.is_prefix:
            raise EnvError(
                f"The spec of {place} was asked for",
                "that is an env that is there already, not a file that asks for one",
                "name an environment file or a lock",
            )
        return self.read(place), str(place)

    def _unknown(self, key: str, what: str) -> EnvError:
        keys = ", ".join(record.key for record in self.list()) or "none"
        return EnvError(
            f"The env {key!r} {what}",
            f"there is no such env in {self.root}",
            f"the keys there are: {keys}",
        )


def _check_place(target: Path, key: str) -> None:
    record = read_record(target)
    taken = record.key != key if record else target.exists() and any(target.iterdir())
    if taken:
        raise EnvError(
            f"An env was to be built in {target}",
            f"the env {record.key} is there" if record else "that folder is not empty",
            "remove it, or ask for another prefix",
        )
