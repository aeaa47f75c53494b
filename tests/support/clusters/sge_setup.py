"""Set a private Grid Engine up: an installation of its own, its spool, its queues."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from support.clusters import sge_settings as settings
from support.clusters.cluster import Size
from support.clusters.errors import ClusterError
from support.clusters.folder import emptied
from support.clusters.packages import SYSTEM_PATH
from support.clusters.sge_hosts import HEAD, Hosts

COMMAND_PATIENCE_S = 10.0


class Setup:
    """The files and settings of one Grid Engine.

    Args:
        folder: The cluster's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.spool = folder / "spool" / "qmaster"
        self.hosts = Hosts(folder, ("SGE_ROOT", str(self.root)))

    @cached_property
    def variables(self) -> dict[str, str]:
        """What commands find the cluster by."""
        return {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_ARCH": _architecture(),
            "SGE_QMASTER_PORT": "6444",  # in a network of its own: no other cluster's
            "SGE_EXECD_PORT": "6445",
        }

    def tell(self, name: str, *words: str) -> str:
        """What one of Grid Engine's programs says, run on the head.

        Directly: the ones on PATH are scripts around it, and ten times slower.

        Raises:
            ClusterError: It failed, or gave no answer in time.
        """
        argv = [*self.hosts.entering(HEAD), str(settings.LIBRARY / name), *words]
        try:
            done = subprocess.run(
                argv,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{name} said nothing for {COMMAND_PATIENCE_S:g} s") from error
        if done.returncode:
            raise ClusterError(f"{name} {' '.join(words)} failed: {done.stdout}")
        return done.stdout

    def files(self) -> None:
        """Make the folders and the installation, by links: the packages' files stay as they are."""
        emptied(self.folder, "root", "spool", "log")
        common = self.root / "default" / "common"
        for folder in (common, self.spool / "job_scripts", self.folder / "spool" / "execd"):
            folder.mkdir(parents=True)
        (self.root / "util").symlink_to(settings.SHARED / "util")
        for name in ("bin", "utilbin", "lib"):
            (self.root / name).mkdir()
            (self.root / name / _architecture()).symlink_to(settings.LIBRARY)
        (common / "bootstrap").write_text(settings.bootstrap(self.root, self.spool))
        (common / "act_qmaster").write_text(f"{HEAD}\n")

    def initialise(self) -> None:
        """Fill the spool as the package's installer would, with our values."""
        self.tell("spoolinit", "classic", "libspoolc", self._spooling(), "init")
        execd = {"execd_spool_dir": str(self.folder / "spool" / "execd")}
        shipped = (settings.SHARED / "default-configuration").read_text()
        text = settings.changed(shipped, {**settings.GLOBAL, **execd})
        self._spooled("configuration", self._file("global", text))
        resources = settings.SHARED / "util" / "resources"
        complexes = self.folder / "spool" / "complexes"
        shutil.copytree(resources / "centry", complexes)
        memory = complexes / "h_vmem"
        memory.write_text(settings.changed(memory.read_text(), settings.MEMORY))
        self._spooled("complexes", complexes)
        self._spooled("usersets", resources / "usersets")
        self._spooled("managers", Path("root"))

    def configure(self, size: Size, lines: Sequence[str]) -> None:
        """Tell the running scheduler its pace, its nodes and its queues."""
        pace = {**settings.SCHEDULER, **dict(line.split(None, 1) for line in lines)}
        self._order("-Msconf", settings.changed(self.tell("qconf", "-ssconf"), pace))
        self.tell("qconf", "-Ap", str(settings.SHARED / "util" / "resources" / "pe" / "smp"))
        names = ",".join(size.names)
        self.tell("qconf", "-as", f"{HEAD},{names}")
        self.tell("qconf", "-ah", names)
        for name in size.names:
            self._order("-Ae", settings.node(name, size))
        group = {"group_name": "@allhosts", "hostlist": " ".join(size.names)}
        self._order("-Ahgrp", settings.rendered(group))
        template = self.tell("qconf", "-sq")
        for name in settings.QUEUES:
            self._order("-Aq", settings.queue(name, template, size))

    def start_nodes(self, *names: str) -> None:
        """Start the daemons of nodes, all at once: each takes a second to go to the background."""
        with ExitStack() as starting:
            said = starting.enter_context((self.folder / "log" / "execd.log").open("ab"))
            for name in names:
                argv = [*self.hosts.entering(name), str(settings.LIBRARY / "sge_execd")]
                daemon = subprocess.Popen(
                    argv, env=self._environ(), stdin=subprocess.DEVNULL, stdout=said, stderr=said
                )
                starting.enter_context(daemon)

    def _environ(self) -> dict[str, str]:
        libraries = {"LD_LIBRARY_PATH": str(settings.LIBRARY)}
        return {"PATH": SYSTEM_PATH, **libraries, **self.variables}

    def _order(self, what: str, text: str) -> None:
        self.tell("qconf", what, str(self._file("order", text)))

    def _file(self, name: str, text: str) -> Path:
        path = self.folder / "spool" / name
        path.write_text(text)
        return path

    def _spooled(self, what: str, source: Path) -> None:
        # The tool finds the spool by the bootstrap file.
        self.tell("spooldefaults.bin", what, str(source))

    def _spooling(self) -> str:
        return settings.spooling(self.root, self.spool)


def _architecture() -> str:
    """What Grid Engine calls this kind of machine, such as lx-amd64."""
    argv = [str(settings.SHARED / "util" / "arch")]
    environ = {"PATH": os.defpath}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()
