"""Each recipe of the gallery runs as its README says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.processes import wait_until

GALLERY = Path(__file__).parents[2] / "recipes" / "gallery"


def test_the_quality_gate_goes_on_with_the_samples_that_were_kept(
    tmp_path: Path, prefect_api: str
) -> None:
    """The choices come from the data, the best is preselected, and what is said is kept."""
    environ = {
        **os.environ,
        "PREFECT_API_URL": prefect_api,
        "DASK_HPCBURST__SHARED_ROOT": str(tmp_path / "shared"),
    }

    def hpcburst(*words: str) -> Any:
        argv = [sys.executable, "-m", "hpcburst.cli.main", "checkpoint", *words, "--json"]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    script = GALLERY / "01-quality-gate" / "quality_gate.py"
    argv = [sys.executable, str(script)]
    with subprocess.Popen(
        argv, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as flow:
        try:
            desk = tmp_path / "shared" / "checkpoints"
            waits = lambda: flow.poll() is not None or [*desk.glob("[!.]*")]  # noqa: E731 - a condition
            wait_until(waits, "the question", within_s=120)
            field = hpcburst("show", "quality-gate")["schema"]["properties"]["threshold"]
            assert len(field["enum"]) == 5
            assert field["default"] in field["enum"]
            hpcburst("approve", "quality-gate", "drop=sample-01")
            out, log = flow.communicate(timeout=120)
        finally:
            flow.kill()
    kept = out.split()
    place = field["enum"].index(field["default"])
    expected = int(field["words"][place].split()[1])
    assert flow.returncode == 0, log
    assert "sample-01" not in kept
    assert len(kept) in (expected, expected - 1)
