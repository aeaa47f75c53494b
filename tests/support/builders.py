"""Stand-ins for conda, mamba, micromamba and pixi: programs that do the real work by py-rattler.

Each knows the words of its command line that the tool's own documentation has, refuses all others,
notes what it was told, and answers in the shape that the tool answers in. What they are not: the
tools' solvers, caches and remarks. Where a real one is found, it is tested instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LOG = "STANDIN_LOG"

SCRIPT = """#!{python}
import os, sys
sys.path.insert(0, {tests!r})
from support.builders import main
status = main({name!r}, sys.argv[1:])
sys.stdout.flush()
os._exit(status)  # threads of py-rattler outlive the interpreter, and crash it at times
"""


@dataclass(frozen=True)
class Call:
    """One start of a stand-in: its words, and the variables that concern it."""

    argv: list[str]
    environ: dict[str, str]


def install_tool(folder: Path, name: str) -> Path:
    """Write the stand-in for a tool into a folder to put on PATH; returns its program."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(SCRIPT.format(python=sys.executable, tests=str(TESTS), name=name))
    program.chmod(0o755)
    return program


def calls(log: Path) -> list[Call]:
    """What stand-ins were told."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [Call(**json.loads(line)) for line in lines]


def main(name: str, argv: list[str]) -> int:
    """Be the tool of this name."""
    _note(argv)
    tool = pixi if name == "pixi" else Conda(name).run
    return tool(argv)


def _note(argv: list[str]) -> None:
    ours = {k: v for k, v in os.environ.items() if k.startswith(("CONDA", "MAMBA", "PIXI"))}
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"argv": argv, "environ": ours}) + "\n")


@dataclass(frozen=True)
class Conda:
    """conda, or the mamba or micromamba of today (2.x)."""

    name: str

    @property
    def is_mamba(self) -> bool:
        return self.name != "conda"

    def run(self, argv: list[str]) -> int:
        args = self._parser().parse_args(argv)
        if args.verb == "info":
            key = "package cache" if self.is_mamba else "pkgs_dirs"
            print(json.dumps({key: [str(cache_folder())]}))
            return 0
        if args.file:
            return self._link(args)
        return self._solve(args)

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(prog=self.name, allow_abbrev=False)
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("info").add_argument("--json", action="store_true")
        create = verbs.add_parser("create", allow_abbrev=False)
        flags = ["yes", "json", "dry-run", "quiet", "offline", "override-channels", "no-pin"]
        flags += ["strict-channel-priority"] + ([] if self.is_mamba else ["no-default-packages"])
        for flag in flags:
            create.add_argument(f"--{flag}", action="store_true")
        create.add_argument("--channel", "-c", action="append", default=[])
        create.add_argument("--prefix", "-p", type=Path, required=True)
        create.add_argument("--file", "-f", type=Path)
        create.add_argument("specs", nargs="*")
        return parser

    def _solve(self, args: argparse.Namespace) -> int:
        assert args.dry_run
        assert args.override_channels, "the user's channels would get between ours"
        channels = [named_channel(channel) for channel in args.channel]
        try:
            records = solved(channels, args.specs, offline=args.offline)
        except Exception as error:
            return self._refuse(str(error))
        rows = [described(record) for record in records]
        fetched = [row for row in rows if not (cache_folder() / _entry(row)).exists()]
        linked = rows if self.is_mamba else [_short(row) for row in rows]
        actions = {"FETCH": fetched, "LINK": linked, "PREFIX": str(args.prefix)}
        answer = {"actions": actions, "dry_run": True, "success": True}
        print(json.dumps(answer, indent=4, default=str))
        return 0

    def _refuse(self, text: str) -> int:
        if self.is_mamba:
            print(f"error    libmamba {text}", file=sys.stderr)
            print(json.dumps({"success": False, "solver_problems": text.splitlines()}))
        else:
            missing = "No candidates were found" in text
            kind = "PackagesNotFoundError" if missing else "UnsatisfiableError"
            kind = kind if "Cannot solve" in text else "CondaHTTPError"
            print(json.dumps({"exception_name": kind, "message": text, "error": text}))
        return 1

    def _link(self, args: argparse.Namespace) -> int:
        if self.is_mamba and args.prefix.exists():
            print("critical libmamba Non-conda folder exists at prefix - aborting", file=sys.stderr)
            return 1
        lines = args.file.read_text().splitlines()
        assert lines[0] == "@EXPLICIT"
        try:
            records = asyncio.run(listed(lines[1:]))
            linked(records, args.prefix)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
        _fill_cache(records)
        compile_noarch(args.prefix)
        (args.prefix / "conda-meta/history").write_text(f"# cmd: {self.name} {sys.argv[1:]}\n")
        return 0


def pixi(argv: list[str]) -> int:
    """pixi's verbs `lock` and `install`."""
    parser = argparse.ArgumentParser(prog="pixi", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("lock", "install"):
        own = verbs.add_parser(verb, allow_abbrev=False)
        own.add_argument("--manifest-path", type=Path, required=True)
    own.add_argument("--frozen", action="store_true")
    args = parser.parse_args(argv)
    project = args.manifest_path.parent
    manifest = tomllib.loads(args.manifest_path.read_text())
    config = tomllib.loads((project / ".pixi/config.toml").read_text())
    assert config["detached-environments"] is False
    try:
        return _pixi_lock(project, manifest) if args.verb == "lock" else _pixi_install(project)
    except Exception as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _pixi_lock(project: Path, manifest: dict) -> int:
    from rattler import Channel, LockChannel, LockFile, LockPlatform

    asked = [_match_spec(name, fields) for name, fields in manifest["dependencies"].items()]
    channels = manifest["workspace"]["channels"]
    assert manifest["workspace"]["channel-priority"] == "strict"
    records = solved(channels, asked, offline=os.environ.get("PIXI_OFFLINE") == "true")
    (subdir,) = manifest["workspace"]["platforms"]
    lock = LockFile([LockPlatform(subdir)])
    lock.set_channels("default", [LockChannel(Channel(name).base_url) for name in channels])
    for record in records:
        lock.add_conda_package("default", LockPlatform(subdir), record)
    lock.to_path(project / "pixi.lock")
    return 0


def _pixi_install(project: Path) -> int:
    from rattler import LockFile

    lock = LockFile.from_path(project / "pixi.lock")
    packages = lock.default_environment().packages(lock.platforms()[0])
    prefix = project / ".pixi/envs/default"
    linked([package.repo_data_record() for package in packages], prefix)
    (project / ".pixi/.gitignore").write_text("*\n")
    (prefix / "conda-meta/pixi").write_text(json.dumps({"manifest_path": str(project)}))
    (prefix / "conda-meta/pixi_env_prefix").write_text(str(prefix))
    return 0


def _match_spec(name: str, fields: dict) -> str:
    fields = dict(fields)
    channel = fields.pop("channel", "")
    text = " ".join([name, fields.pop("version"), fields.pop("build", "")]).strip()
    assert not fields, f"{fields} were not expected"
    return f"{channel}::{text}" if channel else text


def cache_folder() -> Path:
    """The package cache of the stand-ins: the user's own, not ours."""
    return Path.home() / ".standin/pkgs"


def named_channel(name: str) -> str:
    """A channel as the user's configuration knows it by its name."""
    file = os.environ.get("CONDARC")
    custom = json.loads(Path(file).read_text()).get("custom_channels", {}) if file else {}
    return f"{custom[name]}/{name}" if name in custom else name


def solved(channels: list[str], specs: list[str], *, offline: bool) -> list:
    from rattler import Gateway, MatchSpec, VirtualPackage, VirtualPackageOverrides, solve
    from rattler.repo_data.gateway import SourceConfig

    action = "force-cache-only" if offline else "cache-or-fetch"
    gateway = Gateway(
        cache_dir=Path.home() / ".standin/repodata",
        default_config=SourceConfig(cache_action=action),
    )
    asked = [MatchSpec(text, strict=False) for text in specs]
    virtual = VirtualPackage.detect(VirtualPackageOverrides.from_env())
    return asyncio.run(solve(channels, asked, gateway=gateway, virtual_packages=virtual))


async def listed(lines: list[str]) -> list:
    """The records of the archives in an `@EXPLICIT` list, with the digests checked."""
    from rattler import Gateway, MatchSpec

    urls = dict(line.partition("#")[::2] for line in lines if line.strip())
    specs = [MatchSpec(url.rpartition("/")[2].rsplit("-", 2)[0]) for url in urls]
    gateway = Gateway(cache_dir=Path.home() / ".standin/repodata")
    bases = list(dict.fromkeys(url.rsplit("/", 2)[0] for url in urls))
    subdirs = list(dict.fromkeys(url.rsplit("/", 2)[1] for url in urls))
    rows = await gateway.query(bases, subdirs, specs, recursive=False)
    found = [record for row in rows for record in row if record.url in urls]
    assert {record.url for record in found} == set(urls), "an archive is gone"
    assert all(record.md5.hex() == urls[record.url] for record in found), "MD5 mismatch"
    return found


def linked(records: list, prefix: Path) -> None:
    from rattler import install

    asyncio.run(
        install(
            records,
            target_prefix=prefix,
            cache_dir=cache_folder(),
            execute_link_scripts=True,
            show_progress=False,
        )
    )


def _fill_cache(records: list) -> None:
    """Keep of each package what conda keeps of it, where conda keeps it."""
    for record in records:
        row = described(record)
        info = cache_folder() / _entry(row) / "info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "repodata_record.json").write_text(json.dumps(row, default=str))


def compile_noarch(prefix: Path) -> None:
    """Compile what came uncompiled, as these tools do by the Python of the env."""
    import subprocess

    if (prefix / "bin/python").exists():
        folders = map(str, prefix.glob("lib/python3*/site-packages"))
        argv = [str(prefix / "bin/python"), "-m", "compileall", "-q", *folders]
        subprocess.run(argv, check=False)


def described(record) -> dict:
    """A record as a dry run shows it."""
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": record.build,
        "build_string": record.build,
        "build_number": record.build_number,
        "channel": record.channel,
        "depends": list(record.depends),
        "fn": record.file_name,
        "md5": record.md5.hex(),
        "sha256": record.sha256.hex(),
        "size": record.size,
        "subdir": record.subdir,
        "url": record.url,
    }


def _short(row: dict) -> dict:
    """A package as conda's LINK has it: no URL, no digest."""
    return {
        "base_url": row["url"].rsplit("/", 2)[0],
        "build_number": row["build_number"],
        "build_string": row["build"],
        "channel": row["channel"],
        "dist_name": _entry(row),
        "name": row["name"],
        "platform": row["subdir"],
        "version": row["version"],
    }


def _entry(row: dict) -> str:
    return f"{row['name']}-{row['version']}-{row['build']}"
