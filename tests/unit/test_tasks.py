"""What users write about a task is read exactly, or refused in words they can act on."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from hpcburst.placement import Placement, Spread
from hpcburst.tasks import (
    START_S,
    Needs,
    Shape,
    needs,
    needs_of,
    read_memory_mb,
    read_needs,
    read_walltime_s,
)

BYTES = {"": 10**6, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@pytest.mark.parametrize(
    ("text", "mb"),
    [
        ("4GB", 4000),
        ("512 MiB", 537),
        ("1.5 GB", 1500),
        ("2T", 2_000_000),
        ("1g", 1000),
        ("100 KB", 1),
        (1500, 1500),
        (0.25, 1),
    ],
)
def test_memory_is_read_in_megabytes(text, mb):
    """Memory means what it says in decimal or binary units, rounded up to whole MB."""
    assert read_memory_mb(text) == mb


@given(st.integers(1, 10**9), st.sampled_from(sorted(BYTES)))
def test_memory_is_never_less_than_what_was_asked(number, unit):
    """A task gets at least the memory it asks for, and less than one MB more."""
    asked_mb = number * BYTES[unit] / 1e6
    got_mb = read_memory_mb(f"{number}{unit}")
    assert asked_mb * (1 - 1e-12) <= got_mb <= max(asked_mb, 1) * (1 + 1e-12) + 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        (" 5 Min ", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("01:30:00", 5400),
        ("2-12:00:00", 216_000),
        ("1d", 86_400),
        (90, 90),
        (0.5, 0.5),
        (timedelta(minutes=5), 300),
    ],
)
def test_walltime_is_read_in_seconds(text, seconds):
    """A walltime may be written as on any batch system, in words, or as a number of seconds."""
    assert read_walltime_s(text) == seconds


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_clock_and_unit_forms_of_a_walltime_agree(days, hours, minutes, seconds):
    """The clock form of batch systems and the form in units mean the same time."""
    clock = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    assert read_walltime_s(clock) == read_walltime_s(f"{days}d{hours}h{minutes}m{seconds}s")


NOT_AMOUNTS = [
    "",
    "0",
    "-1",
    "-4GB",
    "4 XB",
    "many",
    "5 parsecs",
    "10:00",
    "4GB; rm -rf ~",
    "inf",
    "nan",
    None,
    True,
    "1\n2",
]


@pytest.mark.parametrize("read", [read_memory_mb, read_walltime_s])
@pytest.mark.parametrize("value", NOT_AMOUNTS)
def test_what_is_no_amount_is_refused(read, value):
    """Anything that is not a positive amount is refused, and the answer shows how to write one."""
    with pytest.raises(RequestError, match=r"(?i)write"):
        read(value)


@given(st.one_of(st.text(max_size=40), st.floats(), st.integers()))
def test_reading_amounts_never_breaks(value):
    """Whatever is written, the answer is a positive amount or a RequestError."""
    for read in (read_memory_mb, read_walltime_s):
        try:
            assert read(value) > 0
        except RequestError as refusal:
            answer = str(refusal)
            assert len(answer) < 400


def test_needs_leaves_the_function_as_it_is():
    """A function with `@needs` is the same function: it can be called and tested as before."""

    def double(number):
        return 2 * number

    marked = needs(env="envs/stats.yaml", cores=2, memory="4GB", walltime="5m")(double)
    assert marked is double
    assert marked(21) == 42
    assert needs_of(marked) == Needs(
        "envs/stats.yaml",
        cores=2,
        memory_mb=4000,
        walltime_s=300.0,
        folder=str(Path(__file__).parent),
    )


def test_a_function_without_needs_asks_for_one_core():
    """Who states nothing gets one core and the site's defaults."""
    assert needs_of(len) == Needs() == Needs(cores=1)


def test_fields_left_out_or_none_are_the_sites_to_decide():
    """`None` and absence mean the same: what the site gives by default."""
    assert read_needs({"memory": None, "walltime": None, "queue": None}) == Needs()


@pytest.mark.parametrize("call", [needs, Shape.of])
def test_a_misspelt_field_is_named_beside_the_right_ones(call):
    """A misspelt field is refused at import of the flow file, and the answer lists the fields."""
    with pytest.raises(RequestError, match=r"'mem'.*memory"):
        call(mem="4GB")


@pytest.mark.parametrize("field", ["cores", "gpus"])
@pytest.mark.parametrize("value", [-1, 1.5, "2", True, float("nan")])
@pytest.mark.parametrize("call", [needs, Shape.of])
def test_counts_are_whole_numbers(call, field, value):
    """Cores and GPUs are whole numbers; anything else is refused before it is queued."""
    with pytest.raises(RequestError, match=field):
        call(**{field: value})


@pytest.mark.parametrize("call", [needs, Shape.of])
def test_no_cores_is_no_request(call):
    """A task or a pilot without a core is refused."""
    with pytest.raises(RequestError, match="cores"):
        call(cores=0)


counts = st.integers(1, 64)
any_needs = st.builds(
    Needs,
    cores=counts,
    memory_mb=st.none() | st.integers(1, 10**6),
    gpus=st.integers(0, 4),
    walltime_s=st.none() | st.floats(1, 10**6),
    queue=st.sampled_from([None, "short", "long"]),
)
any_shape = st.builds(
    Shape,
    cores=counts,
    memory_mb=st.integers(1, 10**6),
    gpus=st.integers(0, 4),
    walltime_s=st.floats(1, 10**6),
    queue=st.sampled_from([None, "short", "long"]),
)


@given(any_needs, any_shape, counts)
def test_a_larger_shape_holds_what_a_smaller_one_holds(asked, shape, more):
    """More of anything never makes a shape unfit for a task."""
    larger = replace(
        shape,
        cores=shape.cores + more,
        memory_mb=shape.memory_mb + more,
        gpus=shape.gpus + more,
        walltime_s=shape.walltime_s + more,
    )
    assert not shape.holds(asked) or larger.holds(asked)


def test_a_shape_leaves_a_task_the_whole_of_its_walltime():
    """A pilot's start does not eat the time a task was promised."""
    assert not Shape(walltime_s=300).holds(Needs(walltime_s=300))
    assert Shape(walltime_s=300 + START_S).holds(Needs(walltime_s=300))


@given(any_needs, any_shape)
def test_requests_travel_and_serve_as_keys(asked, shape):
    """Needs and shapes are plain data: they survive pickling and serve as dictionary keys."""
    copies = pickle.loads(pickle.dumps((asked, shape)))
    assert copies == (asked, shape)
    assert len({asked, shape, *copies}) == 2


def test_a_shape_reads_like_a_sentence():
    """A shape in a message says what a job asks for."""
    shape = Shape.of(cores=4, memory="8GB", gpus=1, walltime="10m", queue="short")
    assert str(shape) == "4 core, 8000 MB, 1 GPU, 10 min on short"


def test_a_shape_comes_back_from_its_record():
    """What runs keep of shapes as JSON is read as the same shape, wherever and however wide."""
    shape = Shape(2, 500, placement=Placement(account="a", qos="b"), spread=Spread(2, 8))
    read = Shape(**json.loads(json.dumps(asdict(shape))))
    assert read == shape
    assert {read: 1}[shape] == 1
    assert shape != Shape(2, 500)


def test_only_pilots_of_the_same_placement_hold_a_task():
    """A task is not charged to another account than its own, stated or not."""
    placed = Placement(account="physics")
    assert Shape(placement=placed).holds(Needs(placement=placed))
    assert not Shape().holds(Needs(placement=placed))
    assert not Shape(placement=placed).holds(Needs())
    assert str(placed) in str(Shape(placement=placed))
