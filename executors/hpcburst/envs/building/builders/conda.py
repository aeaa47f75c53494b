"""The builders conda, mamba and micromamba: one adapter, their differences as data.

Solving is `create --dry-run --json`, whose answer names exact archives; linking is `create --file`
with an `@EXPLICIT` list of the lock. The user's own configuration counts (proxies, certificates,
private channels and their credentials), except where it would choose other packages than asked for.

The env is linked in a folder inside the stage and then moved up: micromamba refuses a folder that
is there already. Its first path is so a little longer than its last one, and every place inside a
file that holds the one has room for the other (see `relocate`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.building.builders import Linked, Workshop, find_tool
from hpcburst.envs.building.builders.running import (
    Said,
    environ_for,
    no_solution,
    not_linked,
    run_tool,
)
from hpcburst.envs.building.solve import Package, lock_archives, packages_in
from hpcburst.envs.specs.entries import redact
from hpcburst.envs.specs.spec import Archive
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hpcburst.envs.building.build import Plan
    from hpcburst.envs.specs.spec import EnvSpec

SETTINGS = {
    "ADD_PIP_AS_PYTHON_DEPENDENCY": "false",  # nobody asked for pip
    "ALLOW_SOFTLINKS": "false",  # an env must not depend on somebody's package cache
    "ALWAYS_SOFTLINK": "false",
    "NUMBER_CHANNEL_NOTICES": "0",
    "REGISTER_ENVS": "false",  # a stage is gone in a minute
    "REPORT_ERRORS": "false",
}
"""Settings that every tool of the family reads from variables, above the user's files."""

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@|(?<=/)t/[^/\s]+/")


@dataclass(frozen=True, slots=True)
class Tool:
    """What is peculiar to one tool.

    Attributes:
        create: Words for `create`, beyond those that all tools know.
    """

    create: tuple[str, ...] = ()


TOOLS = {
    "conda": Tool(create=("--no-default-packages",)),
    "mamba": Tool(),
    "micromamba": Tool(),
}
"""The tools, by name. Mamba is conda's child before 2.0 and micromamba's twin since."""


@dataclass(frozen=True, slots=True)
class CondaBuilder:
    """Solves and links by conda, mamba or micromamba.

    Args:
        name: Which of them.
        program: Its executable.
        workshop: What it works with.
    """

    name: str
    program: Path
    workshop: Workshop
    fetches: bool = True

    @classmethod
    def on_path(cls, name: str, workshop: Workshop) -> CondaBuilder:
        """The builder of this name, with the program found on PATH.

        Raises:
            EnvError: It is not there.
        """
        return cls(name, find_tool(name), workshop)

    def lock(self, spec: EnvSpec, lock: Path, source: str) -> tuple[Package, ...]:
        """See `Builder.lock`."""
        self.workshop.progress(f"solving with {self.name}", 0, None)
        with tempfile.TemporaryDirectory() as scratch:
            channels, environ = _named(spec.channels, Path(scratch), os.environ)
            words = ["--dry-run", "--json", "--yes", "--no-pin", "--strict-channel-priority"]
            words += ["--prefix", f"{scratch}/env", "--override-channels"]
            words += [word for channel in channels for word in ("--channel", channel)]
            said = self._run([*words, *map(_bare, spec.conda)], environ)
            answer = _last_object(said.out)
            if said.status != 0 or not answer.get("success", True):
                raise no_solution(self.name, _refusal(answer) or said.last_words, source)
            archives = self._archives(answer, spec.channels, environ, source)
        return lock_archives(archives, lock, self.workshop, source)

    def link(self, plan: Plan) -> Linked:
        """See `Builder.link`."""
        self.workshop.progress(f"linking packages with {self.name}", 0, None)
        rows = packages_in(plan.lock, self.workshop.rattler)
        packages = tuple(Package.from_row(row) for row in rows)
        with tempfile.TemporaryDirectory() as scratch, inside(plan.stage) as folder:
            listed = Path(scratch, "explicit.txt")  # a file: URLs may hold credentials
            listed.write_text(explicit_list(rows), encoding="utf-8")
            words = ["--yes", "--quiet", "--prefix", str(folder), "--file", str(listed)]
            said = self._run(words, environ_for(os.environ, _settings()))
            if said.status != 0:
                raise not_linked(self.name, said, plan.source, plan.prefix)
            move_into(folder, plan.stage)
        return Linked(packages, folder)

    def _run(self, words: Sequence[str], environ: Mapping[str, str]) -> Said:
        offline = ("--offline",) if self.workshop.offline else ()
        return run_tool(
            [self.program, "create", *TOOLS[self.name].create, *offline, *words], environ
        )

    def _archives(
        self,
        answer: dict[str, Any],
        channels: Sequence[str],
        environ: Mapping[str, str],
        source: str,
    ) -> tuple[Archive, ...]:
        rows = chosen(answer)
        if any(not row.get("url") for row in rows):
            caches = self._caches(environ)
            rows = [row if row.get("url") else _from_cache(row, caches) for row in rows]
        lost = [str(row.get("dist_name", row.get("name"))) for row in rows if not row.get("url")]
        if lost or not rows:
            raise no_solution(
                self.name, f"its answer does not name the archives of {', '.join(lost)}", source
            )
        return tuple(_archive(row, channels) for row in rows)

    def _caches(self, environ: Mapping[str, str]) -> list[Path]:
        said = run_tool([self.program, "info", "--json"], environ)
        answer = _last_object(said.out)
        return [Path(p) for p in answer.get("pkgs_dirs") or answer.get("package cache") or []]


def chosen(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The packages of a dry run's answer, with all that it says of each.

    What is linked is listed under LINK: by conda with name and build only, by micromamba with
    URL and digests. What has to be fetched first is under FETCH as well, always with URL and
    digests.
    """
    actions = answer.get("actions") or {}
    if isinstance(actions, list):  # conda 4.3
        actions = {name: rows for action in actions for name, rows in action.items()}
    known = {_identity(row): row for row in actions.get("FETCH") or []}
    return [{**row, **known.get(_identity(row), {})} for row in actions.get("LINK") or []]


def explicit_list(rows: Iterable[Mapping[str, str]]) -> str:
    """An `@EXPLICIT` file of exact archives; all tools check the MD5 digests in one."""
    lines = [f"{row['url']}#{row['md5']}" if row["md5"] else row["url"] for row in rows]
    return "\n".join(["@EXPLICIT", *lines, ""])


@contextmanager
def inside(stage: Path) -> Iterator[Path]:
    """The name of a folder in a stage for a tool to make; gone afterwards.

    What a killed builder leaves of it is swept with the stage.
    """
    folder = stage / ".linked"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into(folder: Path, stage: Path) -> None:
    """Move all that is in a folder below a stage into the stage itself.

    Raises:
        OSError: It cannot be moved.
    """
    for path in sorted(folder.iterdir()):
        path.rename(stage / path.name)


def _settings() -> dict[str, str]:
    return {f"{family}_{k}": v for family in ("CONDA", "MAMBA") for k, v in SETTINGS.items()}


def _named(
    channels: Sequence[str], scratch: Path, environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The channels as words for a command line, and an environment that makes them known.

    A channel whose URL holds a password or token is given a name by a private configuration file:
    everybody on the node can read the words of a command.
    """
    names = [_private_name(channel) or channel for channel in channels]
    secret = {
        name: channel.rstrip("/").removesuffix(f"/{name}")
        for name, channel in zip(names, channels, strict=True)
        if name != channel
    }
    if len(set(names)) < len(set(channels)):
        raise EnvError(
            f"The channels {', '.join(map(redact, channels))} were asked for",
            "two private ones of them have the same path, and conda tells them apart by it alone",
            "let rattler build (`--with rattler`)",
        )
    more = _settings()
    if secret:
        file = scratch / "condarc"
        file.touch(mode=0o600)
        file.write_text(json.dumps(_with_channels(environ.get("CONDARC"), secret)))
        more["CONDARC"] = str(file)
    return names, environ_for(environ, more)


def _private_name(channel: str) -> str:
    """What to call a channel whose URL holds a password or token; "" if it holds none."""
    *before, tail = _CREDENTIALS.split(channel.rstrip("/"))
    after_password = bool(before) and before[-1].endswith("://")
    name = tail.partition("/")[2] if after_password else tail
    return name if before else ""


def _with_channels(condarc: str | None, secret: Mapping[str, str]) -> dict[str, Any]:
    """The content of the user's own file of that kind, if there is one, and our channels."""
    import yaml

    try:
        known = yaml.safe_load(Path(condarc).read_text(encoding="utf-8")) if condarc else {}
    except (OSError, yaml.YAMLError):
        known = {}
    known = known if isinstance(known, dict) else {}
    return {**known, "custom_channels": {**(known.get("custom_channels") or {}), **secret}}


def _last_object(text: str) -> dict[str, Any]:
    """The last JSON object in a text: some versions print remarks, or two objects."""
    decoder = json.JSONDecoder()
    found: dict[str, Any] = {}
    at = text.find("{")
    while at >= 0:
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            at += 1
        else:
            found = value if isinstance(value, dict) else found
        at = text.find("{", at)
    return found


def _refusal(answer: Mapping[str, Any]) -> str:
    words = [answer.get(k) for k in ("exception_name", "message", "error", "solver_problems")]
    lines = [line for word in words for line in (word if isinstance(word, list) else [word])]
    return "\n".join(dict.fromkeys(str(line) for line in lines if line))


def _identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    build = row.get("build_string") or row.get("build")
    return (str(row.get("name")), str(row.get("version")), str(build))


def _from_cache(row: dict[str, Any], caches: Iterable[Path]) -> dict[str, Any]:
    """What the tool's package cache knows of a package that need not be fetched."""
    entry = "-".join(_identity(row))
    for cache in caches:
        try:
            text = (cache / entry / "info/repodata_record.json").read_text(encoding="utf-8")
            return {**row, **json.loads(text)}
        except (OSError, ValueError):
            continue
    return row


def _archive(row: Mapping[str, Any], channels: Sequence[str]) -> Archive:
    return Archive(
        url=_with_credentials(row["url"], channels),
        sha256=row.get("sha256") or "",
        md5=row.get("md5") or "",
        depends=tuple(row.get("depends") or ()),
        size=row.get("size") or 0,
    )


def _bare(text: str) -> str:
    return _CREDENTIALS.sub("", text)


def _with_credentials(url: str, channels: Sequence[str]) -> str:
    """The URL with what the tool left out of it: a lock must be enough to fetch by."""
    plain = _bare(url)
    for channel in channels:
        head = _bare(channel).rstrip("/") + "/"
        if head != channel.rstrip("/") + "/" and plain.startswith(head):
            return channel.rstrip("/") + "/" + plain[len(head) :]
    return url
