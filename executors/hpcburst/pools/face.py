"""How a cluster looks: in a notebook, on a rich console. Dask's own look, and reasons in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from hpcburst.pools.saying import (
    answer,
    counted,
    counts_words,
    job_words,
    shape_words,
    stages_words,
    tasks_words,
)

if TYPE_CHECKING:
    from hpcburst.pools.state import RunNow, ShapeNow

MOST_JOBS = 20
"""Jobs that a look lists; of more, nobody reads each."""

_LEFT = 'style="text-align: left; vertical-align: top; padding-right: 1em;"'


class Face:
    """The looks of a `BurstCluster`, which it is mixed into."""

    if TYPE_CHECKING:
        name: str
        scheduler_address: str

        def now(self) -> RunNow:
            """See `BurstCluster`."""

    def _seen(self) -> RunNow | None:
        """What the run is doing; None before it started."""
        return self.now() if hasattr(self, "_keeper") else None

    def __rich_repr__(self) -> Iterator[Any]:
        yield self.name
        yield self.scheduler_address
        run = self._seen()
        if run is not None:
            yield "tasks", tasks_words(run), "0 waiting, 0 running, 0 done"
            yield "jobs", stages_words(job.stage for job in run.jobs), "none"

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        run = self._seen()
        title = Text.assemble((repr(self), "bold"))
        return Group(title, *(_rich_parts(run) if run is not None else ()))

    def _repr_html_(self, cluster_status: str | None = None) -> str:
        """Dask's own table, with tasks, shapes and jobs and their reasons in it."""
        reasons = f"<tr><td colspan=2>{self._reasons_html()}</td></tr>"
        return self._dask_html(cluster_status or reasons)

    def _dask_html(self, rows: str = "") -> str:
        return str(super()._repr_html_(rows))  # type: ignore[misc]  # Dask's, which we are before

    def _reasons_html(self) -> str:
        run = self._seen()
        return "" if run is None else _html(run)

    def _scaling_status(self) -> str:
        run = self._seen()
        if run is None:
            return "not started yet"
        cells = ("Pilots follow demand.", f"Jobs: {stages_words(job.stage for job in run.jobs)}.")
        rows = "".join(f"<tr><td {_LEFT}>{escape(cell)}</td></tr>" for cell in cells)
        return f"<table>{rows}</table>"

    def _widget(self) -> Any:
        """Dask's widget, with controls that answer; None where ipywidgets is not installed."""
        if not hasattr(self, "_cached_widget"):
            from hpcburst.pools.notebook import widget

            # Apart, because what changes is drawn anew: Dask's part, which folds, seldom does.
            status = (self._dask_html, self._reasons_html)
            self._cached_widget = widget(self, status, self._scaling_status)
        return self._cached_widget


def _rich_parts(run: RunNow) -> Iterator[Any]:
    from rich.table import Table
    from rich.text import Text

    now = time.time()
    yield Text(f"{answer(run)}\ntasks: {tasks_words(run)}")
    table = Table("shape", "jobs", "why", box=None, pad_edge=False)
    for row in run.shapes:
        table.add_row(*map(Text, _shape_cells(row, now)))
    for job in run.jobs[:MOST_JOBS]:
        table.add_row(*map(Text, (f"  {job.name}", job.job_id or "-", job_words(job, now))))
    yield table
    if len(run.jobs) > MOST_JOBS:
        yield Text(f"  and {counted(len(run.jobs) - MOST_JOBS, 'other job')}")


def _html(run: RunNow) -> str:
    """Everything in it is data, whoever wrote it."""
    now = time.time()
    rows = [_html_row(_shape_cells(row, now)) for row in run.shapes]
    rows += [
        _html_row((job.name, job.job_id or "-", job_words(job, now)))
        for job in run.jobs[:MOST_JOBS]
    ]
    more = len(run.jobs) - MOST_JOBS
    rows += [_html_row(("", "", f"and {counted(more, 'other job')}"))] if more > 0 else []
    return (
        f"<p {_LEFT}><strong>Tasks:</strong> {escape(tasks_words(run))}<br/>"
        f"{escape(answer(run))}</p><table>{''.join(rows)}</table>"
    )


def _html_row(cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<td {_LEFT}>{escape(cell)}</td>' for cell in cells)}</tr>"


def _shape_cells(row: ShapeNow, now: float) -> tuple[str, str, str]:
    return str(row.shape), counts_words(row.stages), shape_words(row, now)
