"""How `hpcburst env` says things: sizes, ages and columns, the same on a terminal and in a log."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SPANS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_GAP = "  "


def size_text(count: float) -> str:
    """Bytes for people: "93.9 MB"."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def part_text(done: float, total: float) -> str:
    """Bytes out of all bytes, in the unit of these: "45.0/150.0 MB"."""
    unit, name = next(((unit, name) for unit, name in _UNITS if total >= unit), (1.0, "B"))
    digits = 1 if unit > 1 else 0
    return f"{done / unit:.{digits}f}/{total / unit:.{digits}f} {name}"


def span_text(seconds: float) -> str:
    """A length of time for people: "3 d", "5 h", "12 min", "now" below a minute."""
    for unit, name in _SPANS:
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return "now"


def ago_text(moment: float | None) -> str:
    """How long ago something was: "3 d ago"; "-" if that is not known."""
    if not moment:
        return "-"
    text = span_text(time.time() - moment)
    return text if text == "now" else f"{text} ago"


def moment_text(moment: float) -> str:
    """A date and time of this machine's clock; "-" if it is not known."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) if moment else "-"


def count_text(count: int, name: str) -> str:
    """A number of things: "1 file", "2 files"."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def print_json(document: object, *, lines: bool = False) -> None:
    """Print a document for programs; in `lines`, one document is one line."""
    print(json.dumps(document, indent=None if lines else 1), flush=lines)


def print_columns(
    rows: Sequence[Sequence[object]], *, head: Sequence[str] = (), right: Sequence[int] = ()
) -> None:
    """Print rows in columns; on a terminal the last column is cut to its width.

    Args:
        rows: Cells, all rows equally long.
        head: Names of the columns.
        right: Columns of numbers, set to the right.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    table = [list(head), *texts] if head else texts
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for number, cells in enumerate(table):
        line = _GAP.join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        line = _cut(line.rstrip())
        print(strong(line) if head and number == 0 else line)


def strong(text: str) -> str:
    """Text that stands out on a terminal."""
    return f"\033[1m{text}\033[0m" if _is_coloured() else text


def alarming(text: str) -> str:
    """Text that tells of harm."""
    return f"\033[1;31m{text}\033[0m" if _is_coloured() else text


def _is_coloured() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not plain


def _cut(line: str) -> str:
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else line[: width - 1] + "…"


def as_text(value: Any) -> str:
    """A value as one line: control characters in it are shown, not obeyed."""
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]
