"""How fast did CO2 rise at Mauna Loa, and how sure are we?

A quadratic trend and four annual harmonics are fitted to the weekly record by least squares. What
the fit leaves over (El Nino, volcanoes) is correlated over years, so its uncertainty comes from a
moving-block bootstrap: three-year pieces of the residuals are put together again at random, and the
model is fitted anew, tens of thousands of times. That is many small tasks: a burst.

The functions travel to other Pythons as source, so they use plain data between them, import numpy
and matplotlib where they need them, and keep to whole modules of the standard library (the home of
a name such as `Path` moves between Python versions). As a program:

    python co2.py fit --seed 3 --draws 1000 --record mauna_loa_co2.csv --out fits/3.json
    python co2.py reduce --record mauna_loa_co2.csv --out results fits/*.json
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import math
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = Any
"""A numpy array of floats; where this file is checked or sent from, numpy may be missing."""

HARMONICS = 4
"""Annual harmonics: the season at Mauna Loa rises slowly and falls fast, one sine is too few."""

BLOCK_WEEKS = 156
"""Length of a bootstrap block: three years, longer than the memory of El Nino."""

DAYS_A_YEAR = 365.25

FULL_YEAR_WEEKS = 45
"""Weeks a year must have for its mean to be shown; fewer would lean to one season."""


def fit_block(seed: int, n_draws: int, record: str) -> dict[str, Any]:
    """Refit the model to `n_draws` bootstrap copies of the record: the work of one task.

    Args:
        seed: Seed of the random numbers; equal seeds give equal results.
        n_draws: How many copies.
        record: Path of the weekly record (`date,co2_ppm`).

    Returns:
        The seed, the first and last date in decimal years, and for each copy: the trend in the
        middle of the record (ppm), its growth at the start and at the end (ppm a year), and the
        season from lowest to highest (ppm).
    """
    import numpy as np

    years, ppm = read_record(record)
    start, end = years[0], years[-1]
    design = _design(np.asarray(years), start, end)
    observed = np.asarray(ppm)
    solve = _times(design, np.linalg.inv(_times(design.T, design.T)))  # least squares
    best = _times(solve, observed[None, :])[0]
    residuals = observed - _times(design, best[None, :])[0]
    drawn = best + _times(solve, _resample(residuals, seed, n_draws))
    half = (end - start) / 2
    level, slope, bend = drawn[:, 0], drawn[:, 1] / half, drawn[:, 2] / half
    season = _times(_harmonics(np.linspace(0, 1, 366)), drawn[:, 3:])
    return {
        "seed": seed,
        "start_year": start,
        "end_year": end,
        "level_ppm": level.tolist(),
        "growth_start": (slope - 2 * bend).tolist(),
        "growth_end": (slope + 2 * bend).tolist(),
        "amplitude_ppm": (season.max(axis=1) - season.min(axis=1)).tolist(),
    }


def reduce(fits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put the results of all tasks together; their order does not matter.

    Args:
        fits: Results of `fit_block`, at least one.

    Returns:
        Medians and 95 % intervals (`median`, `low`, `high`) of the growth at the start and at the
        end of the record and in the 1990s (ppm a year), of the season (ppm), and, for a date in
        each year (`years`), of the trend and of its growth. Rounded to 1e-6, far below any meaning,
        so that processors that add in another order agree.
    """
    import numpy as np

    ordered = sorted(fits, key=lambda fit: int(fit["seed"]))
    start, end = ordered[0]["start_year"], ordered[0]["end_year"]

    def joined(name: str) -> Array:
        return np.concatenate([np.asarray(fit[name], dtype=float) for fit in ordered])

    first, last = joined("growth_start"), joined("growth_end")
    share = np.linspace(0, 1, round(end - start) + 1)
    growth, trend = _curves(joined("level_ppm"), first, last, share, end - start)
    nineties = first + (last - first) * (1995 - start) / (end - start)
    return {
        "draws": int(first.size),
        "start_year": start,
        "end_year": end,
        "growth_start": _interval(first),
        "growth_end": _interval(last),
        "growth_1990s": _interval(nineties),
        "amplitude_ppm": _interval(joined("amplitude_ppm")),
        "years": (start + share * (end - start)).tolist(),
        "trend_ppm": _interval(trend),
        "growth": _interval(growth),
    }


def reduce_and_plot(fits: Sequence[dict[str, Any]], record: str, out: str) -> dict[str, Any]:
    """Reduce the fits and leave `summary.json` and `co2.png` in the folder `out`.

    Returns:
        The summary, as `reduce` gives it.
    """
    summary = reduce(fits)
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(summary, folder / "summary.json")
    plot(summary, record, str(folder / "co2.png"))
    return summary


def read_record(path: str) -> tuple[list[float], list[float]]:
    """The dates in decimal years, and the CO2 in ppm, of a weekly record."""
    with pathlib.Path(path).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    epoch = dt.date(1958, 1, 1).toordinal()
    days = [dt.date.fromisoformat(row["date"]).toordinal() - epoch for row in rows]
    return [1958 + day / DAYS_A_YEAR for day in days], [float(row["co2_ppm"]) for row in rows]


def write_json(value: Any, path: pathlib.Path) -> None:
    """Write plain data aside and move it into place; floats come back exactly as they were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def plot(summary: dict[str, Any], record: str, path: str) -> None:
    """Draw the record with its trend, and the growth rate below, as a PNG of 1200 x 900 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    years, ppm = read_record(record)
    figure = Figure(figsize=(12, 9), dpi=100)
    FigureCanvasAgg(figure)
    above, below = figure.subplots(
        2, 1, sharex=True, height_ratios=[1.7, 1], gridspec_kw={"hspace": 0.1}
    )
    figure.subplots_adjust(left=0.08, right=0.96, top=0.86, bottom=0.115)
    for axes in (above, below):
        _plain_axes(axes)
    _draw_record(above, summary, years, ppm)
    _draw_growth(below, summary, years, ppm)
    figure.align_ylabels()
    _write_words(figure, summary)
    aside = pathlib.Path(path).with_name(f".{pathlib.Path(path).name}.part")
    figure.savefig(aside, format="png")
    aside.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step from the command line, as the Snakefile does."""
    parser = argparse.ArgumentParser(description="How fast did CO2 rise at Mauna Loa?")
    steps = parser.add_subparsers(dest="step", required=True)
    fit = steps.add_parser("fit", help="refit the model to bootstrap copies of the record")
    fit.add_argument("--seed", type=int, required=True)
    fit.add_argument("--draws", type=int, required=True)
    last = steps.add_parser("reduce", help="put all fits together, and draw them")
    last.add_argument("fits", nargs="+", type=pathlib.Path)
    for step in (fit, last):
        step.add_argument("--record", required=True, help="the weekly record, date,co2_ppm")
        step.add_argument("--out", required=True, help="file of the fit, folder of the results")
    asked = parser.parse_args(arguments)
    if asked.step == "fit":
        write_json(fit_block(asked.seed, asked.draws, asked.record), pathlib.Path(asked.out))
    else:
        fits = [json.loads(path.read_text(encoding="utf-8")) for path in asked.fits]
        reduce_and_plot(fits, asked.record, asked.out)


def _design(years: Array, start: float, end: float) -> Array:
    """Columns of the model; time runs from -1 to 1, which keeps the equations well-conditioned."""
    import numpy as np

    time = (2 * years - start - end) / (end - start)
    return np.column_stack([np.ones_like(time), time, time**2, _harmonics(years)])


def _harmonics(years: Array) -> Array:
    import numpy as np

    angles = 2 * np.pi * np.outer(years, np.arange(1, HARMONICS + 1))
    return np.hstack([np.sin(angles), np.cos(angles)])


def _times(matrix: Array, vectors: Array) -> Array:
    """`vectors @ matrix.T`, without BLAS: its sums depend on how many threads it takes."""
    import numpy as np

    product: Array = np.einsum("kn,dn->dk", matrix, vectors)
    return product


def _resample(residuals: Array, seed: int, n_draws: int) -> Array:
    """Draws of the residuals in blocks, `n_draws` rows."""
    import numpy as np

    size = residuals.size
    blocks = math.ceil(size / BLOCK_WEEKS)
    starts = np.random.default_rng(seed).integers(0, size - BLOCK_WEEKS + 1, (n_draws, blocks))
    places = (starts[:, :, None] + np.arange(BLOCK_WEEKS)).reshape(n_draws, -1)[:, :size]
    drawn: Array = residuals[places]
    return drawn


def _curves(level: Array, first: Array, last: Array, share: Array, span: float) -> Array:
    """Growth and trend of each draw, stacked: a quadratic is known by its level and two slopes.

    Args:
        level: Trend in the middle of the record.
        first: Growth at its start.
        last: Growth at its end.
        share: Dates, as shares (0 to 1) of the record.
        span: Length of the record in years.
    """
    import numpy as np

    growth = first[:, None] + (last - first)[:, None] * share
    middle = (first + last)[:, None] / 2
    trend = level[:, None] + (growth + middle) / 2 * (share - 0.5) * span
    return np.stack([growth, trend])


def _interval(draws: Array) -> dict[str, Any]:
    import numpy as np

    low, median, high = np.round(np.percentile(draws, [2.5, 50, 97.5], axis=0), 6).tolist()
    return {"median": median, "low": low, "high": high}


GREY, INK, ORANGE, BLUE = "#9a9a9a", "#222222", "#d55e00", "#0072b2"  # apart for every eye


def _plain_axes(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=13, colors=INK, length=4)


def _draw_record(axes: Any, summary: dict[str, Any], years: list[float], ppm: list[float]) -> None:
    trend, grid = summary["trend_ppm"], summary["years"]
    axes.plot(years, ppm, color=GREY, linewidth=0.9, label="weekly record")
    axes.fill_between(
        grid, trend["low"], trend["high"], color=ORANGE, alpha=0.3, linewidth=0, label="95 % band"
    )
    axes.plot(grid, trend["median"], color=ORANGE, linewidth=2.2, label="trend")
    axes.set_ylabel("CO₂ in dry air (ppm)", fontsize=14, color=INK)
    axes.legend(loc="upper left", frameon=False, fontsize=13)
    season = summary["amplitude_ppm"]
    text = f"season, lowest to highest: {season['median']:.1f} ppm"
    text += f"\n95 %: {season['low']:.1f} to {season['high']:.1f}"
    axes.text(0.985, 0.06, text, transform=axes.transAxes, ha="right", fontsize=13, color=INK)


def _draw_growth(axes: Any, summary: dict[str, Any], years: list[float], ppm: list[float]) -> None:
    growth, grid = summary["growth"], summary["years"]
    steps = _yearly_steps(years, ppm)
    axes.plot(*steps, "o", color=GREY, markersize=6, label="from one annual mean to the next")
    axes.fill_between(
        grid, growth["low"], growth["high"], color=BLUE, alpha=0.25, linewidth=0, label="95 % band"
    )
    axes.plot(grid, growth["median"], color=BLUE, linewidth=2.2, label="growth of the trend")
    axes.set_ylabel("growth (ppm a year)", fontsize=14, color=INK)
    axes.set_ylim(0, 3.4)
    axes.set_xlim(1957.5, 2002.5)
    axes.legend(loc="upper left", fontsize=13, ncols=3, edgecolor="none", framealpha=1)


def _yearly_steps(years: list[float], ppm: list[float]) -> tuple[list[float], list[float]]:
    """Turns of the year, and the step there between the means of full years."""
    weeks: dict[int, list[float]] = {}
    for year, value in zip(years, ppm, strict=True):
        weeks.setdefault(int(year), []).append(value)
    means = {
        year: sum(values) / len(values)
        for year, values in weeks.items()
        if len(values) >= FULL_YEAR_WEEKS
    }
    pairs = [(float(year), means[year] - means[year - 1]) for year in means if year - 1 in means]
    return [year for year, _ in pairs], [step for _, step in pairs]


def _write_words(figure: Any, summary: dict[str, Any]) -> None:
    first, last = summary["growth_start"], summary["growth_end"]
    title = (
        f"CO₂ at Mauna Loa rose by {first['median']:.1f} ppm a year in "
        f"{summary['start_year']:.0f}, by {last['median']:.1f} in {math.floor(summary['end_year'])}"
    )
    subtitle = (
        f"Quadratic trend and {HARMONICS} annual harmonics; bands from {summary['draws']:,} "
        "refits to three-year blocks of the residuals"
    )
    source = (
        "Data: Keeling & Whorf (2004), Scripps Institution of Oceanography, by way of CDIAC, "
        "Oak Ridge National Laboratory (public domain)"
    )
    figure.text(0.08, 0.935, title, fontsize=20, fontweight="bold", color=INK)
    figure.text(0.08, 0.895, subtitle, fontsize=14, color="#555555")
    figure.text(0.08, 0.025, source, fontsize=11, color="#555555")


if __name__ == "__main__":
    main()
