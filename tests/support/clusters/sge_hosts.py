"""The machines of a private Grid Engine: a head and nodes, each a set of namespaces on this one.

Its daemons listen on all addresses and want one host name each, so they get a network of their own
that leads nowhere. A node is a process tree of its own too: when its first process is killed, all
that ran on it is gone, as when a machine loses power.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.clusters.errors import ClusterError
from support.clusters.packages import SYSTEM_PATH
from support.clusters.processes import Process, carrying, end, wait_until

HEAD = "head"
HEAD_ADDRESS = "10.99.0.254"
NOWHERE = "10.99.0.253"
"""A gateway that does not exist: with a route, programs find the address others know them by."""

SLEEPER = ["env", "--ignore-signal=CHLD", "sleep", "infinity"]
"""Holds namespaces open. As the first process of a node it inherits orphans, and must not let
them stay as zombies: with this signal ignored the kernel clears them away."""

NAME = "HPCBURST_TEST_HOST"
"""The variable by which a sleeper knows, and tells, which host it holds."""


class Hosts:
    """Opens, finds and closes the hosts of one cluster.

    Args:
        folder: The cluster's folder.
        mark: The variable and value that all of the cluster's own processes carry.
    """

    def __init__(self, folder: Path, mark: tuple[str, str]) -> None:
        self.folder = folder
        self.mark = mark

    def open_head(self, nodes: Sequence[str]) -> None:
        """Make the head and the network that the nodes will be on."""
        (self.folder / "hosts").write_text(host_table(nodes))
        (self.folder / "resolv.conf").write_text("")  # look-ups fail at once, not after 10 s
        self._hold(HEAD, ["unshare", "--net", "--uts", "--mount", "--propagation=slave"])
        self.on(HEAD, "hostname", HEAD)
        for name in ("hosts", "resolv.conf"):
            system = Path("/etc", name).resolve()
            self.on(HEAD, "mount", "--bind", str(self.folder / name), str(system))
        self._network(
            HEAD,
            "link set lo up",
            "link add br0 type bridge",
            f"addr add {HEAD_ADDRESS}/24 dev br0",
            "link set br0 up",
            f"route add default via {NOWHERE} dev br0",
        )

    def open_node(self, name: str) -> None:
        """Make a node and plug it into the head's network; its predecessor must be closed."""
        alone = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child"]
        self._hold(name, [*self.entering(HEAD), *alone, "--mount-proc"])
        self.on(name, "hostname", name)
        port = f"v{name}"
        self._network(
            HEAD,
            f"link add {port} type veth peer name eth0 netns {self._pid(name)}",
            f"link set {port} master br0 up",
        )
        self._network(
            name,
            "link set lo up",
            f"addr add {address(name)}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {NOWHERE}",
        )

    def open_now(self) -> dict[str, Process]:
        """The process that holds each host that there is."""
        return {
            process.environ[NAME]: process
            for process in carrying(*self.mark)
            if NAME in process.environ and process.name == "sleep"
        }

    def close(self, *names: str) -> None:
        """End hosts, and on nodes all that runs there."""
        holders = self.open_now()
        end([holders[name] for name in names if name in holders])

    def entering(self, name: str) -> list[str]:
        """Words before a command that run it on a host, in its root folder."""
        spaces = ["--net", "--uts", "--mount"] + ([] if name == HEAD else ["--pid"])
        return ["nsenter", f"--target={self._pid(name)}", *spaces, "--"]

    def on(self, name: str, *argv: str, stdin: str = "") -> str:
        """What a command says that runs on a host, as one of the cluster's own processes.

        Raises:
            ClusterError: It failed; with what it said.
        """
        done = subprocess.run(
            [*self.entering(name), *argv],
            env=self._environ(),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(argv)} on {name} failed: {done.stdout}")
        return done.stdout

    def _hold(self, name: str, spaces: Sequence[str]) -> None:
        """Start the sleeper of a host in new namespaces."""
        log = self.folder / "log" / f"{name}.log"
        with log.open("ab") as said:
            subprocess.run(
                ["setsid", "--fork", *spaces, *SLEEPER],
                env={**self._environ(), NAME: name},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=True,
            )
        try:
            wait_until(lambda: name in self.open_now(), f"the namespaces of {name}", 10)
        except ClusterError as error:
            raise ClusterError(
                f"this machine lets us make no namespaces: {log.read_text().strip()} "
                "(a container needs the capabilities SYS_ADMIN and NET_ADMIN)"
            ) from error

    def _network(self, name: str, *orders: str) -> None:
        self.on(name, "ip", "-batch", "-", stdin="".join(f"{order}\n" for order in orders))

    def _pid(self, name: str) -> int:
        try:
            return self.open_now()[name].pid
        except KeyError:
            raise ClusterError(f"there is no host {name} in {self.folder}") from None

    def _environ(self) -> Mapping[str, str]:
        return {"PATH": SYSTEM_PATH, self.mark[0]: self.mark[1]}


def address(node: str) -> str:
    """The address of a node."""
    return f"10.99.0.{node.removeprefix('n')}"


def host_table(nodes: Sequence[str]) -> str:
    """/etc/hosts as all of them see it."""
    known = {"localhost": "127.0.0.1", HEAD: HEAD_ADDRESS}
    known.update({node: address(node) for node in nodes})
    return "".join(f"{where} {name}\n" for name, where in known.items())
