"""A driver in any Python: calls bodies in the interpreter it is given, and tells what came back.

Run as `python guest_driver.py ENV_PYTHON FOLDER`, with the core on PYTHONPATH and nothing else of
ours. Prints one JSON object: the name of each check, and "ok" or what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcburst.bodies import call_of
from hpcburst.workers.guest import values
from hpcburst.workers.guests import Guest, install_guest

BY = 3


@dataclass
class Point:
    x: int

    def moved(self):
        return Point(self.x + helper())


def helper():
    return BY


def moved(point):
    return point.moved()


def doubled(array):
    return array * 2


def same(thing):
    return thing


def total_of(frame):
    return frame["number"].sum(), type(frame).__module__.split(".")[0]


class Checks:
    """Calls in one guest, each with its result looked at."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.told: dict[str, str] = {}

    def value(self, function: Any, *args: Any) -> Any:
        reply = self._guest.call(call_of(function, args))
        if reply.failure is not None:
            raise RuntimeError(f"{reply.failure.message}\n{reply.failure.traceback}")
        return values.loads(reply.payload, reply.buffers)

    def check(self, name: str, function: Any) -> None:
        try:
            self.told[name] = "ok" if function() else "another value"
        except Exception:
            self.told[name] = traceback.format_exc()


def plain(checks: Checks) -> None:
    offset = 40
    checks.check("a closure", lambda: checks.value(lambda x: x + offset, 2) == 42)
    checks.check("a helper and a class", lambda: checks.value(moved, Point(1)) == Point(4))
    block = memoryview(bytearray(os.urandom(1 << 20)))
    checks.check("a large buffer", lambda: checks.value(same, block) == block)


def arrays(checks: Checks) -> None:
    import numpy as np

    made = {
        "small": np.arange(6.0).reshape(2, 3),
        "large": np.arange(200_000, dtype="i4").reshape(400, 500),
        "fortran": np.asfortranarray(np.ones((300, 40))),
        "dates": np.arange("2020-01", "2020-09", dtype="datetime64[D]"),
        "records": np.array([(1, 2.0, "a")], dtype="i4,f8,U3"),
        "objects": np.array([1, "a", None], dtype=object),
        "scalar": np.float32(1.5),
    }
    for name, thing in made.items():

        def equal(thing=thing):
            back = checks.value(same, thing)
            return type(back) is type(thing) and (back == thing).all() and back.dtype == thing.dtype

        checks.check(f"array: {name}", equal)
    big = np.random.default_rng(1).random(100_000)
    checks.check("array: computed", lambda: bool((checks.value(doubled, big) == big * 2).all()))
    checks.check("array: made there", lambda: checks.value(lambda: _made().sum()) == 10)


def _made():
    import numpy as np

    return np.ones(10)


def frames(checks: Checks) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "number": range(10_000),
            "float": [i / 7 for i in range(10_000)],
            "text": [f"t{i % 5}" for i in range(10_000)],
            "day": pd.date_range("2020-01-01", periods=10_000, freq="h"),
            "kind": pd.Categorical([f"k{i % 3}" for i in range(10_000)]),
        }
    )
    indexed = frame.set_index(["kind", "number"])
    checks.check("frame: there", lambda: checks.value(total_of, frame)[0] == 49_995_000)
    for name, thing in {"plain": frame, "indexed": indexed, "series": frame["float"]}.items():
        checks.check(f"frame: {name}", lambda thing=thing: checks.value(same, thing).equals(thing))
    checks.check("frame: made there", lambda: len(checks.value(_a_frame)) == 3)


def _a_frame():
    import pandas as pd

    return pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]}, index=pd.RangeIndex(3))


def tables(checks: Checks) -> None:
    import pyarrow as pa

    columns = {"number": list(range(50_000)), "text": [f"t{i}" for i in range(50_000)]}
    table = pa.table(columns)
    checks.check("table: whole", lambda: checks.value(same, table).equals(table))
    checks.check("table: a slice", lambda: checks.value(same, table[10:20]).equals(table[10:20]))
    batch = table.to_batches()[0]
    checks.check("table: a batch", lambda: checks.value(same, batch).equals(batch))
    payload, buffers = values.dumps(table)
    checks.check("table: out of band", lambda: len(buffers) == 3 and len(payload) < 4_000)


def main() -> None:
    python, folder = sys.argv[1:3]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    guest = Guest(python, environ=environ, home=install_guest(Path(folder)))
    checks = Checks(guest)
    try:
        plain(checks)
        for module, more in (("numpy", arrays), ("pandas", frames), ("pyarrow", tables)):
            if module in sys.argv[3:]:
                more(checks)
    finally:
        guest.close()
    print(json.dumps(checks.told))


if __name__ == "__main__":
    main()
