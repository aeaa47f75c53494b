"""Large values stay on the shared file system: tasks pass them on, the flow never holds them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prefect import allow_failure, flow, task, unmapped
from prefect.cache_policies import INPUTS
from prefect.futures import as_completed

from hpcburst import BurstCluster, needs

BIG = 5_000_000
"""Bytes that are well above what comes home."""


@dataclass
class Picture:
    """Of the flow file: who reads one needs the class."""

    pixels: bytearray


@task
def make(fill=1, size=BIG):
    return bytearray([fill]) * size


@task
def first_and_size(value):
    return value[0], len(value), os.getpid()


@task
def take(values, index=0):
    return [value[index] for value in values]


@task
def paint():
    return Picture(bytearray(b"7") * BIG)


@task
def looks(picture):
    return picture.pixels[0]


def files(cluster: BurstCluster) -> list[Path]:
    folder = cluster.run_folder / "results"
    return [path for path in folder.iterdir() if path.is_file()] if folder.exists() else []


def test_a_large_value_is_passed_by_reference(burst, module_cluster):
    """A task gets another's large value from a file closed to others; asked, the flow gets it."""

    @flow
    def pipeline():
        before = set(files(module_cluster))
        made = make.submit(3)
        told = first_and_size.submit(made).result()
        kept = set(files(module_cluster)) - before
        value = made.result()
        return told, [oct(path.stat().st_mode & 0o777) for path in kept], bytes(value[:3])

    (fill, size, pid), modes, start = burst(pipeline)
    assert (fill, size, start) == (3, BIG, b"\3\3\3")
    assert pid != os.getpid()
    assert modes == ["0o600"]
    folder = module_cluster.run_folder / "results"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_small_values_come_home(burst, module_cluster):
    """What is small needs no file."""

    @flow
    def pipeline():
        before = set(files(module_cluster))
        made = make.submit(1, size=100_000)
        made.wait()
        return len(made.result()), set(files(module_cluster)) - before

    assert burst(pipeline) == (100_000, set())


def test_wherever_a_future_may_stand(burst):
    """In lists, under `unmapped` and `allow_failure`, as what is mapped over: values arrive."""

    @flow
    def pipeline():
        one, two = make.submit(1), make.submit(2)
        return (
            take.submit([one, two]).result(),
            take.submit(values=(one,), wait_for=[two]).result(),
            take.map(unmapped([one, two]), [0, 5]).result(),
            first_and_size.submit(allow_failure(two)).result()[:2],
            [row[0] for row in first_and_size.map([one, two]).result()],
        )

    assert burst(pipeline) == ([1, 2], [1], [[1, 2], [1, 2]], (2, BIG), [1, 2])


def test_a_large_list_is_mapped_over(burst):
    """`map` over a future of many large items reads it in the flow, as `map` must."""

    @task
    def make_list():
        return [bytearray([n]) * (BIG // 2) for n in range(3)]

    @flow
    def pipeline():
        return [row[:2] for row in first_and_size.map(make_list.submit()).result()]

    assert burst(pipeline) == [(n, BIG // 2) for n in range(3)]


def test_states_and_direct_calls_see_the_value(burst):
    """`return_state`, `future.state`, `as_completed` and a direct call of a task give values."""

    @flow
    def pipeline():
        state = make.submit(4, return_state=True)
        future = make.submit(5)
        (done,) = as_completed([future])
        direct = first_and_size(future)
        return state.name, state.result()[0], done.state.result()[0], direct[:2], direct[2]

    name, *fills, direct, pid = burst(pipeline)
    assert (name, fills, direct) == ("Completed", [4, 5], (5, BIG))
    assert pid == os.getpid()


def test_async_flows_see_the_value(burst):
    """In an async flow, values are read by `await state.result()` and by futures alike."""

    @flow
    async def pipeline():
        future = make.submit(6)
        future.wait()
        passed = first_and_size.submit(future).result()[0]
        return (await future.state.aresult())[0], future.result()[0], passed

    assert asyncio.run(burst(pipeline)) == (6, 6, 6)


def test_what_a_flow_returns_can_be_read_when_it_has_ended(burst):
    """A flow may return a future of a large value: its caller gets the value."""

    @flow
    def pipeline():
        return make.submit(8)

    assert burst(pipeline, return_state=True).result().result()[0] == 8


def test_a_class_of_the_flow_file_in_a_large_value(burst):
    """A body that does not know the class of a large value gets it all the same."""

    @flow
    def pipeline():
        return looks.submit(paint.submit()).result()

    assert burst(pipeline) == ord("7")


def test_a_kept_value_is_not_changed_by_who_reads_it(burst):
    """Each task has the value to itself: what one writes into it, no other one sees."""

    @task
    def spoil(value):
        value[0] = 99
        return value[0]

    @flow
    def pipeline():
        made = make.submit(1)
        return spoil.submit(made).result(), spoil.submit(made).result(), made.result()[0]

    assert burst(pipeline) == (99, 99, 1)


def test_prefects_own_persistence_has_the_value(burst):
    """A result that Prefect persists, or hands to a hook, is the value; the next run is cached."""
    seen = []

    def hook(a_task, run, state):
        seen.append(state.result()[0])

    hooked = make.with_options(on_completion=[hook], name="hooked")
    kept = make.with_options(persist_result=True, cache_policy=INPUTS, name="kept")

    @flow
    def pipeline():
        states = [kept.submit(9, return_state=True), hooked.submit(2, return_state=True)]
        return [(state.name, state.result()[0]) for state in states]

    assert burst(pipeline) == [("Completed", 9), ("Completed", 2)]
    assert burst(pipeline)[0] == ("Cached", 9)
    assert seen == [2, 2]


def test_inputs_of_equal_content_hit_the_cache(burst):
    """A cache that looks at inputs knows a large one by what it holds, not by its file."""
    looking = first_and_size.with_options(persist_result=True, cache_policy=INPUTS)

    @flow
    def pipeline(fill):
        return looking.submit(make.submit(fill), return_state=True).name

    assert [burst(pipeline, fill) for fill in (21, 21, 22)] == ["Completed", "Cached", "Completed"]


def test_a_command_gets_the_value(burst):
    """A program gets the text of a value, as always; one too long for a command line is refused."""

    @task
    def text():
        return "x" * BIG

    @task
    @needs(command=["printf", "%.3s", "{word}"])
    def show(word): ...

    @flow
    def pipeline():
        return show.submit(text.submit(), return_state=True).message

    assert "Argument list too long" in burst(pipeline)


SCRIPT = """
import json, resource, sys
from prefect import flow, task
from prefect_hpcburst import BurstTaskRunner

SIZE = int(sys.argv[2])

@task
def make(n):
    return bytearray([n]) * SIZE

@task
def look(value):
    return value[0], len(value)

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

@flow(task_runner=BurstTaskRunner(max_jobs=1, site={"shared-root": sys.argv[1]}))
def pipeline():
    look.submit(make.submit(0)).wait()
    before = peak_mb()
    made = make.map(range(1, 21))
    told = look.map(made).result()
    return told, before, peak_mb()

if __name__ == "__main__":
    told, before, after = pipeline()
    print("TOLD " + json.dumps([told, before, after]))
"""


def test_the_flow_does_not_grow_by_what_passes(prefect_api, script, shared_root):
    """Twenty large values go from task to task, and the flow's memory stays as it was."""
    size = (200 if os.environ.get("LONG") else 20) * 10**6
    done = subprocess.run(
        [sys.executable, str(script(SCRIPT)), str(shared_root), str(size)],
        env={**os.environ, "PREFECT_API_URL": prefect_api},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    told, before_mb, after_mb = json.loads(line.removeprefix("TOLD "))
    assert told == [[n, size] for n in range(1, 21)]
    assert after_mb - before_mb < 40, "of 400 MB that passed"
    left = [path for path in shared_root.glob("runs/*/results/*") if path.is_file()]
    assert left == []
