"""What a body says is told in its order, whenever it is read."""

from __future__ import annotations

import os
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from hpcburst.results import Line
from hpcburst.workers.guest_lines import LINE_CHARS, Transcript

MARKED = "0a1b2c3d"
NAMES = ("stdout", "stderr")


@contextmanager
def pipes():
    """Two pipes: a transcript of their ends to read, and the ends to write."""
    ends = [os.pipe() for _ in NAMES]
    for reading, _ in ends:
        os.set_blocking(reading, False)
    transcript = Transcript({reading: name for (reading, _), name in zip(ends, NAMES, strict=True)})
    transcript.expect(MARKED)
    try:
        yield transcript, ends
    finally:
        for end in ends:
            for descriptor in end:
                os.close(descriptor)


TEXT = st.text("abc äß€\0:", max_size=8)
SAYS = st.lists(st.tuples(st.sampled_from([*NAMES, "INFO"]), TEXT), max_size=12)


def as_the_guest_does(says):
    """What goes into the two pipes, and the log records with their numbers."""
    streams, logs, number, speaker = [b"", b""], [], 0, ""
    for who, text in says:
        changed = speaker not in ("", who)
        if who == "INFO" or changed:
            number += 1
            kind = "L" if who == "INFO" else ""
            streams = [stream + f"\0{MARKED}:{number}{kind}\0".encode() for stream in streams]
        if who == "INFO":
            logs.append((number, text))
            speaker = ""
        else:
            speaker = who
            streams[NAMES.index(who)] += text.encode() + b"\n"
    return streams, logs


@given(SAYS, st.data())
def test_lines_and_records_come_in_the_order_they_were_said(says, data):
    """However the bytes and records trickle in, they are told in order, once, and without marks."""
    streams, logs = as_the_guest_does(says)
    told = []
    with pipes() as (transcript, ends):
        transcript.begin(lambda line: told.append((line.level, line.text)))
        while any(streams) or logs:
            what = data.draw(st.sampled_from([0, 1, 2]))
            if what == 2 and logs:
                number, text = logs.pop(0)
                transcript.log(number, Line(text, "INFO"))
            elif what < 2 and streams[what]:
                size = data.draw(st.integers(1, len(streams[what])))
                os.write(ends[what][1], streams[what][:size])
                streams[what] = streams[what][size:]
                assert transcript.read(ends[what][0])
            assert told == says[: len(told)]
        transcript.end()
    assert told == says


def test_a_line_without_an_end_is_told_at_the_end():
    """Half a line, half a character and what looks like half a mark are not lost."""
    told = []
    with pipes() as (transcript, ends):
        transcript.begin(lambda line: told.append(line.text))
        os.write(ends[0][1], "ä".encode() + b"\xc3")
        os.write(ends[1][1], f"\0{MARKED}:".encode())
        for reading, _ in ends:
            transcript.read(reading)
        assert told == []
        transcript.end()
    assert told == ["ä\ufffd", f"\0{MARKED}:"]


def test_nothing_of_one_call_is_told_in_the_next():
    """What is read between two calls belongs to nobody, and leaves no trace."""
    told = []
    with pipes() as (transcript, ends):
        transcript.begin(lambda line: told.append(line.text))
        os.write(ends[0][1], b"one")
        transcript.read(ends[0][0])
        transcript.end()
        os.write(ends[0][1], b"late\nla")
        transcript.read(ends[0][0])
        transcript.begin(lambda line: told.append(line.text))
        os.write(ends[0][1], b"two\n")
        transcript.read(ends[0][0])
        transcript.end()
    assert told == ["one", "two"]


def test_progress_bars_and_endless_lines_are_bounded():
    """A bar that writes over itself is its last state; a line without end is cut."""
    told = []
    with pipes() as (transcript, ends):
        transcript.begin(lambda line: told.append(line.text))
        os.write(ends[0][1], b" 10%\r 50%\r100%\n")
        os.write(ends[1][1], b"x" * 60_000)
        for reading, _ in ends:
            transcript.read(reading)
        os.write(ends[1][1], b"x" * 10_000)
        transcript.read(ends[1][0])
        transcript.end()
    assert told == ["100%", "x" * LINE_CHARS]


def test_the_last_errors_are_kept_without_marks():
    """What a dying interpreter said last is there, clean, also when nobody listened to lines."""
    with pipes() as (transcript, ends):
        transcript.begin(lambda _: None)
        os.write(ends[1][1], f"first\0{MARKED}:1\0 and last\n".encode())
        transcript.read(ends[1][0])
        transcript.end()
        assert transcript.last_errors == "first and last"
