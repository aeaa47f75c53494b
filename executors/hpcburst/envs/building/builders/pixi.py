"""The builder pixi: a scratch project for each solve and each env.

Pixi links an env only inside a project, at `.pixi/envs/default`. The project is put into a folder
inside the stage, and the env is then moved up: its first path is longer than its last one, by 27
characters, so that every place inside a file that holds the one has room for the other (see
`relocate`). A path of the very same length would need a project somewhere else, in a folder whose
path happens to be 19 characters shorter: there is not always one, nobody would sweep it, and files
could not be moved from it by rename.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.envs.building.builders import Linked, Workshop
from hpcburst.envs.building.builders.conda import inside, move_into
from hpcburst.envs.building.builders.running import (
    Said,
    environ_for,
    no_solution,
    not_linked,
    run_tool,
)
from hpcburst.envs.building.solve import Package, detect_machine, packages_in
from hpcburst.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hpcburst.envs.building.build import Plan
    from hpcburst.envs.building.solve import Machine
    from hpcburst.envs.specs.spec import EnvSpec

ENV = ".pixi/envs/default"
"""Where pixi links the env of a project."""

LONGEST = 254
"""Characters that packages reserve for a prefix, less the end of the string."""

BOOKKEEPING = ("conda-meta/pixi", "conda-meta/pixi_env_prefix")
"""What pixi notes of the project an env belongs to; ours belongs to none."""

_CONFIG = 'detached-environments = false\nrun-post-link-scripts = "insecure"\n'
_DEPENDENCY = re.compile(
    r"(?:(?P<channel>\S+)::)?(?P<name>[\w.\-]+)\s*(?P<versions>[^\[]*)(?:\[(?P<fields>.*)\])?",
    re.DOTALL,
)
_FIELD = re.compile(r"""(\w+)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^\s,'"]+))""")


@dataclass(frozen=True, slots=True)
class PixiBuilder:
    """Solves and links by pixi.

    Args:
        program: Its executable.
        workshop: What it works with.
    """

    program: Path
    workshop: Workshop
    name: str = "pixi"
    fetches: bool = True

    def lock(self, spec: EnvSpec, lock: Path, source: str) -> tuple[Package, ...]:
        """See `Builder.lock`; pixi's lock is in rattler's format already."""
        self.workshop.progress("solving with pixi", 0, None)
        machine = detect_machine(self.workshop.rattler)
        with tempfile.TemporaryDirectory() as scratch:
            project = Path(scratch)
            _write_project(project, manifest(spec.channels, spec.conda, machine))
            said = self._run("lock", project)
            if said.status != 0:
                raise no_solution(self.name, said.last_words, source)
            shutil.copyfile(project / "pixi.lock", lock)
        rows = packages_in(lock, self.workshop.rattler)
        return tuple(Package.from_row(row) for row in rows)

    def link(self, plan: Plan) -> Linked:
        """See `Builder.link`."""
        self.workshop.progress("linking packages with pixi", 0, None)
        machine = detect_machine(self.workshop.rattler)
        packages = packages_in(plan.lock, self.workshop.rattler)
        with inside(plan.stage) as project:
            written_for = project / ENV
            _check_length(written_for, plan)
            project.mkdir(mode=0o700)
            _write_project(project, manifest((), (), machine))
            shutil.copyfile(plan.lock, project / "pixi.lock")
            said = self._run("install", project, "--frozen")
            if said.status != 0:
                raise not_linked(self.name, said, plan.source, plan.prefix)
            for name in BOOKKEEPING:
                (written_for / name).unlink(missing_ok=True)
            move_into(written_for, plan.stage)
        return Linked(tuple(Package.from_row(row) for row in packages), written_for)

    def _run(self, verb: str, project: Path, *flags: str) -> Said:
        more = {"NO_COLOR": "1", "PIXI_COLOR": "never", "PIXI_NO_PROGRESS": "true"}
        if self.workshop.offline:
            more["PIXI_OFFLINE"] = "true"  # not a flag: those before 0.76 would refuse it
        words = [verb, "--manifest-path", str(project / "pixi.toml"), *flags]
        return run_tool([self.program, *words], environ_for(os.environ, more), cwd=project)


def manifest(channels: Sequence[str], dependencies: Sequence[str], machine: Machine) -> str:
    """The text of a `pixi.toml` that asks for the same as a spec, on a machine like this one.

    Args:
        channels: Names or URLs, the most important first.
        dependencies: As conda writes them.
        machine: What the packages have to fit.
    """
    lines = ["[workspace]", 'name = "env"', f"channels = {_toml(list(channels))}"]
    lines += [f"platforms = {_toml([machine.platform])}", 'channel-priority = "strict"', ""]
    lines += ["[system-requirements]", *_requirements(machine.virtual_packages), ""]
    lines += ["[dependencies]"]
    asked = merged(read_dependency(text) for text in dependencies)
    lines += [f"{_toml(name)} = {_toml(wanted)}" for name, wanted in asked.items()]
    return "\n".join([*lines, ""])


def read_dependency(text: str) -> tuple[str, dict[str, str]]:
    """A dependency as conda writes it: its name, and the fields pixi has for the rest.

    >>> read_dependency("chan::python >=3.11,<3.13 *_cpython")
    ('python', {'version': '>=3.11,<3.13', 'build': '*_cpython', 'channel': 'chan'})
    >>> read_dependency("numpy=2.2")
    ('numpy', {'version': '2.2.*'})
    """
    if re.match(r"(https?|file)://", text) and "::" not in text:
        name = text.partition("#")[0].rpartition("/")[2].rsplit("-", 2)[0]
        return name, {"url": text.partition("#")[0]}
    match = _DEPENDENCY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no dependency")
    version, build = _split(match["versions"])
    given = {key: a or b or c for key, a, b, c in _FIELD.findall(match["fields"] or "")}
    known = {"version": version, "build": build, "channel": match["channel"] or ""}
    fields = {**{key: value for key, value in known.items() if value}, **given}
    return match["name"].lower(), {"version": "*", **fields}


def merged(asked: Iterable[tuple[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """The dependencies by name; what is asked for twice has to satisfy both."""
    found: dict[str, dict[str, str]] = {}
    for name, fields in asked:
        before = found.get(name, {})
        versions = [v for v in (before.get("version"), fields.get("version")) if v and v != "*"]
        found[name] = {**before, **fields}
        if versions:
            found[name]["version"] = ",".join(dict.fromkeys(versions))
    return found


def _split(text: str) -> tuple[str, str]:
    """The versions and the build in what follows a name."""
    text = re.sub(r"\s*([,|])\s*", r"\1", text.strip())
    text = re.sub(r"(>=|<=|==|!=|~=|=|>|<)\s+", r"\1", text)
    version, _, build = text.partition(" ")
    pinned = re.fullmatch(r"(={0,2}[^=,|<>!~]+)=([^=]+)", version)
    if pinned and not build:
        return _exactly(pinned[1]), pinned[2]
    fuzzy = re.fullmatch(r"=([^=,|*]+)", version)
    return (f"{fuzzy[1]}.*" if fuzzy and not build else _exactly(version)), build.strip()


def _exactly(version: str) -> str:
    # With a build beside it, conda reads `=1.2` as that very version.
    return version.lstrip("=") if re.fullmatch(r"=[^=].*", version) else version


def _requirements(virtual_packages: Iterable[str]) -> list[str]:
    versions = {name: version for name, version, *_ in (v.split("=") for v in virtual_packages)}
    lines = []
    if "__glibc" in versions:
        lines.append(f'libc = {{ family = "glibc", version = {_toml(versions["__glibc"])} }}')
    if "__cuda" in versions:
        lines.append(f"cuda = {_toml(versions['__cuda'])}")
    return lines


def _toml(value: Any) -> str:
    """A value as TOML has it; its basic strings and lists are written like JSON's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(text)}" for key, text in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_project(project: Path, text: str) -> None:
    (project / ".pixi").mkdir(mode=0o700)
    (project / ".pixi/config.toml").write_text(_CONFIG, encoding="utf-8")
    (project / "pixi.toml").touch(mode=0o600)  # channels may hold credentials
    (project / "pixi.toml").write_text(text, encoding="utf-8")


def _check_length(written_for: Path, plan: Plan) -> None:
    if len(str(written_for)) > LONGEST:
        raise EnvError(
            f"The env {plan.prefix} was to be built by pixi",
            f"its path on the way, {written_for}, is longer than {LONGEST} characters",
            "choose a folder with a shorter path, or another builder",
        )
