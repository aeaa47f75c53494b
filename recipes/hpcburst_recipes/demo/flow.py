"""How fast did CO2 rise at Mauna Loa? As a Prefect flow: 64 small tasks, and one that draws.

The two tasks run in two envs with two Python minors, and none of them needs Prefect, Dask or this
package inside: the bodies are the plain functions of `co2`. Their env files are looked up in the
working directory; `workspace.lay_out` puts them there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task, unmapped

from hpcburst import needs
from hpcburst_recipes.demo import co2
from prefect_hpcburst import BurstTaskRunner

fit_block = task(retries=1, task_run_name="fit-{seed}")(
    needs(env="stats.yaml", memory="500MB", walltime="5m")(co2.fit_block)
)
reduce_and_plot = task(retries=1)(
    needs(env="plots.yaml", memory="1GB", walltime="5m")(co2.reduce_and_plot)
)


@flow(task_runner=BurstTaskRunner(max_jobs=8))  # type: ignore[arg-type]  # Prefect's is invariant
def co2_burst(
    record: str = "data/mauna_loa_co2.csv",
    out: str = "results-prefect",
    n_blocks: int = 64,
    draws: int = 1000,
) -> dict[str, Any]:
    """Fit the model to `n_blocks` x `draws` bootstrap copies of the record, and draw the result.

    Args:
        record: Path of the weekly record.
        out: Folder for `summary.json` and `co2.png`.
        n_blocks: How many tasks.
        draws: How many copies each of them fits.

    Returns:
        The summary: medians and 95 % intervals.
    """
    place = str(Path(record).absolute())
    fits: Any = fit_block.map(
        range(n_blocks), n_draws=unmapped(draws), record=unmapped(place)
    )  # futures
    drawn = reduce_and_plot.submit(fits, record=place, out=str(Path(out).absolute()))
    summary: dict[str, Any] = drawn.result()
    return summary


if __name__ == "__main__":
    co2_burst()
