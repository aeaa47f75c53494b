"""Environment files that the recipes, the demo and the documentation use."""

from __future__ import annotations

from pathlib import Path

import yaml


def env_file(name: str) -> Path:
    """The path of an environment file of this package, by its name without `.yaml`.

    Raises:
        FileNotFoundError: There is no env of that name.
    """
    path = Path(__file__).parent / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.yaml")))
        raise FileNotFoundError(f"there is no env {name!r}; there are: {known}")
    return path


def write_env_files(
    folder: Path,
    *,
    channel: str = "conda-forge",
    stats_python: str = "3.12",
    plots_python: str = "3.13",
) -> tuple[Path, Path]:
    """Write `stats.yaml` and `plots.yaml` with the Pythons and the channel that are at hand.

    A file that is right already is left alone, so that its env is not made again.

    Args:
        folder: Where they go.
        channel: Name or url of the conda channel.
        stats_python: Python minor of the first.
        plots_python: Python minor of the second.

    Returns:
        Their paths.
    """
    return (
        _write(folder, "stats", channel, stats_python),
        _write(folder, "plots", channel, plots_python),
    )


def _write(folder: Path, name: str, channel: str, python: str) -> Path:
    spec = yaml.safe_load(env_file(name).read_text(encoding="utf-8"))
    spec["channels"] = [channel]
    pins = [
        f"python={python}" if item.startswith("python=") else item for item in spec["dependencies"]
    ]
    text = yaml.safe_dump(spec | {"dependencies": pins}, sort_keys=False)
    path = folder / f"{name}.yaml"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path
