"""What a value may expect of the way to another Python and back."""

from __future__ import annotations

import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcburst.workers.guest import values

numpy = pytest.importorskip("numpy")

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)

DTYPES = st.sampled_from(
    [
        *"?",
        "i1",
        "<i2",
        ">i4",
        "i8",
        "u8",
        "f2",
        "f4",
        ">f8",
        "c16",
        "M8[ns]",
        "m8[s]",
        "S3",
        "U5",
        "V4",
    ]
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def there_and_back(value):
    payload, buffers = values.dumps(value)
    return values.loads(payload, [bytes(buffer) for buffer in buffers])


@given(PLAIN)
def test_plain_data_comes_back_equal(value):
    """Whatever Python's own containers hold arrives as it was."""
    assert there_and_back(value) == value


@st.composite
def arrays(draw):
    shape, dtype = draw(SHAPES), numpy.dtype(draw(DTYPES))
    count = int(numpy.prod(shape, dtype=int)) * dtype.itemsize
    raw = draw(st.binary(min_size=count, max_size=count))
    if dtype.kind == "?b":
        raw = bytes(byte & 1 for byte in raw)
    if dtype.kind == "U":
        raw = b"".join(bytes([byte & 127, 0, 0, 0]) for byte in raw[::4])
    array = numpy.frombuffer(raw, dtype).reshape(shape) if count else numpy.empty(shape, dtype)
    layout = draw(st.sampled_from(["as is", "fortran", "strided", "reversed"]))
    if layout == "fortran":
        return numpy.asfortranarray(array)
    if layout == "strided" and array.ndim:
        return array[::2]
    return array[::-1] if layout == "reversed" and array.ndim else array.copy()


@given(arrays())
@settings(max_examples=300)
def test_an_array_comes_back_the_same(array):
    """Bytes, dtype, shape and whether it may be written to survive, whatever the memory layout."""
    back = there_and_back(array)
    assert type(back) is numpy.ndarray
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    if array.nbytes:
        assert back.flags.writeable == array.flags.writeable


@given(arrays())
def test_a_numpy_scalar_comes_back_the_same(array):
    """A number of numpy keeps its type."""
    for scalar in array.reshape(-1)[:2]:
        back = there_and_back(scalar)
        assert type(back) is type(scalar)
        assert numpy.asarray(back).tobytes() == numpy.asarray(scalar).tobytes()


@pytest.mark.parametrize(
    "dtype",
    [
        [("a", "i4"), ("b", "f8")],
        {"names": ["x"], "formats": [(">f4", (2, 3))], "offsets": [4], "itemsize": 32},
        [("in", [("deep", "U3"), ("er", "M8[D]")])],
    ],
)
def test_structured_arrays_keep_their_fields(dtype):
    """Names, nesting, offsets and sub-arrays of a record survive."""
    array = numpy.zeros((2, 3), numpy.dtype(dtype))
    back = there_and_back(array)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    assert there_and_back(array[0, 0]).dtype == array.dtype


def test_arrays_of_objects_keep_their_objects():
    """An array of Python objects arrives with them, in place."""
    array = numpy.array([[1, "a"], [None, [2.5]]], dtype=object)
    for layout in (array, numpy.asfortranarray(array), array.T):
        back = there_and_back(layout)
        assert back.dtype == object
        assert back.tolist() == layout.tolist()


def test_a_mapped_file_travels_as_its_content(tmp_path):
    """A memory map arrives as an array: the node may not see the file."""
    mapped = numpy.memmap(tmp_path / "data", dtype="f4", mode="w+", shape=(3, 4))
    mapped[:] = 7
    back = there_and_back(mapped)
    assert type(back) is numpy.ndarray
    assert (back == 7).all()


def test_no_pickle_names_a_module_that_one_numpy_has_and_another_has_not():
    """What arrays and numbers become can be read by every numpy."""
    things = [
        numpy.arange(10),
        numpy.float64(2),
        numpy.array([None]),
        numpy.zeros(2, "i4,f8"),
        numpy.array("2020", "M8[D]"),
    ]
    payload, _ = values.dumps(things)
    assert b"numpy" not in payload


def test_large_buffers_stay_out_of_the_payload():
    """A large array is not copied into the payload; a small one is, and in_band keeps all there."""
    large, small = numpy.zeros(values.LARGE_BYTES, "u1"), numpy.zeros(10)
    payload, buffers = values.dumps([large, small])
    assert [buffer.nbytes for buffer in buffers] == [large.nbytes]
    assert len(payload) < 1000
    payload, buffers = values.dumps(large, in_band=True)
    assert not buffers
    assert numpy.array_equal(values.loads(payload), large)


@given(st.binary(max_size=300), st.sampled_from("BbHId"))
def test_a_memoryview_comes_back_with_its_shape(data, form):
    """What an env without numpy gets and gives is a memoryview; it keeps format and writability."""
    size = len(data) // 8 * 8
    for source in (data[:size], bytearray(data[:size])):
        view = memoryview(source).cast(form)
        back = there_and_back(view)
        assert back.tobytes() == view.tobytes()
        if size:
            assert (back.format, back.shape, back.readonly) == (form, view.shape, view.readonly)


def test_the_two_ends_read_each_other():
    """What the copy of this module in an env writes is read here, and the other way round."""
    payload, _ = values.dumps(numpy.arange(3.0))
    here, there = b"hpcburst.workers.guest.values", b"hpcburst_guest.values"
    assert here in payload
    swapped = payload.replace(bytes([len(here)]) + here, bytes([len(there)]) + there)
    frame = swapped.index(b"\x95") + 1
    length = len(swapped) - frame - 8
    swapped = swapped[:frame] + length.to_bytes(8, "little") + swapped[frame + 8 :]
    assert values.loads(swapped).tolist() == [0.0, 1.0, 2.0]


class Shared:
    """Known at both ends by another way than importing."""


def test_known_classes_travel_by_key():
    """The other end decides what a key means, and is asked before anything is imported."""

    class There:
        pass

    key_of = {Shared: (3,)}.get
    payload, _ = values.dumps(Shared(), key_of=lambda t: key_of(t) if isinstance(t, type) else None)

    def resolve(*key):
        if key == (3,):
            return There
        raise KeyError(key)

    assert isinstance(values.loads(payload, resolve=resolve), There)
    assert b"Shared" not in payload


def test_what_cannot_be_pickled_raises():
    """A lock does not travel."""
    with pytest.raises((TypeError, pickle.PicklingError), match="lock"):
        values.dumps(threading.Lock())


def test_a_local_class_is_named():
    """A class from inside a function is refused with a hint where to put it."""
    with pytest.raises(AttributeError, match="top of its file"):
        values.find("json", "loads.<locals>.Inner")
