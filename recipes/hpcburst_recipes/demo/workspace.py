"""Lays the demo out in a folder: everything that runs in it can be read and changed there."""

from __future__ import annotations

from pathlib import Path

from hpcburst_envs import write_env_files

_FILES = ("co2.py", "flow.py", "Snakefile", "data/mauna_loa_co2.csv", "data/README.md")

_OURS, _THEIRS = b"from hpcburst_recipes.demo import co2", b"import co2"
"""The flow in the folder takes the science beside it. So a change there has an effect, and the
functions are the user's own, which travel as source; those of an installed package do not."""


def lay_out(
    folder: Path,
    *,
    channel: str = "conda-forge",
    stats_python: str = "3.12",
    plots_python: str = "3.13",
) -> Path:
    """Put the pipelines, their data and their env files into a folder, for both engines to run in.

    A file that is there with other content is written anew.

    Args:
        folder: The folder; made with access for its owner alone if it is missing.
        channel: Name or url of the conda channel the envs come from.
        stats_python: Python minor of the env that fits.
        plots_python: Python minor of the env that draws.

    Returns:
        The folder, absolute.
    """
    here = Path(__file__).parent
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in _FILES:
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        content = (here / name).read_bytes().replace(_OURS, _THEIRS)
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)
    write_env_files(folder, channel=channel, stats_python=stats_python, plots_python=plots_python)
    return folder
