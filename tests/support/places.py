"""Where the suite keeps what is slow to make."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("HPCBURST_TEST_CACHE", Path(__file__).parents[2] / ".cache" / "tests"))
"""The suite's conda channels are kept here between runs; building one takes half a minute."""
