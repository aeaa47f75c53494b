"""The envs a pilot has on its node's own disk."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.activation.capture import relocated

if TYPE_CHECKING:
    from hpcburst.envs.depot.node_disk import InUse
    from hpcburst.tasks import Env

logger = logging.getLogger("hpcburst.pilot")


class LocalEnvs:
    """Links envs from the depot on first use and keeps them while the pilot runs.

    Threads may ask at the same time; other pilots on the node use the same folder.

    Args:
        node_root: Folder on the node's own disk.
    """

    def __init__(self, node_root: Path) -> None:
        self._node_root = node_root
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._here: dict[str, InUse] = {}

    def here(self, env: Env) -> Env:
        """The env at its place on this node; one that every node sees is returned as it is.

        Raises:
            EnvError: It cannot be linked on this node.
        """
        if not env.pack:
            return env
        with self._guard:
            lock = self._locks.setdefault(env.pack, threading.Lock())
        with lock:
            found = self._here.get(env.pack)
            if found is None:
                found = self._here[env.pack] = self._link(env)
        # Not the linked env's own: modules may have been loaded before it.
        activation = relocated(env.activation, env.prefix, found.env.prefix)
        return replace(env, prefix=found.env.prefix, activation=activation, pack="")

    def close(self) -> None:
        """Let others sweep them when their time has come. Idempotent."""
        with self._guard:
            held = list(self._here.values())
            self._here.clear()
        for each in held:
            each.close()

    def _link(self, env: Env) -> InUse:
        from hpcburst.envs.depot.localise import linked

        began = time.monotonic()
        found = linked(Path(env.pack), self._node_root)
        took_s = time.monotonic() - began
        logger.info("env %s is at %s, after %.1f s", env.key, found.env.prefix, took_s)
        return found
