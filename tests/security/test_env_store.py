"""Programs that tasks run lie in envs: only their owner, and whom he lets, puts them there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcburst.envs.folders import Folders
from hpcburst.envs.specs.spec import EnvSpec
from hpcburst.errors import EnvError
from support.stranger import Stranger

pytestmark = pytest.mark.usefixtures("careless")

SPEC = EnvSpec(("conda-forge",), ("python 3.12.*",))


def _prepared(root: Path) -> Folders:
    folders = Folders(root)
    folders.prepare()
    folders.keep_spec("key", SPEC)
    return folders


def test_a_store_is_its_owners_alone(street: Path, stranger: Stranger, tally):
    """A store that hpcburst makes is closed: a stranger neither reads nor changes what is in it."""
    root = street / "home" / "store"
    _prepared(root)
    for verb, paths in stranger.tries("search", root).items():
        tally.note("env store", f"{verb} a store of one's own", paths)


def test_a_store_that_others_may_read_is_not_theirs_to_change(street, stranger: Stranger, tally):
    """Where the owner lets others read his envs, they put nothing there, whatever his umask."""
    root = street / "home" / "read-by-all"
    root.mkdir(mode=0o755)
    _prepared(root)
    brought = stranger.tries("search", root)
    assert str(root / "envs") in brought["listed"], "others were to read there"
    tally.note("env store", "change of a store that may be read", brought["changed"])
    for name in ("envs", "locks", "pkgs"):
        swapped = stranger.tries("swap", root / name)["swapped"]
        tally.note("env store", f"swap of {name}", swapped)


def test_a_store_that_everybody_can_write_to_is_refused(street: Path, tally):
    """Envs are not built where everybody could put programs into them."""
    root = street / "home" / "public"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(EnvError, match="verybody may write"):
        _prepared(root)
    tally.note("env store", "a store that is everybody's", list(root.iterdir()))


def test_a_folder_of_a_store_that_everybody_can_write_to_is_refused(street: Path, tally):
    """Nor where one of its folders was left open to everybody."""
    root = street / "home" / "half-public"
    (root / "envs").mkdir(parents=True)
    root.chmod(0o755)
    (root / "envs").chmod(0o777)
    with pytest.raises(EnvError, match="verybody may write"):
        _prepared(root)
    tally.note("env store", "a folder that is everybody's", list((root / "envs").iterdir()))
