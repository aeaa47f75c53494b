"""What is shown, written in open formats: nothing in a bundle is ever unpickled.

A table becomes Parquet, an array `.npy`, a figure PNG, plain data JSON; a file stays where it is
and is linked. What a value is, is seen from what it can do, not from whose class it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private
from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.question import check_name

DATA = "data"

PICTURES = frozenset({".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"})
"""Files that a page can show; scripts in an SVG do not run in an image."""

_SHOWN_AS = {"png": "picture", "npy": "array", "parquet": "table", "csv": "table", "json": "data"}


def write_item(bundle: Path, name: str, value: Any) -> dict[str, Any]:
    """Write something to show into a bundle.

    Args:
        bundle: The bundle; `data/` is there.
        name: Its name.
        value: A table, array, figure, plain data, or the path of a file.

    Returns:
        What the bundle says of it: file, format, sha256, bytes, and what it is shown as.

    Raises:
        RequestError: It has no open format, or the file is not there.
    """
    check_name(name)
    path = _file_of(value)
    if path is not None:
        return _linked(bundle, name, path)
    for fits, ending, write in _WRITERS:
        if fits(value):
            file = Path(DATA) / f"{name}.{ending}"
            write_private(bundle / file, write(name, value))
            return _item(bundle, file, ending, _SHOWN_AS[ending])
    raise _no_format(name, value)


def digest_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _item(bundle: Path, file: Path, form: str, shown_as: str) -> dict[str, Any]:
    path = bundle / file
    return {
        "file": str(file),
        "format": form,
        "sha256": digest_of(path),
        "bytes": path.stat().st_size,
        "shown_as": shown_as,
    }


def _file_of(value: Any) -> Path | None:
    """The file that is meant; a text is one only if there is such a file."""
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and len(value) < 1024 and "\n" not in value and "\0" not in value:
        path = Path(value)
        return path if path.is_file() else None
    return None


def _linked(bundle: Path, name: str, path: Path) -> dict[str, Any]:
    path = path.absolute()
    if not path.is_file():
        raise RequestError(f"The file {path} was to be shown as {name!r}", "there is none")
    ending = path.suffix.lower() if path.suffix[1:].isalnum() else ""
    file = Path(DATA) / f"{name}{ending}"
    (bundle / file).symlink_to(path)
    shown_as = "picture" if ending in PICTURES else "file"
    return _item(bundle, file, ending[1:] if ending in (".json", ".npy") else "file", shown_as)


def _is_figure(value: Any) -> bool:
    return callable(getattr(value, "savefig", None))


def _is_table(value: Any) -> bool:
    return hasattr(value, "__arrow_c_stream__") or callable(getattr(value, "to_csv", None))


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__")


def _png(name: str, value: Any) -> bytes:  # noqa: ARG001 - one signature for all writers
    import io

    file = io.BytesIO()
    value.savefig(file, format="png", dpi=110, bbox_inches="tight")
    return file.getvalue()


def _can_parquet(value: Any) -> bool:
    try:
        import pyarrow.parquet  # noqa: F401 - asked whether it is there
    except ImportError:
        return False
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "iloc")


def _parquet(name: str, value: Any) -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet

    file = io.BytesIO()
    try:
        whole = hasattr(value, "iloc")  # pandas: its index goes along only so
        table = pa.Table.from_pandas(value) if whole else pa.table(value)
        pa.parquet.write_table(table, file)
    except (pa.ArrowException, TypeError) as error:
        raise _no_format(name, value, str(error)) from error
    return file.getvalue()


def _csv(name: str, value: Any) -> bytes:
    if not callable(getattr(value, "to_csv", None)):
        raise _no_format(name, value, "without pyarrow a table must know `to_csv`")
    return str(value.to_csv()).encode()


def _npy(name: str, value: Any) -> bytes:
    import io

    import numpy as np

    file = io.BytesIO()
    try:
        np.save(file, np.asarray(value), allow_pickle=False)
    except ValueError as error:
        raise _no_format(name, value, "an array of objects would have to be pickled") from error
    return file.getvalue()


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple | Mapping)


def _json(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value, indent=1, allow_nan=True).encode()
    except (TypeError, ValueError) as error:
        raise _no_format(name, value, str(error)) from error


def _no_format(name: str, value: Any, why: str = "") -> RequestError:
    return RequestError(
        f"{name!r} was to be shown, a {type(value).__name__}",
        why or "there is no open format for it",
        "show a table, an array, a figure, plain data or the path of a file",
    )


_WRITERS: tuple[
    tuple[Callable[[Any], bool], str, Callable[[str, Any], bytes]],
    ...,
] = (
    (_is_figure, "png", _png),
    (_can_parquet, "parquet", _parquet),
    (_is_table, "csv", _csv),
    (_is_array, "npy", _npy),
    (_is_plain, "json", _json),
)
