"""A checkpoint's bundle as everyone sees it: the question, the data, and the answers given so far.

A copy of this file lies in every bundle, because the notebook's kernel runs in the env of the task:
it is the standard library alone, of any Python from 3.8 on, and imports nothing of hpcburst.

An answer is a file made by link(2): that is atomic on every shared file system and refuses a second
one. Answers are numbered: when the flow refuses one, which only its own model can, the next number
is open.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import time
from typing import Any

QUESTION_FILE = "checkpoint.json"
OUTCOME_FILE = "outcome.json"
DEADLINE_FILE = "deadline.json"
ANSWERS = "answers"

ACTIONS = ("approve", "reject")

LONGEST_JSON = 4_000_000
"""Bytes of an answer that are read: nobody types more."""


class AlreadyAnswered(RuntimeError):
    """Somebody was faster; `answer` is theirs."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(
            "already answered: {} by {} ({}) at {}".format(
                answer.get("action"),
                answer.get("who"),
                answer.get("via"),
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(answer.get("at", 0))),
            )
        )
        self.answer = answer


class InvalidAnswer(ValueError):
    """An answer does not fit the question; `complaints` says how, field by field."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


class NotOurs(PermissionError):
    """A file or folder could have been written by somebody else."""


class Changed(ValueError):
    """What is shown is not what the flow wrote down."""


class Checkpoint:
    """A bundle, opened.

    Args:
        folder: The bundle.

    Raises:
        NotOurs: The folder is not ours, or others can write to it.
        OSError: There is no bundle.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.realpath(folder)
        found = os.lstat(self.folder)
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise NotOurs("{} is not ours alone to write to".format(self.folder))
        self.question: dict[str, Any] = self._read(QUESTION_FILE)

    @property
    def id(self) -> str:
        """Its name on the command line."""
        return str(self.question["id"])

    # -- what is shown -----------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of what is shown, in the flow's order."""
        return list(self.question["data"])

    def path(self, name: str) -> str:
        """The file of something shown, checked against what the flow wrote down.

        Raises:
            Changed: It is not the same any more.
        """
        item = self.question["data"][name]
        path = os.path.join(self.folder, item["file"])
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise Changed("{} cannot be read any more: {}".format(name, error)) from error
        if digest.hexdigest() != item["sha256"]:
            raise Changed("{} has changed since the checkpoint was written".format(name))
        return path

    def load(self, name: str) -> Any:
        """Something shown, as a value; what has no open format of its own comes as its path."""
        kind = self.question["data"][name]["format"]
        reader = _READERS.get(kind)
        path = self.path(name)
        return reader(path) if reader else path

    def load_all(self) -> dict[str, Any]:
        """All that is shown, by name."""
        return {name: self.load(name) for name in self.names()}

    # -- what is answered --------------------------------------------------------------------

    def round(self) -> int:
        """Number of the answer that is asked for: one more than were refused."""
        number = 1
        while self._is_there(_refusal(number)):
            number += 1
        return number

    def answer(self, number: int | None = None) -> dict[str, Any] | None:
        """The answer that stands, or the one of that number; None while there is none."""
        os.listdir(os.path.join(self.folder, ANSWERS))  # makes a network file system look again
        name = _answer(number or self.round())
        return self._read(name) if self._is_there(name) else None

    def refusals(self) -> list[str]:
        """Why earlier answers were refused."""
        return [self._read(_refusal(n))["why"] for n in range(1, self.round())]

    def outcome(self) -> dict[str, Any] | None:
        """What the flow went on with; None while it has not."""
        return self._read(OUTCOME_FILE) if self._is_there(OUTCOME_FILE) else None

    def deadline(self) -> float | None:
        """When the stated default is taken, in seconds since 1970; None is never."""
        if self._is_there(DEADLINE_FILE):
            return float(self._read(DEADLINE_FILE)["at"])
        stated = self.question.get("deadline")
        return None if stated is None else float(stated)

    def defaults(self) -> dict[str, Any]:
        """What is chosen when nobody chooses: the best, where the flow knows it."""
        fields = self.question["schema"].get("properties", {})
        return {name: field["default"] for name, field in fields.items() if "default" in field}

    def decide(
        self,
        action: str,
        values: dict[str, Any] | None = None,
        *,
        via: str = "notebook",
        note: str = "",
    ) -> dict[str, Any]:
        """Answer; the first answer wins.

        Args:
            action: "approve" or "reject".
            values: What differs from the defaults.
            via: How: "notebook", "command line", "Prefect page", "Python", "deadline".
            note: Why, in words.

        Returns:
            The answer as it is kept.

        Raises:
            InvalidAnswer: It does not fit the question; nothing is kept.
            AlreadyAnswered: Somebody was faster.
        """
        number = self.round()
        standing = self.answer() or self.outcome()
        if standing is not None:
            raise AlreadyAnswered(standing)
        answer = {
            "checkpoint": self.id,
            "round": number,
            "action": action,
            "values": self._checked(action, values or {}),
            "note": note,
            "via": via,
            "who": _who(),
            "uid": os.getuid(),
            "host": socket.gethostname(),
            "at": time.time(),
        }
        if not self.keep(_answer(number), answer):
            raise AlreadyAnswered(self._read(_answer(number)))
        return answer

    def refuse(self, number: int, why: str) -> None:
        """Open the next number: this answer does not do."""
        self.keep(_refusal(number), {"checkpoint": self.id, "why": why, "at": time.time()})

    def keep(self, name: str, content: dict[str, Any]) -> bool:
        """Make a file of the bundle, whole or not at all; False when there is one already."""
        path = os.path.join(self.folder, name)
        aside = "{}.{}".format(os.path.join(self.folder, "." + os.path.basename(name)), _random())
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(aside)
        return True

    def replace(self, name: str, content: dict[str, Any]) -> None:
        """Write a file of the bundle anew, whole at every moment."""
        aside = "." + name + "." + _random()
        self.keep(aside, content)
        os.replace(os.path.join(self.folder, aside), os.path.join(self.folder, name))

    # -- how ---------------------------------------------------------------------------------

    def _checked(self, action: str, values: dict[str, Any]) -> dict[str, Any]:
        if action not in ACTIONS:
            raise InvalidAnswer(["the answer is one of: " + ", ".join(ACTIONS)])
        full = dict(self.defaults(), **values)
        schema = self.question["schema"]
        complaints = complaints_of(full, schema, schema) if action == "approve" else []
        if complaints:
            raise InvalidAnswer(complaints)
        return full

    def _is_there(self, name: str) -> bool:
        return os.path.lexists(os.path.join(self.folder, name))

    def _read(self, name: str) -> dict[str, Any]:
        handle = os.open(os.path.join(self.folder, name), os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
                raise NotOurs("{} was not written by us".format(name))
            content = json.loads(file.read(LONGEST_JSON))
        if not isinstance(content, dict):
            raise ValueError("{} holds no fields".format(name))  # noqa: TRY004 - the file, not a caller, is wrong
        return content


def complaints_of(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """What a value has against a JSON schema, of the kind that models of fields make.

    Args:
        value: The value.
        schema: Its schema.
        root: The schema that `$ref`s speak of.

    Returns:
        One sentence each; none when it fits.
    """
    if "$ref" in schema:
        schema = root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
    if "anyOf" in schema:
        tries = [complaints_of(value, each, root) for each in schema["anyOf"]]
        return [] if any(not each for each in tries) else min(tries, key=len)
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and value not in allowed:
        return ["{!r} is none of: {}".format(value, ", ".join(map(repr, allowed)))]
    kind = schema.get("type")
    if kind is not None and not _is_a(kind, value):
        return ["{!r} is not of type {}".format(value, kind)]
    return _BOUNDS.get(str(kind), _nothing)(value, schema, root)


def from_words(text: str, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A value as somebody typed it: JSON where the field is not text, else the text itself."""
    if "$ref" in schema:
        schema = root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
    if schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        items = schema.get("items", {})
        if schema.get("type") == "array" and items.get("type", "string") == "string":
            return [part.strip() for part in text.split(",") if part.strip()]
        return text


def read_pairs(words: list[str], schema: dict[str, Any]) -> dict[str, Any]:
    """Values from words like "threshold=0.7".

    Raises:
        InvalidAnswer: A word is no such pair, or names no field.
    """
    fields = schema.get("properties", {})
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in fields:
            known = ", ".join(fields) or "none"
            raise InvalidAnswer(["{!r} is not FIELD=VALUE; the fields: {}".format(word, known)])
        values[name] = from_words(text, fields[name], schema)
    return values


def _number(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:  # noqa: ARG001 - one signature for all kinds
    bounds: tuple[tuple[str, str, Any], ...] = (
        ("minimum", "less than", lambda limit: value < limit),
        ("maximum", "more than", lambda limit: value > limit),
        ("exclusiveMinimum", "not more than", lambda limit: value <= limit),
        ("exclusiveMaximum", "not less than", lambda limit: value >= limit),
    )
    return [
        "{} is {} {}".format(value, words, schema[name])
        for name, words, beyond in bounds
        if name in schema and beyond(schema[name])
    ]


def _string(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:  # noqa: ARG001 - one signature for all kinds
    found = []
    if len(value) < schema.get("minLength", 0):
        found.append("a text of {} characters or more is asked for".format(schema["minLength"]))
    if len(value) > schema.get("maxLength", len(value)):
        found.append("the text is longer than {} characters".format(schema["maxLength"]))
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append("{!r} is not of the form {}".format(value, schema["pattern"]))
    return found


def _array(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    found = []
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        found.append("{} entries are too few or too many".format(len(value)))
    for each in value:
        found += complaints_of(each, schema.get("items", {}), root)
    return found


def _object(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    fields = schema.get("properties", {})
    found = [
        "{} is missing".format(name) for name in schema.get("required", ()) if name not in value
    ]
    for name, each in value.items():
        if name in fields:
            found += [name + ": " + why for why in complaints_of(each, fields[name], root)]
        elif schema is root or schema.get("additionalProperties") is False:
            found.append("there is no field {!r}".format(name))
        elif isinstance(schema.get("additionalProperties"), dict):
            found += complaints_of(each, schema["additionalProperties"], root)
    return found


def _nothing(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:  # noqa: ARG001 - one signature for all kinds
    return []


_BOUNDS = {
    "number": _number,
    "integer": _number,
    "string": _string,
    "array": _array,
    "object": _object,
}

_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _is_a(kind: str, value: Any) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, _TYPES.get(kind, (object,)))


def _read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _read_npy(path: str) -> Any:
    import numpy as np

    return np.load(path, allow_pickle=False)


def _read_parquet(path: str) -> Any:
    """A table by whatever the env has for tables; its path when it has nothing."""
    try:
        import pandas as pd

        return pd.read_parquet(path)
    except ImportError:
        pass
    try:
        import polars as pl

        return pl.read_parquet(path)
    except ImportError:
        pass
    try:
        import pyarrow.parquet
    except ImportError:
        return path
    return pyarrow.parquet.read_table(path)


_READERS = {"json": _read_json, "npy": _read_npy, "parquet": _read_parquet}


def _answer(number: int) -> str:
    return os.path.join(ANSWERS, "{}.json".format(number))


def _refusal(number: int) -> str:
    return os.path.join(ANSWERS, "{}.refused.json".format(number))


def _random() -> str:
    return secrets.token_hex(8)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())
