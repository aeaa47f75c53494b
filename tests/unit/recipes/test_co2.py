"""The demo's science: known facts about the record, and numbers that do not depend on the way."""

import json
import random
from importlib import resources

import pytest

from hpcburst_envs import env_file
from hpcburst_recipes.demo import co2
from hpcburst_recipes.demo.workspace import lay_out

RECORD = str(resources.files("hpcburst_recipes.demo") / "data/mauna_loa_co2.csv")


@pytest.fixture(scope="module")
def fits():
    return [co2.fit_block(seed, 50, RECORD) for seed in range(6)]


def test_the_record_is_the_one_its_readme_describes():
    """2,225 weeks from March 1958 to December 2001, in order."""
    years, ppm = co2.read_record(RECORD)
    assert len(years) == len(ppm) == 2225
    assert years == sorted(years)
    assert (int(years[0]), int(years[-1])) == (1958, 2001)
    assert (min(ppm), max(ppm)) == (313.0, 373.9)


def test_the_fit_finds_what_is_known_of_mauna_loa(fits):
    """About 1.5 ppm a year in the 1990s, about 6 ppm of season, and growth that grows."""
    summary = co2.reduce(fits)
    assert summary["growth_1990s"]["median"] == pytest.approx(1.5, abs=0.25)
    assert summary["amplitude_ppm"]["median"] == pytest.approx(6, abs=0.75)
    assert summary["growth_start"]["high"] < summary["growth_end"]["low"]
    assert summary["draws"] == 300
    assert summary["trend_ppm"]["median"][0] == pytest.approx(314.5, abs=1.5)
    assert summary["trend_ppm"]["median"][-1] == pytest.approx(372, abs=1.5)


def test_growth_is_the_slope_of_the_trend(fits):
    """The two curves of the figure belong together."""
    for fit in fits[:2]:
        summary = co2.reduce([fit | {name: fit[name][:1] for name in fit if name in LISTS}])
        years, trend = summary["years"], summary["trend_ppm"]["median"]
        slope = (trend[2] - trend[0]) / (years[2] - years[0])
        assert slope == pytest.approx(summary["growth"]["median"][1], abs=1e-5)


LISTS = ("level_ppm", "growth_start", "growth_end", "amplitude_ppm")


def test_the_order_of_the_tasks_does_not_matter(fits):
    """However the batch system orders them, the result is the same to the last digit."""
    shuffled = random.Random(1).sample(fits, len(fits))
    assert shuffled != fits
    assert co2.reduce(shuffled) == co2.reduce(fits)


def test_equal_seeds_give_equal_numbers(fits):
    """A task that is run again, or by another engine, changes nothing; another seed does."""
    assert co2.fit_block(3, 50, RECORD) == fits[3]
    assert fits[2]["growth_end"] != fits[3]["growth_end"]


def test_the_program_writes_what_the_function_returns(tmp_path, fits):
    """Snakemake's files hold the very numbers that Prefect's tasks return."""
    out = tmp_path / "fits/3.json"
    co2.main(
        ["fit", "--seed", "3", "--draws", "50", "--record", RECORD, "--out", str(out)],
    )
    assert json.loads(out.read_text()) == fits[3]
    assert [path.name for path in out.parent.iterdir()] == ["3.json"]


def test_the_demo_folder_holds_all_that_runs_in_it(tmp_path):
    """Both pipelines, the data and env files with the asked-for Pythons lie in one folder."""
    folder = lay_out(
        tmp_path / "demo", channel="file:///c", stats_python="3.11", plots_python="3.10"
    )
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names >= {"co2.py", "flow.py", "Snakefile", "data/mauna_loa_co2.csv"}
    assert "python=3.11" in (folder / "stats.yaml").read_text()
    plots = (folder / "plots.yaml").read_text()
    assert "python=3.10" in plots
    assert "file:///c" in plots
    assert folder.stat().st_mode & 0o777 == 0o700


def test_laying_out_again_changes_nothing_that_is_right(tmp_path):
    """A second run finds its files as they were, so that nothing is built or run again."""
    folder = lay_out(tmp_path / "demo")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    lay_out(folder)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_an_unknown_env_file_is_named_with_those_there_are():
    """A mistyped env name tells which names exist."""
    assert env_file("stats").read_text().startswith("name: stats")
    with pytest.raises(FileNotFoundError, match="there are: plots, stats"):
        env_file("stat")
