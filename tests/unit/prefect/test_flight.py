"""A flight: envs are built once beside the flow, and a stop wakes whoever waits."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future

import pytest

from hpcburst.errors import EnvError
from hpcburst.tasks import Env, Needs
from prefect_hpcburst.flight import Flight
from support.processes import wait_until

LOGGER = logging.getLogger("test")
STATS = Needs(env="stats.yaml")


class SlowEnvs:
    """In place of a cluster: builds envs when it is let, and counts."""

    def __init__(self):
        self.let, self.built, self.launched, self.closed = threading.Event(), [], [], 0

    def env_for(self, needs):
        self.built.append(needs.env)
        self.let.wait(20)
        if needs.env == "bad.yaml":
            raise EnvError("bad.yaml was read", "it is not right")
        return Env(key=needs.env, prefix="/none")

    def env_key_for(self, needs):
        return f"key of {needs.env}"

    def launch(self, *_):
        self.launched.append(Future())
        return self.launched[-1]

    def close(self, **_):
        self.closed += 1


@pytest.fixture
def cluster():
    cluster = SlowEnvs()
    yield cluster
    cluster.let.set()


@pytest.fixture
def flight(cluster):
    return Flight(cluster, owned=False, logger=LOGGER)


def in_thread(call):
    future = Future()

    def run():
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_an_env_is_built_once_for_all_who_need_it(flight, cluster):
    """Tasks that need one env, with whatever resources, cause one build."""
    asked = [in_thread(lambda n=n: flight.env(Needs(env="stats.yaml", cores=n))) for n in (1, 2, 3)]
    cluster.let.set()
    assert {future.result(10).key for future in asked} == {"stats.yaml"}
    assert cluster.built == ["stats.yaml"]


def test_a_bad_env_fails_those_who_need_it(flight, cluster):
    """An env that cannot be built is told to its tasks, and others are built all the same."""
    cluster.let.set()
    with pytest.raises(EnvError, match="not right"):
        flight.env(Needs(env="bad.yaml"))
    assert flight.env(STATS).key == "stats.yaml"


def test_no_env_needs_no_build(flight, cluster):
    """A task without an env has the driver's Python at once."""
    assert flight.env(Needs()) is None
    assert cluster.built == []


def test_modules_are_part_of_an_env(flight, cluster):
    """Other modules are another env, and modules need no conda env beside them."""
    cluster.let.set()
    for wanted in (("gcc/13",), ("gcc/14",), ("gcc/13",)):
        assert flight.env(Needs(env="stats.yaml", modules=wanted)).key == "stats.yaml"
    assert cluster.built == ["stats.yaml"] * 2
    assert flight.env(Needs(modules=("gcc/13",))) is not None


def test_a_stop_wakes_who_waits_for_an_env(flight, cluster):
    """A flow that is stopped while an env is being built does not wait for the build."""
    waiting = in_thread(lambda: flight.env(STATS))
    wait_until(lambda: cluster.built, "the start of the build")
    flight.stop()
    with pytest.raises(asyncio.CancelledError):
        waiting.result(5)


def test_a_stop_withdraws_bodies_and_refuses_new_ones(flight, cluster):
    """Bodies on their way are withdrawn, and no further one is sent."""
    future = flight.launch(None, lambda _: None)
    waiting = in_thread(lambda: flight.outcome(future))
    flight.stop()
    with pytest.raises(asyncio.CancelledError):
        waiting.result(5)
    assert cluster.launched[0].cancelled()
    with pytest.raises(asyncio.CancelledError):
        flight.launch(None, lambda _: None)
    assert len(cluster.launched) == 1


@pytest.mark.parametrize(("owned", "times"), [(True, 1), (False, 0)])
def test_only_its_own_cluster_is_closed(owned, times):
    """Closing a flight closes a cluster that was made for it, and leaves one that was given."""

    class Recorded(SlowEnvs):
        class record:  # noqa: N801
            text = staticmethod(lambda: "1 task on 1 pilot\n")

    cluster = Recorded()
    Flight(cluster, owned=owned, logger=LOGGER).close()
    assert cluster.closed == times


def test_large_arguments_wait_for_room(flight, monkeypatch):
    """Bodies with large arguments wait until others have ended; one alone never waits."""
    monkeypatch.setattr("prefect_hpcburst.flight.FREIGHT_BYTES", 100)
    assert flight.has_room(1000)
    with flight.room_for(1000):
        assert not flight.has_room(1)
        entered = threading.Event()

        def second():
            with flight.room_for(60):
                entered.set()

        waiting = in_thread(second)
        assert not entered.wait(0.1)
    waiting.result(10)
    assert entered.is_set()
    assert flight.has_room(100)


def test_a_stop_wakes_who_waits_for_room(flight, monkeypatch):
    """A flow that is stopped does not wait for room."""
    monkeypatch.setattr("prefect_hpcburst.flight.FREIGHT_BYTES", 100)

    def second():
        with flight.room_for(60):
            raise AssertionError("there was no room")

    with flight.room_for(90):
        waiting = in_thread(second)
        flight.stop()
        with pytest.raises(asyncio.CancelledError):
            waiting.result(10)
