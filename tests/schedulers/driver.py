"""A driver as users have it, in a process of its own: told what to do by lines of JSON on stdin.

{"launch": COUNT, "seconds": S, "needs": {...}}   queue so many tasks, each of so many seconds
{"wait": SECONDS}                                 say what became of all tasks
{"why": true} {"pilots": true} {"close": true}
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from hpcburst import BurstCluster
from hpcburst.answers import value_of
from hpcburst.bodies import call_of
from hpcburst.tasks import Burst, read_needs


def body(seconds: float) -> dict[str, Any]:
    """What a task does: it tells where it was."""
    import os
    import time as clock

    clock.sleep(seconds)
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID", "")
    queue = os.environ.get("SLURM_JOB_PARTITION") or os.environ.get("QUEUE", "")
    return {"job": job, "node": os.uname().nodename, "queue": queue, "cores": os.cpu_count()}


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    settings = json.loads(sys.argv[1])
    started, futures = time.monotonic(), []
    with BurstCluster(**settings) as cluster:
        say({"run": str(cluster.run_folder)})
        for line in sys.stdin:
            asked = json.loads(line)
            if "launch" in asked:
                needs = read_needs(asked.get("needs", {}))
                for _ in range(asked["launch"]):
                    call = call_of(body, (asked["seconds"],), {})
                    futures.append(cluster.launch(Burst("nap", call, needs)))
                say({"launched": len(futures)})
            elif "wait" in asked:
                say([ended(future, asked["wait"]) for future in futures])
                futures = []
            elif "why" in asked:
                say(cluster.why())
            elif "pilots" in asked:
                asked, submitted = len(cluster.plan), len(cluster.requested)
                say({"asked": asked, "submitted": submitted, "up": len(cluster.observed)})
            else:
                break
    say({"closed": time.monotonic() - started})


def ended(future: Any, within_s: float) -> dict[str, Any]:
    """The value of a task, or the error."""
    try:
        return value_of(future.result(within_s), "nap")
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


if __name__ == "__main__":
    main()
