"""The bundle: a private folder on the shared file system with all that a decision needs."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import private_folder, write_private
from hpcburst_recipes.checkpoints.answering import ANSWERS, QUESTION_FILE, Checkpoint
from hpcburst_recipes.checkpoints.formats import DATA, write_item
from hpcburst_recipes.checkpoints.question import Question

FOLDER = "checkpoints"

GOES_ALONG: Mapping[str, str] = {
    "hpcburst_checkpoint.py": "hpcburst_recipes.checkpoints:answering.py",
    "hpcburst_panel.py": "hpcburst_recipes.jupyter:panel.py",
}
"""Modules that the notebook's kernel imports from the bundle: in its env there is no hpcburst."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a checkpoint comes from.

    Attributes:
        flow_run: Id of the Prefect flow run; "" outside of one.
        call: Which call by the checkpoint's name this is in the flow run; 0 outside of one.
        suspended: Whether the flow run's process has ended and must be begun anew.
        env: The env as it was asked for; "" is the flow's own Python.
        env_key: Its key.
        kernel_env: It, built, as the fields of `hpcburst.tasks.Env`.
        session: What a session on it asks the batch system for: `cores`, `memory`, `walltime`.
    """

    flow_run: str = ""
    call: int = 0
    suspended: bool = False
    env: str = ""
    env_key: str = ""
    kernel_env: Mapping[str, Any] | None = None
    session: Mapping[str, Any] | None = None


def folder_for(shared_root: Path) -> Path:
    """The folder of all bundles."""
    return shared_root / FOLDER


def make_bundle(
    shared_root: Path,
    asked: Question,
    show: Mapping[str, Any],
    *,
    name: str = "",
    origin: Origin | None = None,
) -> Checkpoint:
    """Write a bundle, aside first and then moved: whoever finds one finds a whole one.

    Args:
        shared_root: Folder every node sees.
        asked: The question.
        show: What is shown, by name.
        name: The checkpoint's id; default: a fresh one.
        origin: Where it comes from.

    Raises:
        RequestError: Something to show has no open format.
        SiteError: The shared root is not private.
    """
    desk = private_folder(folder_for(shared_root))
    identity = name or secrets.token_hex(4)
    aside = private_folder(desk / f".{identity}.{secrets.token_hex(4)}")
    try:
        private_folder(aside / DATA)
        private_folder(aside / ANSWERS)
        data = {item: write_item(aside, item, value) for item, value in show.items()}
        content = _content(identity, asked, data, origin or Origin())
        write_private(aside / QUESTION_FILE, json.dumps(content, indent=1).encode())
        for module, source in GOES_ALONG.items():
            write_private(aside / module, _text_of(source))
        aside.rename(desk / identity)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Checkpoint(desk / identity)


def inputs_of(checkpoint: Checkpoint) -> str:
    """Digest of what was shown and asked: equal for a checkpoint that is asked once more."""
    return str(checkpoint.question["inputs"])


def _content(
    identity: str, asked: Question, data: Mapping[str, Any], origin: Origin
) -> dict[str, Any]:
    now = time.time()
    digests = {name: item["sha256"] for name, item in data.items()}
    return {
        "id": identity,
        "name": asked.name,
        "text": asked.text,
        "created": now,
        "deadline": None if asked.deadline_s is None else now + asked.deadline_s,
        "on_timeout": asked.on_timeout,
        "schema": asked.schema,
        "data": data,
        "inputs": _digest([asked.name, asked.text, asked.schema, digests, origin.env_key]),
        "flow_run": origin.flow_run,
        "call": origin.call,
        "suspended": origin.suspended,
        "env": origin.env,
        "env_key": origin.env_key,
        "kernel_env": origin.kernel_env,
        "session": origin.session or {},
    }


def _digest(content: Any) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _text_of(source: str) -> bytes:
    package, name = source.split(":")
    return (files(package) / name).read_bytes()
