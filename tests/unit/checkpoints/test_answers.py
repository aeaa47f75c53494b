"""Answers: the first one wins, a wrong one is asked again, a late one is the stated default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints import answering
from hpcburst_recipes.checkpoints.answering import AlreadyAnswered, Checkpoint, InvalidAnswer
from hpcburst_recipes.checkpoints.decision import (
    NoAnswer,
    Rejected,
    answer_when_due,
    take,
    value_of,
)
from hpcburst_recipes.checkpoints.desk import checkpoints, find, settle_due
from hpcburst_recipes.checkpoints.question import Question
from support.pythons import PYTHONS

Bundles = Callable[..., Checkpoint]

ANSWERING = """
import sys, time, os
sys.path.insert(0, sys.argv[1])
from hpcburst_checkpoint import Checkpoint, AlreadyAnswered
one = Checkpoint(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    one.decide("approve", {"threshold": int(sys.argv[2]) / 100}, via="test")
    print("won", sys.argv[2])
except AlreadyAnswered as error:
    print("told", error.answer["values"]["threshold"])
"""


def answering_process(python: str, one: Checkpoint, number: int) -> subprocess.Popen[str]:
    argv = [python, "-I", "-S", "-c", ANSWERING, one.folder, str(number)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_of_sixteen_answers_at_once_one_wins_and_the_others_are_told(bundle: Bundles) -> None:
    """However many answer together, the flow gets one answer and everybody knows which."""
    one = bundle()
    answerers = [answering_process(sys.executable, one, number) for number in range(16)]
    for each in answerers:
        assert each.stdout.readline() == "ready\n"
    for each in answerers:
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.communicate(timeout=30)[0].split() for each in answerers]

    won = [int(number) / 100 for word, number in said if word == "won"]
    assert won == [one.answer()["values"]["threshold"]]
    assert [float(value) for word, value in said if word == "told"] == won * 15


def test_the_oldest_python_an_env_may_have_can_answer(bundle: Bundles) -> None:
    """The notebook's kernel needs no hpcburst and no new Python."""
    python = PYTHONS.get("3.8")
    if python is None:
        pytest.skip("there is no Python 3.8 on this machine")
    one = bundle()
    out, _ = answering_process(str(python), one, 7).communicate("go\n", timeout=30)
    assert out.split() == ["ready", "won", "7"]


def test_an_answer_is_kept_with_who_how_and_when(bundle: Bundles, asked: Question) -> None:
    """The record of a decision names its author, the way and the time."""
    before = time.time()
    one = bundle()
    one.decide("approve", {"threshold": 0.7}, via="command line", note="looks good")

    decision = take(one, asked)

    assert decision.value.threshold == 0.7
    assert (decision.via, decision.note) == ("command line", "looks good")
    assert decision.who
    assert before <= decision.at <= time.time()
    assert one.outcome()["uid"] == os.getuid()


@pytest.mark.parametrize(
    ("action", "values", "told"),
    [
        ("approve", {"threshold": 1.5}, "more than 1"),
        ("approve", {"threshold": "much"}, "not of type number"),
        ("approve", {"thresh": 0.5}, "no field 'thresh'"),
        ("shrug", {}, "one of: approve, reject"),
    ],
)
def test_an_answer_that_does_not_fit_is_not_kept(
    bundle: Bundles, action: str, values: dict[str, object], told: str
) -> None:
    """Whoever answers wrongly hears so at once, and the checkpoint waits on."""
    one = bundle()
    with pytest.raises(InvalidAnswer, match=told):
        one.decide(action, values)
    assert one.answer() is None


def test_an_answer_that_only_the_model_can_refuse_is_asked_again(
    bundle: Bundles, asked: Question
) -> None:
    """A refused answer does not fail the flow: the next one counts, and the reason is there."""
    one = bundle()
    one.decide("approve", {"note": "no such luck"})
    assert take(one, asked) is None
    assert "the model alone knows" in one.refusals()[0]

    one.decide("approve", {"note": "now"})
    assert take(one, asked).value.note == "now"


@pytest.mark.parametrize(
    "forged",
    [
        {"checkpoint": "another", "action": "approve", "values": {}},
        {"action": "run", "values": {}},
        {"action": "approve", "values": {"threshold": 7}},
        {"action": "approve", "values": "threshold"},
    ],
)
def test_a_file_that_is_no_answer_to_this_question_is_refused(
    bundle: Bundles, asked: Question, forged: dict[str, object]
) -> None:
    """The flow trusts no file: it judges id, action and values itself."""
    one = bundle()
    path = Path(one.folder, "answers/1.json")
    path.write_text(json.dumps({"checkpoint": one.id, **forged}))
    assert take(one, asked) is None
    assert one.round() == 2


def test_a_link_in_the_place_of_an_answer_is_not_followed(
    bundle: Bundles, asked: Question, tmp_path: Path
) -> None:
    """An answer is a file of ours in the bundle, nothing else."""
    one = bundle()
    (tmp_path / "answer").write_text("{}")
    Path(one.folder, "answers/1.json").symlink_to(tmp_path / "answer")
    with pytest.raises(OSError, match="symbolic links"):
        take(one, asked)


def test_a_second_answer_after_the_first_is_told_whose_the_first_was(bundle: Bundles) -> None:
    """Nobody overrules an answer without knowing."""
    one = bundle()
    one.decide("reject", via="notebook")
    with pytest.raises(AlreadyAnswered, match=r"already answered: reject by .* \(notebook\)"):
        one.decide("approve")


def test_a_rejection_stops_the_flow_with_its_reason(bundle: Bundles, asked: Question) -> None:
    """`Rejected` carries who said no, and why."""
    one = bundle()
    one.decide("reject", note="batch effect")
    with pytest.raises(Rejected, match="batch effect") as caught:
        value_of(one, take(one, asked))
    assert caught.value.decision.action == "reject"


@pytest.mark.parametrize(
    ("on_timeout", "ends"), [("approve", None), ("reject", Rejected), ("fail", NoAnswer)]
)
def test_at_the_deadline_the_stated_default_is_taken(
    bundle: Bundles, asked: Question, on_timeout: str, ends: type[Exception] | None
) -> None:
    """What happens without an answer is what was said would happen, and not before."""
    early = bundle(deadline_s=3600.0, on_timeout=on_timeout)
    assert not answer_when_due(early)

    one = bundle(deadline_s=0.0, on_timeout=on_timeout)
    assert answer_when_due(one)
    decision = take(one, asked)
    assert decision.via == "deadline"
    if ends is None:
        assert value_of(one, decision).threshold == 0.5
    else:
        with pytest.raises(ends):
            value_of(one, decision)


def test_a_checkpoint_that_keeps_waiting_has_no_deadline(bundle: Bundles) -> None:
    """Without a stated default, a checkpoint waits as long as it takes."""
    assert not answer_when_due(bundle(deadline_s=0.0))


def test_the_one_that_waits_longest_comes_first(bundle: Bundles, root: Path) -> None:
    """What needs a person is at the top, the oldest before the others."""
    first, answered, last = bundle(), bundle(), bundle()
    answered.decide("approve")
    (root / "checkpoints" / "half").mkdir(mode=0o700)

    assert [one.id for one in checkpoints(root)] == [first.id, last.id, answered.id]


def test_a_checkpoint_is_found_by_the_beginning_of_its_id(bundle: Bundles, root: Path) -> None:
    """An id need not be typed whole; what is not clear is not guessed."""
    one = bundle()
    assert find(root, one.id[:5]).id == one.id
    assert find(root, "review-fit").id == one.id
    bundle()
    with pytest.raises(RequestError, match="More than one"):
        find(root, "review-fit")
    with pytest.raises(RequestError, match="no such checkpoint"):
        find(root, "zzz")


def test_whoever_looks_settles_what_is_due(bundle: Bundles, root: Path) -> None:
    """A flow whose process ended gets its default from the first command that looks."""
    due = bundle(deadline_s=0.0, on_timeout="approve")
    bundle(deadline_s=60.0, on_timeout="approve")

    assert [one.id for one in settle_due(root)] == [due.id]
    assert settle_due(root) == []


def test_the_module_in_the_bundle_is_the_one_that_is_tested_here(bundle: Bundles) -> None:
    """What answers in the notebook is what answers elsewhere."""
    copy = Path(bundle().folder, "hpcburst_checkpoint.py")
    assert copy.read_text() == Path(answering.__file__).read_text()
