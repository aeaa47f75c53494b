"""Locks to prefixes: built aside, finished, and only then given their name."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.pip_section import install_pip
from hpcburst.envs.publish import staged
from hpcburst.envs.rattler_process import Progress, RattlerFailed, RattlerProcess
from hpcburst.envs.relocate import relocate
from hpcburst.envs.room import raise_if_no_room, room_for
from hpcburst.envs.solve import Package, read_packages
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hpcburst.envs.spec import EnvSpec

RECORD = "conda-meta/hpcburst.json"
"""The file that makes a prefix one of ours; written last, before it is published."""

LONGEST_PREFIX = 240
"""Characters: archives reserve 255 for the prefix, and paths inside it need some."""

_SCHEMA = 1

_COMPILE = """
import py_compile, sys
stage, prefix = sys.argv[1:3]
for n, line in enumerate(sys.stdin, 1):
    path = line.rstrip("\\n")
    try:
        py_compile.compile(path, dfile=prefix + path[len(stage):], doraise=True)
    except Exception:
        pass
    if n % 100 == 0:
        print(n, flush=True)
"""


@dataclass(frozen=True, slots=True)
class EnvRecord:
    """What is known of an env that was built.

    Attributes:
        key: Its key.
        prefix: Where it is.
        spec: Name of the file that asked for it.
        packages: How many conda packages it has.
        made: Seconds since the epoch.
        host: Node it was built on.
        activation: What activating it changes; None until that has been captured.
    """

    key: str
    prefix: str
    spec: str = ""
    packages: int = 0
    made: float = 0.0
    host: str = ""
    activation: Mapping[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One env to build.

    Attributes:
        key: Its key.
        prefix: Where it goes.
        stage: Hidden folder beside it to build in.
        lock: Its packages.
        cache: Folders of extracted packages, the one to write to first.
        spec: What was asked.
        source: What the spec is called in messages.
    """

    key: str
    prefix: Path
    stage: Path
    lock: Path
    cache: tuple[Path, ...]
    spec: EnvSpec
    source: str


def build(plan: Plan, rattler: RattlerProcess, progress: Progress) -> None:
    """Build an env and publish it; when another builder was first, its env is the one.

    Raises:
        EnvError: It cannot be built; nothing of it remains then.
    """
    _check_length(plan)
    with room_for(plan.source, plan.prefix), staged(plan.prefix, plan.stage) as publish:
        packages = _link(plan, rattler)
        added = install_pip(plan.spec.pip, plan.stage, progress) if plan.spec.pip else False
        if added or any((plan.stage / "bin").glob(".*-post-link.sh")):
            relocate(plan.stage, plan.prefix)
        _set_variables(plan.stage, plan.spec.variables)
        _byte_compile(plan.stage, plan.prefix, progress)
        if not plan.spec.holds_secrets:
            _make_readable(plan.stage)
        write_record(plan.stage, _record_of(plan, packages))
        if not publish() and read_record(plan.prefix) is None:
            raise EnvError(
                f"The env {plan.prefix} was to be published",
                "something else is at that place",
                "move it away, or ask for another prefix",
            )


def read_record(prefix: Path) -> EnvRecord | None:
    """The record of a finished env; None when there is none at this prefix."""
    try:
        raw = json.loads((prefix / RECORD).read_text(encoding="utf-8"))
        known = {f.name: raw[f.name] for f in fields(EnvRecord) if f.name in raw}
        return EnvRecord(**{**known, "prefix": str(prefix)})
    except (OSError, ValueError, TypeError):
        return None


def write_record(prefix: Path, record: EnvRecord) -> None:
    """Write an env's record, aside and then in place; several may do so at the same time.

    Raises:
        OSError: The env cannot be written to.
    """
    path = prefix / RECORD
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".hpcburst-{secrets.token_hex(8)}")
    try:
        aside.write_text(json.dumps({"schema": _SCHEMA, **asdict(record)}, indent=1))
        aside.chmod(0o644)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_length(plan: Plan) -> None:
    if len(str(plan.prefix)) > LONGEST_PREFIX:
        raise EnvError(
            f"The env {plan.prefix} was to be built",
            f"its path is longer than {LONGEST_PREFIX} characters, and packages cannot hold that",
            "choose a folder with a shorter path",
        )


def _link(plan: Plan, rattler: RattlerProcess) -> tuple[Package, ...]:
    try:
        answer = rattler.call(
            "install",
            lock=str(plan.lock),
            stage=str(plan.stage),
            prefix=str(plan.prefix),
            cache=[str(folder) for folder in plan.cache],
        )
    except RattlerFailed as failed:
        raise_if_no_room(failed.text)
        raise EnvError(
            f"The env of {plan.source} was to be built in {plan.prefix}",
            failed.text,
            f"run it again; if it fails again, remove {plan.cache[0]} and {plan.lock}",
        ) from None
    return read_packages(answer)


def _set_variables(stage: Path, variables: Mapping[str, str]) -> None:
    if variables:
        folder = stage / "etc/conda/env_vars.d"
        folder.mkdir(parents=True, exist_ok=True)
        # zz: after those of the packages, so that the user has the last word.
        (folder / "zz-hpcburst.json").write_text(json.dumps(dict(variables)), encoding="utf-8")


def _byte_compile(stage: Path, prefix: Path, progress: Progress) -> None:
    """Compile what rattler left uncompiled (noarch and pip packages), or every task would."""
    sources = [
        path for folder in stage.glob("lib/python3*/site-packages") for path in _plain(folder)
    ]
    if not sources or not (stage / "bin/python").exists():
        return
    argv = [str(stage / "bin/python"), "-I", "-S", "-c", _COMPILE, str(stage), str(prefix)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as compiler:
        if compiler.stdin is None or compiler.stdout is None:
            raise RuntimeError("the compiler was started without pipes")
        try:
            compiler.stdin.writelines(f"{path}\n" for path in sources)
            compiler.stdin.close()
        except BrokenPipeError:
            return
        for line in compiler.stdout:
            progress("byte-compiling", int(line), len(sources))


def _plain(folder: Path) -> Iterator[str]:
    for base, folders, files in os.walk(folder):
        cached = Path(base, "__pycache__").iterdir() if "__pycache__" in folders else ()
        compiled = {path.name.split(".")[0] for path in cached}
        for name in files:
            stem, dot, ending = name.rpartition(".")
            if dot and ending == "py" and stem not in compiled and "\n" not in base + name:
                yield f"{base}/{name}"


def _make_readable(stage: Path) -> None:
    # Rattler writes 0600, and then `conda list` of a colleague fails on a shared env.
    for path in (stage / "conda-meta").glob("*.json"):
        path.chmod(0o644)


def _record_of(plan: Plan, packages: tuple[Package, ...]) -> EnvRecord:
    return EnvRecord(
        key=plan.key,
        prefix=str(plan.prefix),
        spec=Path(plan.source).name,
        packages=len(packages),
        made=time.time(),
        host=socket.gethostname(),
    )
