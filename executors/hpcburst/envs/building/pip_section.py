"""The pip section of an env: chosen once, locked with digests, installed by uv into the stage.

What pip adds depends on what conda installed, so it is chosen when that is linked: uv says what it
would install, these exact versions are locked (a `pylock.toml`, PEP 751) beside the conda lock, and
whoever builds the env later installs from that file, whatever the index has by then.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcburst.envs.building.room import raise_if_no_room
from hpcburst.envs.building.solve import publish_first
from hpcburst.envs.specs.entries import redact
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hpcburst.envs.child.process import Progress

_OF_ANOTHER_PYTHON = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON")
_ADDED = re.compile(
    r"^ \+ (?P<name>\S+)==(?P<version>\S+)(?: \(from (?P<origin>.+)\))?$", re.MULTILINE
)
_OPTION = re.compile(r"(?P<name>--?[a-z\-]+)(?:[ =](?P<value>\S+))?")
_INDEXES = {
    "-i": "UV_DEFAULT_INDEX",
    "--index-url": "UV_DEFAULT_INDEX",
    "--extra-index-url": "UV_INDEX",
    "-f": "UV_FIND_LINKS",
    "--find-links": "UV_FIND_LINKS",
}
_BETWEEN = {"UV_INDEX": " ", "UV_FIND_LINKS": ","}


@dataclass(frozen=True, slots=True)
class PipSection:
    """What pip has to add to an env.

    Attributes:
        requirements: Lines of a requirements file.
        lock: Where the chosen versions are locked, or belong; None when `requirements` are exact
            and complete.
        private: Whether the lock is nobody else's to read.
        offline: Whether nothing may be fetched.
    """

    requirements: tuple[str, ...]
    lock: Path | None
    private: bool = False
    offline: bool = False


def pip_lock(conda_lock: Path, key: str) -> Path:
    """Where the pip part of an env is locked: it holds for one solution of the conda part.

    Raises:
        OSError: The conda lock cannot be read.
    """
    digest = hashlib.sha256(conda_lock.read_bytes()).hexdigest()[:12]
    return conda_lock.with_name(f"{key}.{digest}.pylock.toml")


def install_pip(section: PipSection, stage: Path, progress: Progress) -> bool:
    """Install a pip section; every file that is fetched must have the digest in the lock.

    Args:
        section: What to install.
        stage: The env.
        progress: Told what is done.

    Returns:
        True: files were added.

    Raises:
        EnvError: uv is missing, the env has no Python, or uv failed.
        OSError: No room.
    """
    asked = f"The pip section ({_shortened(section.requirements)}) was to be installed"
    python = stage / "bin/python"
    if not python.exists():
        raise EnvError(asked, "the env has no Python", "add `- python 3.12.*` to `dependencies`")
    uv = _Uv(find_uv(asked), python, asked, offline=section.offline)
    if section.lock is None:
        progress("installing pip packages", 0, None)
        uv.run("install", "--no-deps", "--requirement", "-", text=_lines(section.requirements))
    else:
        progress("choosing pip packages", 0, None)
        text = _locked(section, section.lock, uv)
        progress("installing pip packages", 0, None)
        uv.install_lock(text, section.requirements)
    return True


def find_uv(asked: str) -> str:
    """The path of `uv`, beside this Python or on PATH.

    Raises:
        EnvError: There is none.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    if not found:
        raise EnvError(asked, "the command `uv` is not there", "run `python -m pip install uv`")
    return found


def pins(plan: str, requirements: Iterable[str]) -> list[str]:
    r"""The exact requirements in what `uv pip install --dry-run` says it would do.

    >>> pins(" + six==1.17.0\n + tiny==1.0 (from https://host/tiny.whl)", ["tiny @ https://..."])
    ['six==1.17.0', 'tiny @ https://host/tiny.whl']
    """
    direct = {_normal(line): line for line in requirements if re.match(r"[^;]*?\s*@", line)}
    found = []
    for match in _ADDED.finditer(plan):
        name, origin = match["name"], match["origin"]
        if origin is None:
            found.append(f"{name}=={match['version']}")
        elif "****" in origin:  # uv does not show passwords
            found.append(direct.get(_normal(name), f"{name}=={match['version']}"))
        else:
            found.append(f"{name} @ {origin}")
    return found


def index_settings(requirements: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The options among requirements, for a command that is not given these lines.

    Returns:
        Words for the command line, and variables: URLs of indexes may hold passwords, and
        everybody on the node can read the words of a command.
    """
    words: list[str] = []
    found: dict[str, list[str]] = {}
    for line in requirements:
        match = _OPTION.fullmatch(line) if line.startswith("-") else None
        if match is None:
            continue
        variable = _INDEXES.get(match["name"])
        if variable:
            found.setdefault(variable, []).append(match["value"])
        else:
            words += [word for word in (match["name"], match["value"]) if word]
    return words, {name: _BETWEEN.get(name, " ").join(urls) for name, urls in found.items()}


@dataclass(frozen=True, slots=True)
class _Uv:
    program: str
    python: Path
    asked: str
    offline: bool

    def install_lock(self, text: str, requirements: Sequence[str]) -> None:
        """Install from the text of a `pylock.toml`; it may be private, and so is its copy."""
        words, variables = index_settings(requirements)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, "pylock.toml")  # uv takes no other name
            file.write_text(text, encoding="utf-8")
            self.run("install", "--no-deps", *words, "--requirement", str(file), more=variables)

    def run(
        self, verb: str, *words: str, text: str = "", more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `uv pip`; requirements go through stdin, as an index URL may hold a password."""
        done = subprocess.run(
            [self.program, "pip", verb, *(["--offline"] if self.offline else []), "--python",
             str(self.python), *(["--break-system-packages"] if verb == "install" else []), *words],
            input=text,
            env={**_environ(os.environ), "NO_COLOR": "1", **(more or {})},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise_if_no_room(done.stderr)
            raise EnvError(
                self.asked,
                "uv could not install it",
                "see what uv says below" + _too_old(done.stderr),
                tail=redact(done.stderr),
            )
        return done


def _locked(section: PipSection, lock: Path, uv: _Uv) -> str:
    """The text of the lock; made now, unless somebody made it before."""
    with suppress(FileNotFoundError):
        return lock.read_text(encoding="utf-8")
    aside = lock.with_name(f".{secrets.token_hex(8)}.toml")
    aside.touch(mode=0o600, exist_ok=False)
    try:
        aside.write_text(_chosen(section.requirements, uv), encoding="utf-8")
        publish_first(aside, lock, private=section.private)
    except FileExistsError:
        pass  # the first one holds for all
    finally:
        aside.unlink(missing_ok=True)
    return lock.read_text(encoding="utf-8")


def _chosen(requirements: Sequence[str], uv: _Uv) -> str:
    plan = uv.run("install", "--dry-run", "--requirement", "-", text=_lines(requirements)).stderr
    options = [line for line in requirements if line.startswith("-")]
    text = _lines([*options, *pins(plan, requirements)])
    flags = ("--quiet", "--no-deps", "--no-header", "--format", "pylock.toml", "-")
    return uv.run("compile", *flags, text=text).stdout


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what points to another Python; sites name their index in pip's variable."""
    kept = {name: text for name, text in environ.items() if name not in _OF_ANOTHER_PYTHON}
    index = kept.get("PIP_INDEX_URL")
    if index and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(kept):
        kept["UV_DEFAULT_INDEX"] = index
    return kept


def _too_old(text: str) -> str:
    return "; uv 0.7 or newer is needed" if "--format" in text else ""


def _lines(requirements: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in requirements)


def _normal(requirement: str) -> str:
    name = re.match(r"\s*([A-Za-z0-9._\-]+)", requirement)
    return re.sub(r"[-_.]+", "-", name[1]).lower() if name else requirement


def _shortened(requirements: Sequence[str]) -> str:
    return redact(", ".join(requirements))[:120]
