"""Command templates: arguments stay data, and what is not plain is refused when it is written."""

from __future__ import annotations

import shlex
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import RequestError
from hpcburst.tasks import Needs, Shape, needs, needs_of, read_needs
from hpcburst.templates import arguments_of, fields_of, filled, read_words

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
plain_words = texts.filter(lambda text: "{" not in text and "}" not in text)


@given(st.lists(texts, min_size=1))
def test_a_list_argument_becomes_as_many_words(values):
    """Whatever text a list holds, each becomes one word, letter by letter."""
    assert filled(("cat", "{files}"), {"files": values}) == ("cat", *values)


@given(texts, texts)
def test_text_stays_within_its_word(one, two):
    """No text breaks out of its word: quotes, spaces, dollars and braces are letters."""
    words = read_words("tool --one={one} '{two}' {one}{two}")
    values = {"one": one, "two": two}
    assert filled(words, values) == ("tool", f"--one={one}", two, one + two)


@given(st.lists(plain_words, min_size=1).filter(lambda words: words[0]))
def test_a_text_is_split_once_as_a_shell_splits_it(words):
    """What `shlex.join` quotes is read back, and a list of words is taken as it stands."""
    assert read_words(shlex.join(words)) == read_words(words) == tuple(words)


def test_double_braces_are_braces():
    """A program that has braces of its own, like awk's, is written with double ones."""
    words = read_words("awk '{{print $1}}' {table}")
    assert fields_of(words) == ("table",)
    assert filled(words, {"table": "t.txt"}) == ("awk", "{print $1}", "t.txt")


@pytest.mark.parametrize(
    ("word", "value", "text"),
    [
        ("{x}", 3, "3"),
        ("{x}", 0.1, "0.1"),
        ("{x}", np.float64(0.5), "0.5"),
        ("{x}", np.int32(7), "7"),
        ("{x}", Decimal("1.10"), "1.10"),
        ("{x}", True, "True"),
        ("{x}", Path("/data/a b"), "/data/a b"),
        ("{x}", "", ""),
        ("part-{x:03d}.csv", 7, "part-007.csv"),
        ("{x:.2f}", 1 / 3, "0.33"),
    ],
)
def test_numbers_and_paths_are_written_plainly(word, value, text):
    """Numbers, NumPy's too, and paths are written as people write them."""
    assert filled(("tool", word), {"x": value})[1:] == (text,)


def test_an_empty_list_leaves_no_word():
    """A list may be empty, and then its word is not there."""
    assert filled(("tool", "{files}", "end"), {"files": []}) == ("tool", "end")


@pytest.mark.parametrize("value", [None, b"x", {}, object(), 1j, [[1]], "a\0b", ("a", None)])
def test_what_has_no_plain_text_is_refused(value):
    """A value that a command line cannot say is an answer that names it, not a guess."""
    with pytest.raises(RequestError, match="block"):
        filled(("tool", "{block}"), {"block": value})


def test_a_list_within_a_word_is_refused():
    """A list has a place of its own only."""
    with pytest.raises(RequestError, match="a word of its own"):
        filled(("tool", "--files={files}"), {"files": ["a"]})


def test_a_number_format_for_text_is_refused():
    """Formats are for numbers; text is never cut or padded."""
    with pytest.raises(RequestError, match="not a number"):
        filled(("tool", "{x:03d}"), {"x": "7"})


@pytest.mark.parametrize(
    "template",
    [
        "",
        "tool 'open",
        "'' x",
        "tool {}",
        "tool {0}",
        "tool {",
        "tool }",
        "tool {block.start}",
        "tool {block[0]}",
        "tool {block!r}",
        "tool {block:{width}}",
        "tool {block:>999999999}",
        "tool {class}",
        "awk '{print $1}'",
        ["tool", 3],
        ["tool", "a\0b"],
        7,
    ],
)
def test_fields_that_are_not_plain_names_are_refused(template):
    """Attributes, indices, conversions and nested formats are refused when they are written."""
    with pytest.raises(RequestError, match="command"):
        needs(command=template)


def test_unknown_fields_are_refused_where_they_are_written():
    """A field that the function has no parameter for is found before anything is queued."""
    with pytest.raises(RequestError, match=r"fit.*\{blok\}.*block, out"):

        @needs(command="fit {blok} {out}")
        def fit(block, out="x"): ...


def test_arguments_are_bound_as_python_binds_them():
    """Defaults, names, `*args` and `**kwargs` are what a call of the function would give."""

    @needs(command="tool {a} {rest} {b} {c}")
    def call(a, *rest, b=2, **more): ...

    values = arguments_of(call, (1, "x", "y"), {"c": 3})
    assert filled(needs_of(call).command, values) == ("tool", "1", "x", "y", "2", "3")
    with pytest.raises(RequestError, match=r"\{c\}"):
        filled(needs_of(call).command, arguments_of(call, (1,), {}))


def test_needs_hold_the_command_and_its_statuses():
    """What is written is kept as words and statuses, beside the rest."""
    read = read_needs({"command": "diff {a} {b}", "ok": [0, 1], "cores": 2})
    assert read == Needs(cores=2, command=("diff", "{a}", "{b}"), ok=(0, 1))
    assert read_needs({"command": "true", "ok": 3}).ok == (3,)


@pytest.mark.parametrize("ok", [(), (0, 256), (-9,), True, ("0",), 1.0])
def test_statuses_that_no_program_has_are_refused(ok):
    """`ok` takes exit statuses and nothing else."""
    with pytest.raises(RequestError):
        read_needs({"command": "true", "ok": ok})


def test_statuses_without_a_command_are_refused():
    """Only a command has an exit status."""
    with pytest.raises(RequestError, match="command"):
        needs(ok=(0, 1))


def test_a_pilots_shape_has_no_command():
    """A command is a task's, not a pilot's."""
    with pytest.raises(RequestError, match="command"):
        Shape.of(command="true")
