"""A driver inside a batch job: what the job's script runs, which then becomes the driver.

    python -m hpcburst.workers.detached FOLDER ...

`task.json` in the private folder says what to run, where and with which environment. It is removed
as soon as it is read: it may hold what nobody else should see.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

TASK = "task.json"


def main(argv: list[str]) -> NoReturn:
    """Become the driver, in the batch job's environment with the user's on top."""
    path = Path(argv[0]) / TASK
    task = json.loads(path.read_bytes())
    path.unlink()
    os.chdir(task["cwd"])
    environ = {**os.environ, **task["environ"]}
    sys.stdout.flush()
    os.execvpe(task["argv"][0], task["argv"], environ)  # noqa: S606 - argv as data, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
