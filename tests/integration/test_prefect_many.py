"""A very large `map`: some hundred threads, and a bounded number of copies of what all get."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SCRIPT = """
import json, sys, threading, time
from pathlib import Path
from prefect import flow, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect_hpcburst import BurstTaskRunner

TABLE = bytearray(2_000_000)

@task(cache_policy=NO_CACHE)
def hold(number, table):
    time.sleep(600)

def rss_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6

class Enough(Exception):
    pass

@flow(task_runner=BurstTaskRunner(max_jobs=1, site={"shared-root": sys.argv[1]}))
def pipeline(told):
    hold.submit(0, b"")
    before, threads = rss_mb(), threading.active_count()
    begun = time.monotonic()
    futures = hold.map(range(10_000), unmapped(TABLE))
    told["mapped_s"] = time.monotonic() - begun
    until = time.monotonic() + 30
    while threading.active_count() < threads + 500 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(2)  # let engines gather what they send
    told["grown_mb"], told["threads"] = rss_mb() - before, threading.active_count()
    told["count"] = len(futures)
    raise Enough

if __name__ == "__main__":
    told = {}
    try:
        pipeline(told)
    except Enough:
        print("TOLD " + json.dumps(told))
"""


def test_ten_thousand_items(prefect_api, script, shared_root):
    """Ten thousand items with a table for all: some hundred threads, a bounded part of tables."""
    done = subprocess.run(
        [sys.executable, str(script(SCRIPT)), str(shared_root)],
        env={**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "CRITICAL"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TOLD" in done.stdout, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    told = json.loads(line.removeprefix("TOLD "))
    assert told["count"] == 10_000
    assert told["threads"] < 600
    assert told["grown_mb"] < 700, "512 engines would hold 1,000 MB of tables, and 10,000 20 GB"
