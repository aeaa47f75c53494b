"""Private places are private, and what must not outlive a run does not."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpcburst.comms import staging
from hpcburst.comms.staging import (
    OWNER_FILE,
    RunFolder,
    private_folder,
    process_started_at,
    scratch_folder,
    sweep_runs,
    write_private,
)
from hpcburst.errors import SiteError

DAY_S = 86_400


def _mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def umask():
    """Set the umask; it is put back after the test."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("bits", [0o000, 0o022, 0o077, 0o777])
def test_what_is_made_private_is_private_under_any_umask(tmp_path, umask, bits):
    """Folders are 0700 and files 0600, whatever the user's umask says."""
    umask(bits)
    folder = private_folder(tmp_path / "folder")
    write_private(folder / "key", b"secret")
    assert _mode(folder) == 0o700
    assert _mode(folder / "key") == 0o600 & ~bits


def test_a_readable_folder_of_ours_is_closed(tmp_path):
    """A folder others could read is closed before a secret goes into it."""
    (tmp_path / "folder").mkdir(mode=0o755)
    assert _mode(private_folder(tmp_path / "folder")) == 0o700


def _as_file(path):
    path.write_text("")


def _as_link(path):
    (path.parent / "real").mkdir(mode=0o700)
    path.symlink_to(path.parent / "real")


def _as_writable_by_others(path):
    path.mkdir()
    path.chmod(0o777)


def _as_strangers(path):
    path.mkdir(mode=0o700)
    try:
        os.chown(path, 12_345, 12_345)
    except PermissionError:
        pytest.skip("only root can give a folder away")


TRAPS = [_as_file, _as_link, _as_writable_by_others, _as_strangers]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_place_others_prepared_is_refused(tmp_path, trap):
    """A file, a link, or a folder others can write or own is refused, and left as it is."""
    place = tmp_path / "place"
    trap(place)
    before = place.lstat()
    with pytest.raises(SiteError, match="shared-root"):
        private_folder(place)
    assert place.lstat().st_mode == before.st_mode


def test_a_private_file_is_replaced_whole(tmp_path):
    """A private file is written aside and moved: no reader sees half, nothing else is left."""
    write_private(tmp_path / "key", b"old")
    with (tmp_path / "key").open("rb") as reader:
        write_private(tmp_path / "key", b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "key").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_private_file_does_not_follow_a_link(tmp_path):
    """A link in the way is replaced, what it points to is left alone."""
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "key").symlink_to(tmp_path / "target")
    write_private(tmp_path / "key", b"ours")
    assert (tmp_path / "target").read_text() == "theirs"
    assert not (tmp_path / "key").is_symlink()


def test_a_run_folder_keeps_logs_and_drops_secrets(tmp_path):
    """When a run ends its logs stay and its secrets go; closing again does nothing."""
    run = RunFolder.make(tmp_path / "shared")
    write_private(run.secret / "tls.key", b"secret")
    (run.logs / "1.log").write_text("hello")
    assert [_mode(path) for path in (run.path, run.secret, run.logs)] == [0o700] * 3
    run.close()
    run.close()
    assert not run.secret.exists()
    assert (run.logs / "1.log").exists()


def test_two_runs_never_share_a_folder(tmp_path):
    """Runs that start in the same second have folders of their own."""
    assert len({RunFolder.make(tmp_path).path for _ in range(20)}) == 20


def _run_of_a_dead_driver(root):
    code = (
        "import sys, pathlib; from hpcburst.comms.staging import RunFolder; "
        "print(RunFolder.make(pathlib.Path(sys.argv[1])).path)"
    )
    argv = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return RunFolder(Path(done.stdout.strip()))


def test_secrets_of_a_dead_driver_are_swept(tmp_path):
    """What a killed driver left behind is removed by the next run; its logs stay."""
    dead = _run_of_a_dead_driver(tmp_path)
    assert dead.secret.exists()
    assert sweep_runs(tmp_path, keep_days=1) == 1
    assert not dead.secret.exists()
    assert dead.logs.exists()
    assert sweep_runs(tmp_path, keep_days=1) == 0


def test_a_living_run_is_never_swept(tmp_path):
    """A run in progress keeps its secrets, however old it is."""
    run = RunFolder.make(tmp_path)
    os.utime(run.path, (0, 0))
    assert sweep_runs(tmp_path, keep_days=1) == 0
    assert run.secret.exists()


def _claim(run, **changed):
    owner = json.loads((run.path / OWNER_FILE).read_text())
    (run.path / OWNER_FILE).write_text(json.dumps({**owner, **changed}))


def test_a_pid_that_came_back_is_not_the_driver(tmp_path):
    """A new process with a dead driver's pid does not keep the dead driver's secrets alive."""
    run = RunFolder.make(tmp_path)
    _claim(run, started="1")
    assert sweep_runs(tmp_path, keep_days=1) == 1
    assert not run.secret.exists()


def test_a_run_on_another_node_is_left_alone(tmp_path):
    """Nobody can see from here whether a driver on another node lives: its run is left alone."""
    run = RunFolder.make(tmp_path)
    _claim(run, host="elsewhere", pid=1, started="1")
    assert sweep_runs(tmp_path, keep_days=30) == 0
    assert run.secret.exists()


@pytest.mark.parametrize("owner", [None, "", "{}", "[]", '{"pid": 1}'])
def test_a_run_half_made_is_left_alone_at_first(tmp_path, owner):
    """A run folder whose owner is not written yet belongs to a driver that starts just now."""
    run = RunFolder.make(tmp_path)
    if owner is None:
        (run.path / OWNER_FILE).unlink()
    else:
        (run.path / OWNER_FILE).write_text(owner)
    assert sweep_runs(tmp_path, keep_days=30) == 0
    os.utime(run.path, (run.path.stat().st_atime, run.path.stat().st_mtime - 3600))
    assert sweep_runs(tmp_path, keep_days=30) == 1


def test_old_runs_of_dead_drivers_go_altogether(tmp_path):
    """Logs and records are kept for as many days as the site says, and no longer."""
    dead = _run_of_a_dead_driver(tmp_path)
    os.utime(dead.path, (dead.path.stat().st_atime, dead.path.stat().st_mtime - 3 * DAY_S))
    sweep_runs(tmp_path, keep_days=2)
    assert not dead.path.exists()


def test_sweeping_where_nothing_is_does_nothing(tmp_path):
    """The first run on a machine finds nothing to sweep."""
    assert sweep_runs(tmp_path / "nowhere", keep_days=1) == 0


def test_a_process_is_named_by_pid_and_start():
    """The start time tells this process from any other that had its pid."""
    assert process_started_at(os.getpid()) == staging.process_started_at(os.getpid()) != ""
    assert process_started_at(2**22 + 1) == ""


def test_what_a_killed_pilot_left_on_the_node_is_removed_by_the_next(tmp_path):
    """A pilot killed outright leaves a folder; the next takes it away, and nothing else."""
    code = (
        "import os, sys; from pathlib import Path; "
        "from hpcburst.comms.staging import scratch_folder; "
        "print(scratch_folder(Path(sys.argv[1])), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    left = Path(done.stdout.strip())
    assert left.is_dir()
    stranger = tmp_path / "hpcburst-notes"
    stranger.mkdir()
    os.utime(stranger, (0, 0))

    mine = scratch_folder(tmp_path)
    also_mine = scratch_folder(tmp_path)

    assert not left.exists()
    assert mine.is_dir()
    assert also_mine.is_dir()
    assert mine.stat().st_mode & 0o777 == 0o700
    assert stranger.exists()


def test_a_shared_root_may_be_a_link_and_readable_by_a_group(tmp_path):
    """Centres link home folders, and envs may be shared for reading: neither is changed."""
    real = tmp_path / "real"
    real.mkdir()
    real.chmod(0o750)
    (tmp_path / "root").symlink_to(real)

    run = RunFolder.make(tmp_path / "root")

    assert _mode(real) == 0o750
    assert run.path.is_relative_to(real)
    assert _mode(run.path) == 0o700


def test_a_shared_root_that_others_can_write_to_is_refused(tmp_path):
    """Who can write there could put programs in the place of ours."""
    tmp_path.chmod(0o777)
    with pytest.raises(SiteError, match="others could use"):
        RunFolder.make(tmp_path)
