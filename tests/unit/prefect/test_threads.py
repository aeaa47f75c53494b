"""Engine threads: calls in order, no more threads than allowed, and an end that does not wait."""

from __future__ import annotations

import threading
import time

import pytest

from prefect_hpcburst.threads import EngineThreads
from support.processes import wait_until


@pytest.fixture
def pool():
    threads = EngineThreads(2)
    yield threads
    threads.hurry(0)
    threads.shutdown(cancel_futures=True)


def test_values_and_errors_come_back(pool):
    """A call's value, or whatever it raised, is in its future."""

    def stop():
        raise KeyboardInterrupt

    assert pool.submit(divmod, 7, 2).result(5) == (3, 1)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(stop).result(5)
    assert pool.submit(int, "4").result(5) == 4


def test_no_more_threads_than_the_limit(pool):
    """Calls beyond the limit wait, and begin in the order they were submitted."""
    begun, gate = [], threading.Event()

    def work(number):
        begun.append(number)
        gate.wait(10)

    futures = [pool.submit(work, number) for number in range(6)]
    wait_until(lambda: len(begun) == 2, "the start of two calls")
    gate.set()
    for future in futures:
        future.result(5)
    assert begun[:2] == [0, 1]
    assert sorted(begun) == list(range(6))


def test_an_idle_thread_is_used_again(pool):
    """One call after the other needs one thread."""
    names = {pool.submit(lambda: threading.current_thread().name).result(5) for _ in range(1)}
    wait_until(lambda: pool._idle._value == 1, "the thread to be idle")
    names.add(pool.submit(lambda: threading.current_thread().name).result(5))
    assert len(names) == 1


def test_shutdown_waits_for_what_runs_and_cancels_what_waits(pool):
    """A pool that is shut down ends the calls that run, and never begins the others."""
    gate = threading.Event()
    running = [pool.submit(gate.wait, 10) for _ in range(2)]
    waiting = pool.submit(int)
    threading.Timer(0.2, gate.set).start()
    pool.shutdown(cancel_futures=True)
    assert [future.result(0) for future in running] == [True, True]
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="has ended"):
        pool.submit(int)


def test_a_hurried_shutdown_does_not_wait_for_sleepers(pool):
    """After `hurry`, a call that sleeps holds neither the shutdown nor the process."""
    gate = threading.Event()
    pool.submit(gate.wait, 60)
    pool.hurry(0.1)
    since = time.monotonic()
    pool.shutdown(cancel_futures=True)
    assert time.monotonic() - since < 5
    assert all(thread.daemon for thread in pool._threads)
    gate.set()
