"""Settings are checked before the first job, and the plug-in is cheap for who does not use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from hpcburst.tasks import Shape
from snakemake_executor_plugin_hpcburst.settings import ExecutorSettings, read_shapes

LOOK_AT_IMPORT = """
import json, sys
before = set(sys.modules)
import snakemake_interface_executor_plugins.executors.remote
interface = set(sys.modules)
import time
start = time.process_time()
import snakemake_executor_plugin_hpcburst
print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - interface)]))
"""


@pytest.fixture(autouse=True)
def conda_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A conda command on PATH that is new enough, so that no stand-in is made."""
    conda = tmp_path / "conda"
    conda.write_text("#!/bin/sh\necho conda 25.1.0\n")
    conda.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_importing_the_plugin_loads_nothing_heavy():
    """Every snakemake command imports every plug-in: ours adds only itself and plain data."""
    looked = subprocess.run(
        [sys.executable, "-c", LOOK_AT_IMPORT], check=True, capture_output=True, text=True
    )
    seconds, added = json.loads(looked.stdout)
    packages = {name.split(".")[0] for name in added}
    assert not packages & {"distributed", "dask", "rattler", "yaml", "numpy", "snakemake"}
    assert {name for name in added if name.startswith("hpcburst.")} <= {
        "hpcburst._version",
        "hpcburst.amounts",
        "hpcburst.errors",
        "hpcburst.placement",
        "hpcburst.tasks",
        "hpcburst.results",
        "hpcburst.templates",
    }
    assert seconds < 0.25


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("", ()),
        ("4:8GB:30m", (Shape(4, 8000, 0, 1800.0),)),
        (
            "1:2GB:5m, 8:64GB:1h:2:gpu",
            (Shape(1, 2000, 0, 300.0), Shape(8, 64000, 2, 3600.0, "gpu")),
        ),
        ("2:4GB:1h::long", (Shape(2, 4000, 0, 3600.0, "long"),)),
    ],
)
def test_shapes_are_read_as_they_are_documented(text, shapes):
    """CORES:MEMORY:WALLTIME[:GPUS[:QUEUE]], separated by commas."""
    assert read_shapes(text) == shapes


@pytest.mark.parametrize(
    "text", ["4", "4:8GB", "x:8GB:30m", "4:8GB:30m:many", "4:8GB:soon", "0:1GB:1m"]
)
def test_a_shape_that_cannot_be_read_is_refused_before_any_job(text):
    """The refusal names the setting."""
    with pytest.raises(WorkflowError, match="--hpcburst-shapes"):
        check(ExecutorSettings(shapes=text))


@pytest.mark.parametrize(
    "values",
    [
        {"max_jobs": 0},
        {"default_mem_mb": -1},
        {"default_runtime": 0},
        {"mode": "fast"},
        {"conda": "mamba"},
        {"keep_logs_days": -1},
        {"efficiency_threshold": -0.1},
    ],
)
def test_an_impossible_setting_is_refused_before_any_job(values):
    """Amounts are at least 1 and the mode is one that exists."""
    with pytest.raises(WorkflowError, match="--hpcburst-"):
        check(ExecutorSettings(**values))


def check(settings: ExecutorSettings) -> None:
    """Settings check themselves when they are made; this line is only reached if they did not."""
    pytest.fail(f"{settings} was accepted")


def test_every_setting_has_a_help_text_with_its_default():
    """`snakemake --help` tells the default and the unit of each setting."""
    fields = ExecutorSettings.__dataclass_fields__.values()
    texts = {field.name: field.metadata["help"] for field in fields}
    assert all("(default: " in text for text in texts.values())
    assert "MB" in texts["default_mem_mb"]
    assert "Minutes" in texts["default_runtime"]
