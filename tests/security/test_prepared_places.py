"""Names that others took first, in folders that all users share: refused, and never written to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcburst.comms.staging import RunFolder, private_folder, scratch_folder
from hpcburst.envs import folders as env_folders
from hpcburst.envs.depot.node_disk import NodeFolder, find
from hpcburst.errors import BurstError
from hpcburst_recipes.checkpoints.bundle import make_bundle
from hpcburst_recipes.checkpoints.question import question
from hpcburst_recipes.prefect_server import place
from hpcburst_recipes.prefect_server.place import Place, disk_folder
from prefect_hpcburst.worker.records import FlowRunFolders
from support.stranger import UID, Stranger

pytestmark = pytest.mark.usefixtures("careless")

TRAPS = ("folder", "link", "fifo", "file")

ME = os.getuid()


def _pilots_root(node: Path) -> None:
    scratch_folder(node / "root")


def _envs_on_node(node: Path) -> None:
    NodeFolder(node / f"hpcburst-{ME}").make()


def _package_cache(node: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(env_folders.tempfile, "tempdir", str(node))
        patch.setattr(env_folders, "_can_lock", lambda _: False)
        env_folders.Folders(node).caches()


def _shared_root(node: Path) -> None:
    RunFolder.make(node / "root")


def _runs(node: Path) -> None:
    private_folder(node / "runs")


def _flow_runs(node: Path) -> None:
    FlowRunFolders.below(node / "root")


def _checkpoints(node: Path) -> None:
    make_bundle(node / "root", question("look"), {})


def _server_folder(node: Path) -> None:
    Place(node / "root").make()


def _server_disk(node: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "is_network", lambda _: True)
        disk_folder(node)


PLACES: dict[Callable[[Path], None], str] = {
    _pilots_root: "root",
    _envs_on_node: f"hpcburst-{ME}",
    _package_cache: f"hpcburst-pkgs-{ME}",
    _shared_root: "root",
    _runs: "runs",
    _flow_runs: "root",
    _checkpoints: "root/checkpoints",
    _server_folder: "root",
    _server_disk: f"hpcburst-prefect-{ME}",
}
"""What makes a folder, and by which name below the folder that all users share."""


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__.strip("_"))
def test_a_name_that_a_stranger_took_is_refused(
    street: Path, stranger: Stranger, tally, make: Callable[[Path], None], trap: str
):
    """Whatever a stranger put where a folder of ours belongs, be it open to all, a link to his own,
    a pipe or a file: there is an error that says so, and nothing is written into it."""
    node = street / f"node-{make.__name__}-{trap}"
    node.mkdir()
    node.chmod(0o1777)
    name = node / PLACES[make]
    if name.parent != node:
        name.parent.mkdir(mode=0o777)
        name.parent.chmod(0o1777)
    lure = street / f"lure-{make.__name__}-{trap}"
    stranger.tries("set_trap", "folder", lure)
    stranger.tries("set_trap", trap, name, lure)
    before = name.lstat()
    refused = ""
    try:
        make(node)
    except (BurstError, OSError) as error:
        refused = str(error)
    after = name.lstat()
    same = (after.st_ino, after.st_mode, after.st_size) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
    )
    entered = [*lure.iterdir(), *(name.iterdir() if name.is_dir() else ())]
    tally.note("prepared places", f"{trap} at {name}", not refused or not same or entered)


@pytest.mark.parametrize("make", [_pilots_root, _envs_on_node, _package_cache, _server_disk])
@pytest.mark.parametrize("whose", ["stranger", "everybody"])
def test_folders_whose_content_others_can_rename_are_refused(
    street: Path, stranger: Stranger, tally, make: Callable[[Path], None], whose: str
):
    """A private folder is not made where a stranger can put it away and his own in its place: in a
    folder of his, or in one of everybody's that is not sticky."""
    node = street / f"swap-{make.__name__}-{whose}"
    if whose == "stranger":
        stranger.tries("set_trap", "folder", node)
        assert node.stat().st_uid == UID
    else:
        node.mkdir()
        node.chmod(0o777)
    target = node / "root" if make is _pilots_root else node
    if make is _pilots_root:
        target.mkdir()
        target.chmod(0o777)
    try:
        make(node)
    except BurstError:
        made = []
    else:
        made = [path for path in target.iterdir() if stranger.tries("swap", path)["swapped"]]
    tally.note("prepared places", f"swap in a folder of {whose}", made)


def test_a_shared_root_that_everybody_can_rename_is_refused(street: Path, stranger, tally):
    """A run is not begun below a folder in which everybody can rename ours."""
    public = street / "public"
    public.mkdir()
    public.chmod(0o777)
    try:
        RunFolder.make(public / "root")
    except BurstError:
        tally.note("prepared places", "shared root below a public folder", brought=False)
        return
    brought = stranger.tries("swap", public / "root")["swapped"]
    tally.note("prepared places", "shared root below a public folder", brought)


def test_an_env_that_a_stranger_linked_is_not_used(street: Path, stranger: Stranger, tally):
    """A pilot takes no env from a folder that was not its user's alone, whatever it is called."""
    node = street / "poisoned"
    node.mkdir()
    node.chmod(0o1777)
    folder = node / f"hpcburst-{ME}"
    stranger.tries("set_trap", "folder", folder)
    for path in (folder / "envs", folder / "envs" / "key-1"):
        stranger.tries("set_trap", "folder", path)
    found = find("key-1", node)
    tally.note("prepared places", "an env of a stranger's", found)


def test_what_a_stranger_left_as_a_dead_pilots_is_not_ours_to_remove(street, stranger, tally):
    """Sweeping up after dead pilots removes nothing through a link that a stranger left."""
    node, precious = street / "sweep", street / "home" / "precious"
    node.mkdir()
    node.chmod(0o1777)
    precious.mkdir()
    (precious / "owner.json").write_text("{}")
    os.utime(precious, (0, 0))
    stranger.tries("set_trap", "link", node / "hpcburst-dead", precious)
    scratch_folder(node)
    tally.note("prepared places", "a link in the way of the sweep", not precious.exists())
