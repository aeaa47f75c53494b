"""`hpcburst checkpoint`: what waits comes first, answers are told, scripts read JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import dask.config
import pytest

from hpcburst.cli.main import main
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.desk import Standing, standing_of

Bundles = Callable[..., Checkpoint]


@pytest.fixture(autouse=True)
def _configured(root: Path) -> Iterator[None]:
    with dask.config.set({"hpcburst.shared-root": str(root), "hpcburst.scheduler": "local"}):
        yield


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main(["checkpoint", *words]) == status
    out = capsys.readouterr()
    return out.out if status == 0 else out.err


def test_the_list_has_what_waits_and_nothing_else(
    bundle: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks what is to be done sees what waits, the oldest first."""
    assert said(capsys, "list") == "nothing waits for you\n"
    first, second = bundle(), bundle(deadline_s=3600.0, on_timeout="approve")
    lines = said(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == [first.id, second.id]
    assert "then approve" in lines[1]
    rows = json.loads(said(capsys, "list", "--json"))
    assert [row["id"] for row in rows] == [first.id, second.id]
    assert rows[0]["standing"] == "waiting"


def test_the_list_settles_what_is_due(bundle: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    """A deadline is kept though the flow's process has ended."""
    one = bundle(deadline_s=0.0, on_timeout="approve")
    assert "approve threshold=0.5" in said(capsys, "list")
    assert standing_of(one) is Standing.ANSWERED


def test_approving_takes_values_as_they_are_typed(
    bundle: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    """`approve ID threshold=0.7 keep=a,b` records typed values with who and how."""
    one = bundle()
    words = ("approve", one.id[:6], "threshold=0.7", "keep=a,b", "--note", "fine")
    assert said(capsys, *words).startswith("recorded: approve threshold=0.7")
    answer = one.answer()
    assert answer["values"] == {"threshold": 0.7, "keep": ["a", "b"], "note": ""}
    assert (answer["via"], answer["note"]) == ("command line", "fine")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("threshold=7",), "more than 1"),
        (("thresh=0.7",), "FIELD=VALUE"),
        (("0.7",), "FIELD=VALUE"),
    ],
)
def test_a_wrong_answer_is_one_clear_message(
    bundle: Bundles, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    """What cannot be recorded is said, with exit status 1, and the checkpoint waits on."""
    one = bundle()
    assert told in said(capsys, "approve", one.id, *words, status=1)
    assert one.answer() is None


def test_a_second_answer_is_told_of_the_first(
    bundle: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second to answer hears who was first."""
    one = bundle()
    assert "recorded: reject" in said(capsys, "reject", one.id, "batch", "effect")
    assert one.answer()["note"] == "batch effect"
    assert "Already answered: reject by" in said(capsys, "approve", one.id, status=1)


def test_show_says_what_is_asked_and_shown(
    bundle: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is needed to decide on the command line is on one screen."""
    one = bundle({"d": [1]}, choices={"threshold": {0.1: "few", 0.9: "many"}}, text="A\x1b[2JB")
    text = said(capsys, "show", one.id)
    assert "one of 0.1 (few), 0.9 (many)" in text
    assert f"shows d (data): {one.folder}/data/d.json" in text
    assert "\x1b" not in text
    assert json.loads(said(capsys, "show", one.id, "--json"))["schema"]


def test_a_deadline_can_be_moved(bundle: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    """`extend` gives a person more time."""
    one = bundle(deadline_s=60.0, on_timeout="reject")
    before = one.deadline()
    assert "the deadline is" in said(capsys, "extend", one.id, "--by", "2h")
    assert one.deadline() == pytest.approx(before + 7200, abs=5)


def test_what_has_no_notebook_or_is_decided_is_not_opened(
    bundle: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    """`open` says why there is nothing to open, and asks for no job."""
    one = bundle()
    assert "no notebook" in said(capsys, "open", one.id, status=1)
    assert "it has no session" in said(capsys, "close", one.id)
    assert not Path(one.folder, "job.json").exists()


def test_the_verb_costs_other_commands_nothing() -> None:
    """Registering the verb imports neither pydantic nor Prefect."""
    import subprocess
    import sys

    code = (
        "import sys; import hpcburst_recipes.checkpoints.command as c; "
        "print([m for m in ('pydantic', 'prefect', 'jupyter_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
