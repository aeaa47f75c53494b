"""Where envs lie: the policy, and which file systems ask a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.depot.placing import filesystem_of, is_network, placement, type_at
from hpcburst.errors import EnvError

LINE = "36 35 98:0 / {place} rw,noatime shared:1 - {kind} source rw,errors=continue"

names = st.text("abc \\\t", min_size=1, max_size=3)
places = st.lists(names, max_size=3).map(lambda parts: "/" + "/".join(parts))


def table(*mounts: tuple[str, str]) -> str:
    """A mountinfo with these mounts (place, type), the later ones mounted later."""
    return "\n".join(LINE.format(place=escaped(place), kind=kind) for place, kind in mounts)


def escaped(text: str) -> str:
    """Text as the kernel writes it."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)


@pytest.mark.parametrize(
    ("policy", "filesystem", "pilots_here", "expected"),
    [
        ("auto", "lustre", False, "local"),
        ("auto", "lustre", True, "shared"),
        ("auto", "ext4", False, "shared"),
        ("auto", "", False, "shared"),
        ("shared", "lustre", False, "shared"),
        ("local", "ext4", True, "local"),
    ],
)
def test_envs_go_to_the_nodes_when_a_server_would_be_asked(
    policy, filesystem, pilots_here, expected
):
    """By itself an env goes to the nodes only if they would ask a server for each of its files."""
    assert placement(policy, filesystem, pilots_here=pilots_here) == expected


def test_an_unknown_policy_is_an_answer():
    """A misspelt place is refused with the words there are."""
    with pytest.raises(EnvError, match="auto, shared or local"):
        placement("locale", "nfs", pilots_here=False)


@pytest.mark.parametrize(
    "filesystem", ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "panfs",
                   "wekafs", "afs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse"]
)  # fmt: skip
def test_file_systems_of_centres_are_known(filesystem):
    """The file systems that centres share between nodes count as such."""
    assert is_network(filesystem)


@pytest.mark.parametrize(
    "filesystem", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk",
                   "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.squashfuse", ""]
)  # fmt: skip
def test_file_systems_of_one_machine_are_known(filesystem):
    """Disks, memory and file systems in user space on top of them do not count as shared."""
    assert not is_network(filesystem)


def test_the_nearest_mount_counts(tmp_path):
    """A path is on the deepest mount above it, and on the last one mounted there."""
    mounts = table(("/", "ext4"), ("/home", "nfs4"), ("/home/me/fast disk", "xfs"))
    assert type_at(mounts, tmp_path.__class__("/home/me/envs")) == "nfs4"
    assert type_at(mounts, tmp_path.__class__("/home/me/fast disk/envs")) == "xfs"
    assert type_at(mounts, tmp_path.__class__("/homes")) == "ext4"
    hidden = table(("/", "ext4"), ("/home", "autofs"), ("/home", "nfs4"))
    assert type_at(hidden, tmp_path.__class__("/home/me")) == "nfs4"


@given(st.dictionaries(places, st.sampled_from(["ext4", "nfs4", "xfs"]), min_size=1), places)
def test_no_mount_is_taken_for_one_beside_it(mounts, path):
    """Whatever characters names hold, the mount found covers the path, and no deeper one does."""
    from pathlib import Path

    asked = Path(path)
    covering = [Path(place) for place in mounts if asked.is_relative_to(Path(place))]
    expected = ""
    if covering:
        deepest = max(len(place.parts) for place in covering)
        kinds = [kind for place, kind in mounts.items() if Path(place) in covering
                 and len(Path(place).parts) == deepest]  # fmt: skip
        expected = kinds[-1]
    assert type_at(table(*mounts.items()), asked) == expected


def test_this_machines_table_can_be_read(tmp_path):
    """The type of a real folder's file system is found, also for a path that is not there yet."""
    assert filesystem_of(tmp_path)
    assert filesystem_of(tmp_path / "not/there") == filesystem_of(tmp_path)
    assert filesystem_of(tmp_path.__class__("/proc/self")) == "proc"
