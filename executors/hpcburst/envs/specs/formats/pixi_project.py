"""A pixi project: `pixi.toml`, or `[tool.pixi]` of a `pyproject.toml`, with or without its lock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hpcburst.envs.specs.entries import name_of, same_name
from hpcburst.envs.specs.formats import rattler_lock
from hpcburst.envs.specs.formats.pixi_entries import conda_entry, pip_entry
from hpcburst.envs.specs.formats.pixi_features import Manifest, tables
from hpcburst.envs.specs.formats.python_project import python_requirements
from hpcburst.envs.specs.formats.source import shown
from hpcburst.envs.specs.spec import EnvSpec

if TYPE_CHECKING:
    from hpcburst.envs.specs.formats.rattler_lock import Locked
    from hpcburst.envs.specs.formats.source import Source

_CONDA_SECTIONS = ("dependencies", "host-dependencies", "build-dependencies")
_LOCK_FIRST = "run `pixi lock` and keep pixi.lock beside the manifest"
_VIRTUAL = {"cuda": "__cuda", "libc": "__glibc", "linux": "__linux", "macos": "__osx"}
"""System requirements, and the virtual packages that a machine meets them with."""


def is_pixi_manifest(file_name: str, text: str) -> bool:
    """Whether a file of that name and text is one."""
    if file_name == "pixi.toml":
        return True
    return file_name == "pyproject.toml" and bool(re.search(r"(?m)^\s*\[tool\.pixi[\].]", text))


def read(source: Source, text: str, lock: tuple[Source, str] | None = None) -> EnvSpec:
    """The spec of one environment of a project.

    With a lock, its archives are taken; without one, the dependencies of the manifest are solved.

    Args:
        source: The manifest.
        text: Its text.
        lock: The lock beside it and its text, if there is one.

    Raises:
        EnvError: The manifest or lock cannot be read, asks for what cannot be had here, or the lock
            is older than the manifest.
    """
    manifest = _manifest(source, text)
    variables = _activation(manifest)
    if lock is not None:
        locked = rattler_lock.read_locked(*lock)
        _check_lock(manifest, locked)
        return EnvSpec(explicit=locked.archives, pip=locked.pip, variables=variables)
    _check_solvable(manifest)
    conda = (*_conda(manifest), *_system(manifest))
    return EnvSpec(
        channels=source.searched(_channels(manifest), conda),
        conda=conda,
        pip=(*_pip_options(manifest), *_pip(manifest)),
        variables=variables,
    )


def _manifest(source: Source, text: str) -> Manifest:
    raw = source.toml(text)
    if source.path.name != "pyproject.toml":
        return Manifest(source, raw, {})
    tool = source.mapping(raw.get("tool"), "`[tool]`")
    return Manifest(source, source.mapping(tool.get("pixi"), "`[tool.pixi]`"), raw)


def _conda(manifest: Manifest) -> tuple[str, ...]:
    found = []
    for feature in manifest.features():
        wanted: dict[str, Any] = {}
        for section in reversed(_CONDA_SECTIONS):  # what runs has the last word
            wanted |= manifest.source.mapping(feature.get(section), f"`[{section}]`")
        found += [conda_entry(manifest.source, *item) for item in wanted.items()]
    python, _ = python_requirements(manifest)
    if python and not any(name_of(entry) == "python" for entry in found):
        found.append(manifest.source.dependency(python))
    if not found:
        raise manifest.source.refusal(
            "it lists no dependencies", 'write [dependencies] and below it python = "3.12.*"'
        )
    return tuple(dict.fromkeys(found))


def _pip(manifest: Manifest) -> tuple[str, ...]:
    rows = [pip_entry(manifest.source, *item) for item in tables(manifest, "pypi-dependencies")]
    _, named = python_requirements(manifest)
    return tuple(dict.fromkeys([*rows, *named]))


def _channels(manifest: Manifest) -> tuple[str, ...]:
    """Channels of all features; those without a priority of their own keep their order."""
    source = manifest.source
    listed = manifest.workspace.get("channels")
    if not listed:
        raise source.refusal(
            "`channels` of [workspace] is not there", 'write channels = ["conda-forge"]'
        )
    rows = []
    for feature in [*manifest.features(), {}]:
        for row in source.entries(feature.get("channels", listed), "`channels`"):
            table = row if isinstance(row, dict) else {"channel": row}
            priority = table.get("priority", 0)
            if isinstance(priority, bool) or not isinstance(priority, int):
                raise source.refusal(f"the priority {shown(priority)} is not a number", "mend it")
            rows.append((-priority, source.channel(table.get("channel"))))
    return tuple(dict.fromkeys(name for _, name in sorted(rows, key=lambda row: row[0])))


def _system(manifest: Manifest) -> tuple[str, ...]:
    """System requirements as constraints on what the machine offers.

    `CONDA_OVERRIDE_CUDA` and its like meet them on a login node. `archspec` is left out: it names
    a family of CPUs, not a version.
    """
    found: dict[str, str] = {}
    for name, value in tables(manifest, "system-requirements"):
        least = value.get("version") if isinstance(value, dict) else value
        if name in _VIRTUAL and least is not None:
            found.setdefault(name, manifest.source.text(least, f"`{name}`"))
    for_others = {"macos"} if manifest.source.platform.startswith("linux") else {"linux", "libc"}
    return tuple(
        manifest.source.dependency(f"{_VIRTUAL[name]} >={least}")
        for name, least in found.items()
        if name not in for_others
    )


def _pip_options(manifest: Manifest) -> tuple[str, ...]:
    found: list[str] = []
    for name, value in tables(manifest, "pypi-options"):
        lines = _option_lines(manifest.source, name, value)
        found += [manifest.source.requirement(line) for line in lines]
    return tuple(dict.fromkeys(found))


def _option_lines(source: Source, name: str, value: Any) -> list[str]:
    if name == "index-url":
        return [f"--index-url {source.text(value, '`index-url`')}"]
    if name == "extra-index-urls":
        rows = source.entries(value, "`extra-index-urls`")
        return [f"--extra-index-url {source.text(url, '`extra-index-urls`')}" for url in rows]
    if name in ("no-build", "no-binary"):
        option = "--only-binary" if name == "no-build" else "--no-binary"
        rows = [":all:"] if value is True else source.entries(value or [], f"`{name}`")
        return [f"{option} {source.text(package, name)}" for package in rows]
    raise source.refusal(f"`{name[:40]}` of [pypi-options] cannot be told to uv here", _LOCK_FIRST)


def _activation(manifest: Manifest) -> dict[str, str]:
    """What `[activation]` sets; a feature's own value goes over that of `default`."""
    source = manifest.source
    found: dict[str, str] = {}
    for feature in reversed(manifest.features()):
        table = source.mapping(feature.get("activation"), "`[activation]`")
        if table.get("scripts"):
            raise source.refusal(
                "[activation] has scripts; an env is activated once and the outcome kept, and a "
                "script may do anything",
                "set variables in [activation.env] instead, or put the script into a package",
            )
        found |= source.variables(table.get("env"), "`[activation.env]`")
    expanded = [name for name, value in found.items() if "$" in value]
    if expanded:
        raise source.refusal(
            f"the variable {expanded[0]} of [activation.env] has a `$`, which pixi's shell expands "
            "and hpcburst keeps as it is",
            "write its value out",
        )
    return found


def _check_solvable(manifest: Manifest) -> None:
    """Refuse what changes a solution and cannot be told to the solver here."""
    for table in [manifest.workspace, *manifest.features()]:
        for name, harmless in (
            ("channel-priority", "strict"), ("solve-strategy", "highest"), ("exclude-newer", None),
            ("constraints", {}), ("dev", {}),
        ):  # fmt: skip
            if table.get(name, harmless) != harmless:
                raise manifest.source.refusal(
                    f"`{name}` changes what is chosen, and only pixi can follow it", _LOCK_FIRST
                )
    platforms = manifest.workspace.get("platforms")
    names = [_subdir(row) for row in manifest.source.entries(platforms, "`platforms`")]
    if names and manifest.source.platform not in names:
        raise manifest.source.refusal(
            f"it is for {', '.join(map(str, names))}, and this is {manifest.source.platform}",
            f"add {manifest.source.platform} to `platforms`",
        )


def _subdir(row: object) -> object:
    return row.get("platform", row.get("name")) if isinstance(row, dict) else row


def _check_lock(manifest: Manifest, locked: Locked) -> None:
    """Refuse a lock that was written before the manifest got its newest entries."""
    conda = [
        (same_name(name), value)
        for section in _CONDA_SECTIONS
        for name, value in tables(manifest, section)
    ]
    missing = [name for name, _ in conda if name not in locked.versions]
    pip = [same_name(name) for name, _ in tables(manifest, "pypi-dependencies")]
    pip += [name_of(line) for line in python_requirements(manifest)[1]]
    missing += [name for name in pip if name not in locked.provided]
    if missing:
        raise _outdated(manifest.source, f"has no {', '.join(dict.fromkeys(missing))}")
    for name, value in conda:
        wanted = value.get("version") if isinstance(value, dict) else value
        if isinstance(wanted, str) and _contradicts(wanted, locked.versions[name]):
            raise _outdated(
                manifest.source, f"has {name} {locked.versions[name]}, and {wanted} is asked for"
            )


def _outdated(source: Source, found: str) -> Exception:
    return source.refusal(f"its pixi.lock {found}", "run `pixi lock`")


def _contradicts(wanted: str, locked: str) -> bool:
    """Whether a plain wish such as `3.12.*` or `==1.2.0` surely does not let in a version."""
    match = re.fullmatch(r"(?:==)?\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?", wanted.strip())
    if match is None or not re.fullmatch(r"[0-9]+(?:\.[0-9]+)*", locked):
        return False
    asked, there = _numbers(match[1]), _numbers(locked)
    if match[2]:
        there += [0] * (len(asked) - len(there))
        return there[: len(asked)] != asked
    length = max(len(asked), len(there))
    return asked + [0] * (length - len(asked)) != there + [0] * (length - len(there))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
