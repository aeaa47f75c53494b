"""Many builders: who dies, stands still or comes late does no harm to the env of the others."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpcburst.envs.building import publish
from hpcburst.envs.building.publish import (
    STALE_S,
    claim,
    discard,
    read_claim,
    stage_for,
    staged,
    sweep,
)
from hpcburst.errors import EnvError

LONG_AGO = 1_000_000_000


@pytest.fixture
def envs(tmp_path):
    """The folders of a store."""
    (tmp_path / "envs").mkdir()
    (tmp_path / "locks").mkdir()
    return tmp_path / "envs"


def publish_one(final: Path, text: str) -> bool:
    """Build an env that holds one file, and publish it."""
    with staged(final, stage_for(final)) as give_name:
        next(final.parent.glob(".b-*")).joinpath("file").write_text(text)
        return give_name()


@pytest.mark.parametrize("name", ["0123456789abcdef0123", "e", "d030a9b03360dd7db6e5871ec1f0eb36_"])
def test_a_stage_is_hidden_beside_its_env(tmp_path, name):
    """A stage has a new hidden name each time, as long as the env's if that is long enough."""
    one, two = stage_for(tmp_path / name), stage_for(tmp_path / name)
    assert one != two
    assert one.parent == tmp_path
    assert one.name.startswith(".b-")
    assert len(one.name) == max(len(name), 12)


def test_the_first_to_publish_wins(envs):
    """A published env is never replaced: whoever comes second is told so and leaves nothing."""
    final = envs / "0123456789abcdef0123"
    assert publish_one(final, "first")
    assert not publish_one(final, "second")
    assert (final / "file").read_text() == "first"
    assert list(envs.iterdir()) == [final]


def test_a_failed_build_leaves_nothing(envs):
    """Whatever goes wrong while building, the stage is gone afterwards."""
    final = envs / "0123456789abcdef0123"
    with pytest.raises(KeyboardInterrupt), staged(final, stage_for(final)):
        raise KeyboardInterrupt
    assert list(envs.iterdir()) == []


def test_a_builder_that_was_taken_for_dead_publishes_nothing(envs):
    """Who was swept while it stood still must not publish the half env it goes on to write."""
    final = envs / "0123456789abcdef0123"
    stage = stage_for(final)
    with staged(final, stage) as give_name:
        discard(stage)
        stage.mkdir()
        (stage / "half").touch()
        with pytest.raises(EnvError, match="took it for dead"):
            give_name()
    assert list(envs.iterdir()) == []


def test_only_cold_stages_are_swept(envs):
    """Stages without a heartbeat go; warm ones, envs and other people's folders stay."""
    cold, warm = stage_for(envs / ("0" * 20)), stage_for(envs / ("1" * 20))
    for path in (cold, warm, envs / ".hidden", envs / ("2" * 20)):
        path.mkdir()
    for path in (cold, envs / ".hidden", envs / ("2" * 20)):
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert sweep(envs, envs.parent / "locks") == [cold]
    assert {path.name for path in envs.iterdir()} == {warm.name, ".hidden", "2" * 20}


def held_elsewhere(path: Path, stage: Path) -> None:
    """A claim of a process of this machine that has ended."""
    code = (
        "import sys; from pathlib import Path; from hpcburst.envs.building import publish\n"
        "assert publish._take(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(stage)], check=True)


def test_the_claim_of_a_dead_process_is_taken_over_at_once(envs):
    """A builder that died on this machine is not waited for, and its stage is swept."""
    path = envs.parent / "locks/key.claim"
    old = stage_for(envs / ("0" * 20))
    old.mkdir()
    held_elsewhere(path, old)
    assert read_claim(path).stage == str(old)
    waited = []
    with claim(path, stage_for(old), done=lambda: False, told=waited.append) as mine:
        assert mine
        assert not old.exists()
        assert read_claim(path).pid == os.getpid()
    assert waited == []
    assert not path.exists()


def test_the_claim_of_another_node_is_taken_over_when_it_is_cold(envs):
    """Another node's builder is dead when its claim has had no heartbeat for a minute."""
    path = envs.parent / "locks/key.claim"
    path.write_text('{"host": "far", "kernel": "x", "pid": 1, "started": "1", "stage": ""}')
    os.utime(path, (LONG_AGO, LONG_AGO))
    with claim(path, envs / "s", done=lambda: False, told=lambda _: None) as mine:
        assert mine


def test_a_living_builder_is_waited_for(envs):
    """While another node builds, we wait and say for whom; then there is nothing to do."""
    path = envs.parent / "locks/key.claim"
    path.write_text('{"host": "far", "kernel": "x", "pid": 1, "started": "1", "stage": ""}')
    done = threading.Event()
    waited = []

    def told(host: str) -> None:
        waited.append(host)
        done.set()

    with claim(path, envs / "s", done=done.is_set, told=told) as mine:
        assert not mine
    assert waited == ["far"]
    assert path.exists(), "a claim of another builder is not ours to take away"


def test_claims_and_stages_are_kept_warm(envs, monkeypatch):
    """A build may last longer than the time after which a builder counts as dead."""
    monkeypatch.setattr(publish, "BEAT_S", 0.01)
    path = envs.parent / "locks/key.claim"
    final = envs / ("0" * 20)
    stage = stage_for(final)
    with claim(path, stage, done=lambda: False, told=lambda _: None), staged(final, stage):
        for warm in (path, stage):
            os.utime(warm, (LONG_AGO, LONG_AGO))
            beaten = threading.Event()
            for _ in range(500):
                if warm.stat().st_mtime > LONG_AGO + STALE_S:
                    break
                beaten.wait(0.01)
            assert warm.stat().st_mtime > LONG_AGO + STALE_S, f"no heartbeat on {warm}"
