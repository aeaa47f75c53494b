"""Values in files: what is written is what is read, and nothing half-written is ever seen."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError, RunError
from hpcburst.references import Reference
from hpcburst.results import Stored
from hpcburst.workers.guest import stored, values


@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=5))
def test_what_is_written_is_what_is_read(tmp_path_factory, payload, buffers):
    """Payload and buffers come back as they were, each at a place where arrays may begin."""
    folder = tmp_path_factory.mktemp("kept")
    path, size, _ = stored.write(str(folder), payload, buffers)
    read, views = stored.read(path)
    assert (bytes(read), [bytes(view) for view in views]) == (payload, buffers)
    assert Path(path).stat().st_size == size
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in folder.iterdir()] == [Path(path).name]


def test_equal_values_have_equal_digests(tmp_path):
    """A digest tells values apart, also those that differ in where one part ends."""
    rows = [(b"ab", [b"c"]), (b"ab", [b"c"]), (b"a", [b"bc"]), (b"abc", [])]
    digests = [stored.write(str(tmp_path), *row)[2] for row in rows]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_view_is_private(tmp_path):
    """Who writes into what was read changes neither the file nor what others read."""
    path, _, _ = stored.write(str(tmp_path), b"", [b"abc"])
    stored.read(path)[1][0][:1] = b"X"
    assert bytes(stored.read(path)[1][0]) == b"abc"


@pytest.mark.parametrize("cut", [0, 3, 20, -1])
def test_a_cut_off_file_is_told(tmp_path, cut):
    """A file that lost its end is no value, and no reader runs past it."""
    path, _, _ = stored.write(str(tmp_path), b"payload", [b"x" * 200])
    with Path(path).open("r+b") as file:
        file.truncate(Path(path).stat().st_size + cut if cut < 0 else cut)
    with pytest.raises(ValueError, match=r"cut off|no kept value"):
        stored.read(path)


def test_no_room_leaves_nothing(tmp_path, monkeypatch):
    """When the disk is full in the middle, no part of the value stays."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "_write_all", full)
    with pytest.raises(OSError, match="No space"):
        stored.write(str(tmp_path), b"payload", [])
    assert list(tmp_path.iterdir()) == []


def reference(folder, value):
    return Reference(Stored(*stored.write(str(folder), *values.dumps(value))), "make")


def test_a_reference_is_read_by_who_gets_it(tmp_path):
    """Arguments with a reference in them arrive as the value itself."""
    value = {"table": bytearray(b"1" * 100_000), "name": "x"}
    held = reference(tmp_path, value)
    payload, buffers = values.dumps(((held.travelling(), 1), {}))
    assert len(payload) < 1000
    assert values.loads(payload, buffers) == ((value, 1), {})
    assert held.load() == value


def test_the_file_goes_with_the_last_reference(tmp_path):
    """The file is there as long as somebody holds the reference, and not longer."""
    held = reference(tmp_path, [1, 2])
    again = held
    del held
    assert again.load() == [1, 2]
    del again
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_value_whose_file_is_gone(tmp_path):
    """A file that somebody removed is told as such, with the task that made it."""
    held = reference(tmp_path, [1, 2])
    Path(held.stored.path).unlink()
    with pytest.raises(RunError, match=r"'make'.*gone"):
        held.load()


def test_a_pickled_reference_is_known_by_its_content_alone(tmp_path):
    """Equal values give equal keys of caches; nobody reads a file through a pickle."""
    one, two, other = (reference(tmp_path, value) for value in ([1], [1], [2]))
    assert pickle.dumps(one) == pickle.dumps(two) != pickle.dumps(other)
    with pytest.raises(RequestError, match="Only the process"):
        pickle.loads(pickle.dumps(one))
