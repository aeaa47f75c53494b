"""`hpcburst jobs why`: why is nothing running?"""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING

from hpcburst.cli.env_words import as_text, print_json, strong

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from hpcburst.cli.jobs_found import FoundRun
    from hpcburst.pools.state import RunNow

LATE_S = 130.0
"""A driver that lives and has told nothing for so long, though it tells once a minute that it is
there, is stopped or its file system hangs."""

LEAST_COLUMNS = 30
"""Words in a narrower column are harder to read than a long line."""


def why(args: argparse.Namespace) -> int:
    """Print a reason for every shape, every job and every group of waiting tasks.

    Raises:
        RequestError: No run is called so, or several are.
    """
    from hpcburst.cli.jobs import document
    from hpcburst.cli.jobs_found import find_runs, pick
    from hpcburst.policy.load import load_site
    from hpcburst.pools.saying import answer

    there = find_runs(load_site().paths.shared_root)
    runs = [pick(there, args.name)] if args.name else there
    if args.json:
        rows = [{**document(run), "answer": run.state and answer(run.state)} for run in runs]
        print_json(rows)
        return 0
    for number, run in enumerate(runs):
        if number:
            print()
        _say(run)
    if not runs:
        print("no run of yours goes on: nothing is running because nothing was started")
    return 0


def _say(run: FoundRun) -> None:
    from hpcburst.cli.jobs_found import Standing
    from hpcburst.pools.saying import answer

    print(strong(f"run {run.name}"), _driver_words(run))
    if run.standing is Standing.LOST:
        print("Nobody looks after it: `hpcburst jobs clean` ends its jobs and removes its keys.")
    if run.state is None:
        print("It has told nothing that can be read.")
    elif run.standing is Standing.LIVE:
        print(as_text(answer(run.state)))
        _say_state(run.state)
    else:
        _say_left(run.state)


def _driver_words(run: FoundRun) -> str:
    from hpcburst.pools.saying import duration

    driver = f"{run.driver.host}, process {run.driver.pid}" if run.driver.host else "unknown"
    standing = "" if run.driver.alive else f", {run.standing.value}"
    if run.state is None:
        return f"(driver: {driver}{standing})"
    ago_s = time.time() - run.state.told_at
    if run.driver.alive and ago_s < LATE_S:
        return f"(driver: {driver}; unchanged for {duration(ago_s)})"
    late = ": it is stopped, or its file system hangs" if run.driver.alive else ""
    return f"(driver: {driver}{standing}; told {duration(ago_s)} ago{late})"


def _say_state(state: RunNow) -> None:
    from hpcburst.pools.saying import counts_words, job_words, shape_words, tasks_words

    now = time.time()
    _say_rows(
        f"tasks: {tasks_words(state)}",
        [(f"{row.waiting} wait", row.what, row.why) for row in state.tasks if row.waiting],
    )
    _say_rows(
        f"shapes{_budget_words(state)}",
        [(str(row.shape), counts_words(row.stages), shape_words(row, now)) for row in state.shapes],
    )
    _say_rows(
        "jobs" if state.jobs else "jobs: none",
        [(job.name, job.job_id or "-", job.host or "-", job_words(job, now)) for job in state.jobs],
    )


def _say_left(state: RunNow) -> None:
    """The jobs it had when it told last; what would happen next was the driver's to do."""
    _say_rows(
        "jobs it had" if state.jobs else "jobs it had: none",
        [(job.name, job.job_id or "-", job.host or "-", job.stage.value) for job in state.jobs],
    )


def _budget_words(state: RunNow) -> str:
    if state.budget is None:
        return ""
    return f" ({state.core_hours:.3g} of {state.budget:g} core-hours spent)"


def _say_rows(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns; the last one, which is what is asked for, is folded and never cut."""
    print(f"\n{title}")
    cells = [[as_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    for *first, last in cells:
        lead = "".join(f"  {cell.ljust(width)}" for cell, width in zip(first, widths, strict=True))
        print(_folded(f"{lead}  ", last))


def _folded(lead: str, text: str) -> str:
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or width < len(lead) + LEAST_COLUMNS:
        return lead + text
    below = " " * len(lead)
    return textwrap.fill(text, width, initial_indent=lead, subsequent_indent=below)
