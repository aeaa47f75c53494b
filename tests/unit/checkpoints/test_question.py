"""What is asked: the model's own rules, choices from the data, defaults that are answers."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.answering import (
    InvalidAnswer,
    complaints_of,
    from_words,
    read_pairs,
)
from hpcburst_recipes.checkpoints.question import question


class Inner(BaseModel):
    depth: int = Field(1, ge=0, lt=5)


class Wide(BaseModel):
    """What a question may hold."""

    rate: float = Field(0.5, gt=0, le=1)
    count: int = Field(3, ge=1, lt=10)
    on: bool = True
    name: str = Field("a", min_length=1, max_length=5, pattern="^[a-z]*$")
    tags: list[str] = Field(default_factory=list, max_length=3)
    kind: Literal["x", "y"] = "x"
    maybe: float | None = None
    inner: Inner = Inner()


def fits_model(values: dict[str, object]) -> bool:
    try:
        Wide.model_validate(values, strict=False)
    except ValidationError:
        return False
    return True


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.floats(-1, 2),
        "count": st.integers(-2, 12),
        "on": st.booleans(),
        "name": st.text(alphabet="abZ1", max_size=7),
        "tags": st.lists(st.text(max_size=3), max_size=5),
        "kind": st.sampled_from(["x", "y", "z"]),
        "maybe": st.none() | st.floats(-1, 1),
        "inner": st.fixed_dictionaries({"depth": st.integers(-1, 6)}),
    },
)


@given(VALUES)
def test_both_sides_judge_an_answer_alike(values: dict[str, object]) -> None:
    """What the notebook and the command line take is what the flow's model takes."""
    schema = Wide.model_json_schema()
    assert (complaints_of(values, schema, schema) == []) == fits_model(values)


@pytest.mark.parametrize(
    "wrong",
    [{"rate": "0.5"}, {"count": True}, {"on": 1}, {"tags": "a"}, {"tags": [1]}, {"other": 1}],
)
def test_a_value_of_another_type_is_told(wrong: dict[str, object]) -> None:
    """An answer of the wrong type, or to a field that nobody asked for, is not taken."""
    schema = Wide.model_json_schema()
    assert complaints_of(wrong, schema, schema)


def test_choices_computed_from_data_are_the_only_ones_and_the_best_is_preselected() -> None:
    """A flow offers what it computed, says what speaks for each, and preselects the best."""

    class Clusters(BaseModel):
        k: int = 2

    asked = question("k", Clusters, choices={"k": {3: "0.61", 4: "0.58"}}, preselect={"k": 4})

    field = asked.schema["properties"]["k"]
    assert (field["enum"], field["words"], field["default"]) == ([3, 4], ["0.61", "0.58"], 4)
    assert asked.value({"k": 3}).k == 3
    with pytest.raises(ValueError, match="none of: 3, 4"):
        asked.value({"k": 2})


def test_without_a_preselected_choice_a_default_that_is_not_offered_gives_way() -> None:
    """The default is always one of the choices."""

    class Clusters(BaseModel):
        k: int = 2

    assert question("k", Clusters, choices={"k": [5, 6]}).schema["properties"]["k"]["default"] == 5


def test_choices_of_a_list_are_of_its_entries() -> None:
    """Of several samples, some can be kept, and none that is not there."""

    class Keep(BaseModel):
        keep: list[str] = []

    asked = question("keep", Keep, choices={"keep": ["a", "b"]}, preselect={"keep": ["b"]})

    assert asked.value({"keep": ["a", "b"]}).keep == ["a", "b"]
    with pytest.raises(ValueError, match="'c' is none of"):
        asked.value({"keep": ["c"]})


class Needed(BaseModel):
    threshold: float


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("../x", {}, "Names have letters"),
        ("x\n#SBATCH", {}, "Names have letters"),
        ("-x", {}, "Names have letters"),
        ("x", {"choices": {"no": [1]}}, "no such field"),
        ("x", {"choices": {"threshold": []}}, "There are none"),
        ("x", {"preselect": {"threshold": "much"}}, "not of type number"),
        ("x", {"on_timeout": "approve"}, "no deadline"),
        ("x", {"on_timeout": "shrug", "deadline_s": 1.0}, "one of"),
        ("x", {"on_timeout": "approve", "deadline_s": 1.0}, "threshold is missing"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_at_once(
    name: str, options: dict[str, object], told: str
) -> None:
    """A mistake in a question fails before anybody is asked, and says what is wrong."""
    with pytest.raises(RequestError, match=told):
        question(name, Needed, **options)


def test_what_is_typed_is_read_by_the_fields_type() -> None:
    """`keep=a,b note=7 threshold=0.7` means what a person means by it."""
    schema = {
        "properties": {
            "keep": {"type": "array", "items": {"type": "string"}},
            "note": {"type": "string"},
            "threshold": {"type": "number"},
        }
    }
    assert read_pairs(["keep=a, b", "note=7", "threshold=0.7"], schema) == {
        "keep": ["a", "b"],
        "note": "7",
        "threshold": 0.7,
    }
    with pytest.raises(InvalidAnswer, match="the fields: keep"):
        read_pairs(["kep=a"], schema)


@given(st.text())
def test_whatever_is_typed_is_read_or_complained_about(text: str) -> None:
    """No text that is typed ends in a traceback."""
    schema = Wide.model_json_schema()
    for field in schema["properties"].values():
        complaints_of(from_words(text, field, schema), field, schema)
