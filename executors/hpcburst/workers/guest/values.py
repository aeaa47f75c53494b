"""Values as bytes that a Python of another minor version, with another numpy or none, can read.

Pickle protocol 5 with large buffers out of band. numpy arrays and scalars are written in a neutral
form, because numpy's own pickles name modules that other numpy versions do not have. Shared by both
ends: the driver imports this module from hpcburst, the env imports its copy.
"""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import sys
from typing import Any, Callable, Iterable

from . import stored

LARGE_BYTES = 32 * 1024
"""Buffers of this size and more travel out of band; below, a copy costs less than a frame."""

MODULE_NAMES = frozenset({"hpcburst.workers.guest.values", "hpcburst_guest.values"})
"""Names of this module at the two ends: what either pickles, both can load."""

_FORMATS = {
    "f8": "d", "f4": "f", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip
_NATIVE = "<>"[sys.byteorder == "big"] + "|"

_MOVED = {"numpy._core": "numpy.core", "pathlib._local": "pathlib"}
"""Modules that numpy 2 and Python 3.13 name in pickles, and where things were before."""

Key = Callable[[Any], "tuple[Any, ...] | None"]
Resolve = Callable[..., Any]


def dumps(
    value: Any, *, key_of: Key | None = None, in_band: bool = False
) -> tuple[bytes, list[memoryview]]:
    """A value as a payload and the large buffers that go beside it.

    Args:
        value: What to write.
        key_of: Gives a key for functions and classes that the other end knows by another way than
            importing them, or None; the other end's `resolve` gets that key.
        in_band: Whether everything goes into the payload, however large.

    Returns:
        The payload, and views of the buffers (no copies: they see later changes).

    Raises:
        Exception: Whatever pickling the value raises (`pickle.PicklingError`, `TypeError`, ...).
    """
    buffers: list[memoryview] = []

    def stays_in_band(buffer: pickle.PickleBuffer) -> bool:
        view = _raw(buffer)
        if view is None or view.nbytes < LARGE_BYTES:
            return True
        buffers.append(view)
        return False

    file = io.BytesIO()
    _Pickler(file, None if in_band else stays_in_band, key_of).dump(value)
    return file.getvalue(), buffers


def loads(
    payload: bytes | bytearray | memoryview,
    buffers: Iterable[Any] = (),
    *,
    resolve: Resolve | None = None,
) -> Any:
    """The value that `dumps` wrote, at this end or the other.

    Args:
        payload: The first part.
        buffers: The second part, in the same order.
        resolve: Finds what a key of `dumps(key_of=...)` stands for, and is asked first for
            `(module, qualified name)` of every function and class; raises KeyError to decline.

    Raises:
        Exception: Whatever unpickling raises (`ModuleNotFoundError`, `AttributeError`, ...).
    """
    return _Unpickler(io.BytesIO(payload), buffers, resolve).load()


def find(module: str, qualname: str) -> Any:
    """What a module holds under a qualified name.

    Raises:
        ImportError: There is no such module.
        AttributeError: There is no such name in it.
    """
    if "<locals>" in qualname:
        raise AttributeError(
            "{} is defined inside a function, where it cannot be found again; "
            "define it at the top of its file".format(qualname)
        )
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError:
        older = _older_name(module)
        if older is None:
            raise
        found = importlib.import_module(older)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, callback: Any, key_of: Key | None) -> None:
        super().__init__(file, 5, buffer_callback=callback)
        self._key_of = key_of

    def reducer_override(self, value: Any) -> Any:
        """Neutral forms; everything else is pickled as usual."""
        if self._key_of is not None:
            key = self._key_of(value)
            if key is not None:
                return resolved, key
        if type(value).__module__ == "numpy":
            return _reduce_numpy(value)
        if isinstance(value, memoryview):
            return _reduce_view(value)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, buffers: Iterable[Any], resolve: Resolve | None) -> None:
        super().__init__(file, buffers=buffers)
        self._resolve = resolve

    def find_class(self, module: str, name: str) -> Any:
        """Our own functions under any of our names, then what `resolve` knows, then imports."""
        if module in MODULE_NAMES:
            own = {"resolved": self._known, "load_kept": self._kept}
            return own[name] if name in own else globals()[name]
        if self._resolve is not None:
            try:
                return self._resolve(module, name)
            except KeyError:
                pass
        try:
            return super().find_class(module, name)
        except ModuleNotFoundError:
            older = _older_name(module)
            if older is None:
                raise
            return super().find_class(older, name)

    def _kept(self, path: str) -> Any:
        return load_kept(path, resolve=self._resolve)

    def _known(self, *key: Any) -> Any:
        if self._resolve is None:
            return find(*key)
        try:
            return self._resolve(*key)
        except KeyError:
            return find(*key)


def resolved(*key: Any) -> Any:
    """Stands in pickles for what a key means; `loads` puts its own `resolve` in its place."""
    return find(*key)


class Kept:
    """Stands in pickles for a value kept in a file; who loads them gets the value.

    Args:
        path: The file, which `stored.write` made.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return load_kept, (self._path,)


def load_kept(path: str, *, resolve: Resolve | None = None) -> Any:
    """The value that is kept in a file.

    Args:
        path: The file.
        resolve: As for `loads`.

    Raises:
        OSError: There is no such file.
        Exception: Whatever unpickling raises.
    """
    payload, buffers = stored.read(path)
    return loads(payload, buffers, resolve=resolve)


def _older_name(module: str) -> str | None:
    for newer, older in _MOVED.items():
        if module == newer or module.startswith(newer + "."):
            return older + module[len(newer) :]
    return None


def _raw(buffer: pickle.PickleBuffer) -> memoryview | None:
    try:
        return buffer.raw()
    except BufferError:  # not contiguous
        return None


# --- memoryview ----------------------------------------------------------------------------------


def _reduce_view(view: memoryview) -> Any:
    if view.nbytes == 0 or not view.contiguous or view.f_contiguous != view.c_contiguous:
        flat = memoryview(bytearray(view.tobytes()))
    else:
        flat = view.cast("B")
    return make_view, (view.format, view.shape, not view.readonly, pickle.PickleBuffer(flat))


def make_view(form: str, shape: tuple[int, ...], writable: bool, buffer: Any) -> memoryview:
    """A shaped memoryview over a buffer; over a copy of it if that must be writable and is not."""
    flat = memoryview(buffer).cast("B")
    if writable and flat.readonly:
        flat = memoryview(bytearray(flat))
    elif not writable:
        flat = flat.toreadonly()
    return flat.cast(form, shape) if flat.nbytes else flat  # type: ignore[call-overload]


# --- numpy ---------------------------------------------------------------------------------------


def _reduce_numpy(value: Any) -> Any:
    numpy = sys.modules["numpy"]
    if type(value) in (numpy.ndarray, numpy.memmap):
        return _reduce_array(value)
    if isinstance(value, numpy.generic) and type(value) is value.dtype.type:
        text = _dtype_text(value.dtype)
        if text is not None and value.dtype.itemsize:
            return make_scalar, (text, value.tobytes())
    return NotImplemented


def _reduce_array(array: Any) -> Any:
    if array.dtype.kind == "O":
        return make_objects, (array.shape, array.ravel().tolist())
    text = _dtype_text(array.dtype)
    if text is None:
        return NotImplemented
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    writable = bool(array.flags.writeable)
    if not array.nbytes:
        return make_array, (text, array.shape, order, writable, b"")
    if not array.flags.forc:
        array = array.copy(order="C")
    flat = array.view(sys.modules["numpy"].ndarray).reshape(-1, order=order).view("u1")
    return make_array, (text, array.shape, order, writable, pickle.PickleBuffer(flat))


def _dtype_text(dtype: Any) -> Any:
    """A dtype in plain values, or None if it holds more than they can say."""
    if dtype.hasobject or dtype.metadata is not None or dtype.kind not in "?biufcmMSUV":
        return None
    if dtype.subdtype:
        inner = _dtype_text(dtype.subdtype[0])
        return None if inner is None else (inner, dtype.subdtype[1])
    if dtype.names is None:
        return dtype.str
    if any(len(field) > 2 for field in dtype.fields.values()):  # titles
        return None
    formats = [_dtype_text(dtype.fields[name][0]) for name in dtype.names]
    offsets = [dtype.fields[name][1] for name in dtype.names]
    if None in formats:
        return None
    return {
        "names": list(dtype.names),
        "formats": formats,
        "offsets": offsets,
        "itemsize": dtype.itemsize,
    }


def make_array(dtype: Any, shape: tuple[int, ...], order: str, writable: bool, buffer: Any) -> Any:
    """An array over a buffer; a shaped memoryview where there is no numpy.

    Raises:
        ModuleNotFoundError: There is no numpy here, and a memoryview cannot show such an array.
    """
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        return _array_without_numpy(dtype, shape, order, writable, buffer)
    if not len(buffer):
        return numpy.empty(shape, numpy.dtype(dtype), order=order)
    array = numpy.ndarray(shape, numpy.dtype(dtype), buffer=buffer, order=order)
    if writable and not array.flags.writeable:
        return array.copy(order="A")
    array.flags.writeable = writable
    return array


def make_objects(shape: tuple[int, ...], values: list[Any]) -> Any:
    """An array of Python objects, from them in C order."""
    numpy = _numpy("an array of Python objects")
    array = numpy.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array.reshape(shape)


def make_scalar(dtype: Any, raw: bytes) -> Any:
    """A numpy scalar; the Python number where there is no numpy.

    Raises:
        ModuleNotFoundError: There is no numpy here, and Python has no such number.
    """
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        form = _format(dtype)
        if form is not None:
            return struct.unpack("=" + form, raw)[0]
        _numpy("a numpy scalar of dtype {}".format(dtype))
    return numpy.ndarray((), numpy.dtype(dtype), buffer=raw)[()]


def _array_without_numpy(
    dtype: Any, shape: tuple[int, ...], order: str, writable: bool, buffer: Any
) -> Any:
    form = _format(dtype)
    if form is None or order != "C" or not len(buffer):
        _numpy("a numpy array of dtype {} and shape {}".format(dtype, shape))
    return make_view(str(form), shape, writable, buffer)


def _format(dtype: Any) -> str | None:
    if isinstance(dtype, str) and dtype[:1] in _NATIVE:
        return _FORMATS.get(dtype[1:])
    return None


def _numpy(what: str) -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise ModuleNotFoundError(
            "{} is to be read here, and {} has no numpy".format(what, sys.prefix), name="numpy"
        ) from None
