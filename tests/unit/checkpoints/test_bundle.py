"""The bundle: private, whole, in open formats, and what it shows is what was written."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcburst.errors import RequestError, SiteError
from hpcburst_recipes.checkpoints.answering import Changed, Checkpoint, NotOurs
from hpcburst_recipes.checkpoints.bundle import make_bundle
from hpcburst_recipes.checkpoints.question import Question

Bundles = Callable[..., Checkpoint]


class Figure:
    """What a plotting library's figure can do."""

    def savefig(self, file: io.BytesIO, **_: object) -> None:
        file.write(b"\x89PNG\r\n\x1a\n")


class Table:
    """What a table can do where there is no Arrow."""

    def to_csv(self) -> str:
        return "a,b\n1,2\n"


def test_arrays_tables_figures_data_and_files_come_back_as_they_were(
    bundle: Bundles, tmp_path: Path
) -> None:
    """Everything a flow shows can be loaded by name from the bundle, without pickle."""
    curve = tmp_path / "curve.svg"
    curve.write_text("<svg/>")
    one = bundle(
        {"a": np.arange(4), "f": Figure(), "t": Table(), "d": {"n": [1, None]}, "curve": curve}
    )

    assert one.names() == ["a", "f", "t", "d", "curve"]
    assert one.load("a").tolist() == [0, 1, 2, 3]
    assert one.load("d") == {"n": [1, None]}
    assert Path(one.load("t")).read_text() == "a,b\n1,2\n"
    assert Path(one.load("f")).suffix == ".png"
    assert Path(one.load("curve")).read_text() == "<svg/>"
    assert one.question["data"]["curve"]["shown_as"] == "picture"


def test_an_arrow_table_is_parquet(bundle: Bundles) -> None:
    """A table keeps its types."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"sample": ["a", "b"], "score": [0.1, 0.9]})

    one = bundle({"fit": table})

    assert one.question["data"]["fit"]["format"] == "parquet"
    assert pyarrow.parquet.read_table(one.path("fit")).equals(table)


@pytest.mark.parametrize("value", [object(), np.array([object()]), {"x": object()}, b"bytes"])
def test_what_would_have_to_be_pickled_is_refused(
    bundle: Bundles, value: object, root: Path
) -> None:
    """Nothing of a bundle is a pickle, and a refused one leaves nothing behind."""
    with pytest.raises(RequestError, match="to be shown"):
        bundle({"x": value})
    assert list((root / "checkpoints").iterdir()) == []


def test_a_file_that_is_not_there_cannot_be_shown(bundle: Bundles, tmp_path: Path) -> None:
    """A path that leads nowhere is told at once."""
    with pytest.raises(RequestError, match="There is none"):
        bundle({"x": tmp_path / "gone.png"})


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_nobody_else_can_enter_whatever_the_umask(bundle: Bundles, umask: int) -> None:
    """Folders of a bundle are 0700 and its files 0600."""
    before = os.umask(umask)
    try:
        one = bundle({"d": 1})
        one.decide("approve")
    finally:
        os.umask(before)
    for place, folders, files in os.walk(one.folder):
        modes = {stat.S_IMODE(os.lstat(Path(place, name)).st_mode) for name in files}
        assert modes <= {0o600}, place
        for name in folders:
            assert stat.S_IMODE(os.lstat(Path(place, name)).st_mode) == 0o700
    assert stat.S_IMODE(os.lstat(one.folder).st_mode) == 0o700


def test_data_that_was_changed_is_not_shown(bundle: Bundles, tmp_path: Path) -> None:
    """A decision is about the data the flow wrote, or there is none."""
    curve = tmp_path / "curve.csv"
    curve.write_text("1")
    one = bundle({"d": [1, 2], "curve": curve})
    Path(one.folder, "data/d.json").write_text("[1, 3]")
    curve.write_text("2")

    for name in ("d", "curve"):
        with pytest.raises(Changed, match=f"{name} has changed"):
            one.load(name)


def test_a_bundle_that_others_can_write_to_is_not_opened(bundle: Bundles) -> None:
    """A folder in which somebody else could answer is refused."""
    one = bundle()
    Path(one.folder).chmod(0o770)
    with pytest.raises(NotOurs):
        Checkpoint(one.folder)


def test_a_name_that_is_taken_is_refused(root: Path, asked: Question) -> None:
    """A desk that somebody else made first is not written to."""
    (root / "checkpoints").symlink_to("/tmp")
    with pytest.raises(SiteError, match="private folder"):
        make_bundle(root, asked, {})


def test_equal_inputs_have_equal_digests(bundle: Bundles) -> None:
    """What is asked once more about the same data can be recognised; other data cannot."""
    first, again, other = bundle({"d": 1}), bundle({"d": 1}), bundle({"d": 2})
    digests = [one.question["inputs"] for one in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_a_bundle_says_all_in_one_json_file(bundle: Bundles) -> None:
    """Any program can read what is asked, of which data, by whom."""
    one = bundle({"d": 1})
    content = json.loads(Path(one.folder, "checkpoint.json").read_text())
    assert content["schema"]["properties"]["threshold"]["maximum"] == 1
    assert content["data"]["d"]["sha256"]
    assert content["text"] == "Which threshold should the next stage use?"
