"""Builders at work below one root, and what to compare of the envs they make."""

from __future__ import annotations

import hashlib
import json
import marshal
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from hpcburst.envs.building.build import Plan, build
from hpcburst.envs.building.builders import Workshop, builder_for
from hpcburst.envs.building.publish import stage_for
from hpcburst.envs.building.solve import detect_machine, packages_in, write_lock
from hpcburst.envs.child.process import RattlerProcess
from hpcburst.envs.specs.spec import EnvSpec

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
SMALL = ("hpctool", "toylib 2.*", f"python {RUNNING}.*")

BOOKKEEPING = {
    "conda-meta/hpcburst.json",  # ours: who built it, when and where
    "conda-meta/history",  # conda's: the commands that made it
    "conda-meta/pixi",  # pixi's: the project it belongs to
    "conda-meta/pixi_env_prefix",
    ".condapackageignore",
    "CACHEDIR.TAG",  # rattler's: backups leave it out
}
"""What a tool writes for itself into an env; no program of the env reads it."""


@dataclass
class Bench:
    """Builders at work below one root, with one rattler process."""

    root: Path
    rattler: RattlerProcess
    channel: str
    log: Path = Path("/dev/null")

    def workshop(self, *, offline: bool = False) -> Workshop:
        folders = [self.root / name for name in ("locks", "envs", "pkgs", "repodata", "incoming")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return Workshop(self.rattler, folders[3], folders[4], offline)

    def builder(self, name: str, *, offline: bool = False):
        return builder_for(name, self.workshop(offline=offline))

    def spec(self, *dependencies: str, **more) -> EnvSpec:
        return EnvSpec((self.channel,), dependencies or SMALL, **more)

    def lock(self, spec: EnvSpec, name: str, *, offline: bool = False) -> Path:
        """The lock of a spec by one builder, made anew."""
        path = self.root / "locks" / f"{self.key(spec)}.lock.yml"
        builder = self.builder(name, offline=offline)
        path.unlink(missing_ok=True)
        assert write_lock(spec, path, builder=builder, source="environment.yml")
        return path

    def plan(self, spec: EnvSpec, lock: Path, folder: str, **more) -> Plan:
        (self.root / folder).mkdir(exist_ok=True)
        key = self.key(spec)
        prefix = self.root / folder / key
        cache = (self.root / "pkgs",)
        return Plan(key, prefix, stage_for(prefix), lock, cache, spec, "environment.yml", **more)

    def build(self, spec: EnvSpec, lock: Path, name: str, folder: str = "envs", **more) -> Path:
        plan = self.plan(spec, lock, folder)
        build(plan, self.builder(name, **more))
        left = [p.name for p in plan.prefix.parent.iterdir() if p.name.startswith(".")]
        assert left == [], "a builder leaves something half-made behind"
        return plan.prefix

    def key(self, spec: EnvSpec) -> str:
        machine = detect_machine(self.rattler)
        return spec.key(machine.platform, machine.virtual_packages)

    def archives(self, lock: Path) -> set[tuple[str, str]]:
        return {(row["url"], row["sha256"]) for row in packages_in(lock, self.rattler)}


def contents(prefix: Path) -> dict[str, tuple]:
    """What is at each place in an env: mode, and bytes or link target, without its own path."""
    found = {}
    for path in prefix.rglob("*"):
        place = str(path.relative_to(prefix))
        if place in BOOKKEEPING or place.startswith("conda-meta/") or path.suffix == ".pyc":
            found[place] = () if place not in BOOKKEEPING else None
        elif path.is_symlink():
            found[place] = ("link", str(path.readlink()).replace(str(prefix), "PREFIX"))
        elif path.is_dir():
            found[place] = ("folder", oct(path.stat().st_mode & 0o777))
        else:
            data = path.read_bytes().replace(bytes(prefix), b"PREFIX")
            mode = oct(path.stat().st_mode & 0o777)
            found[place] = ("file", mode, hashlib.sha256(data).hexdigest())
    return {place: what for place, what in found.items() if what is not None}


def compiled_names(prefix: Path) -> set[str]:
    """The source files that compiled Python in an env was compiled from, by its own account."""
    found = set()
    for path in prefix.glob("lib/python3*/site-packages/**/*.pyc"):
        if f"cpython-{RUNNING.replace('.', '')}." in path.name:
            code = marshal.loads(path.read_bytes()[16:])  # noqa: S302 - we compiled it
            found.add(code.co_filename)
    return found


def records(prefix: Path) -> set[tuple]:
    """The packages an env says it has: name, version, build and where they came from."""
    rows = [json.loads(p.read_text()) for p in (prefix / "conda-meta").glob("*-*.json")]
    return {(row["name"], row["version"], row["build"], row["url"]) for row in rows}


def wheel(folder: Path, version: str, code: str = "", needs: str = "") -> Path:
    """A wheel `pipped` of one module and one script."""
    info = f"pipped-{version}.dist-info"
    body = f"VERSION = {version!r}\n{code}\ndef main():\n    import sys\n    print(sys.prefix)\n"
    files = {
        "pipped.py": body,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: pipped\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\npipped = pipped:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = folder / f"pipped-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in files.items():
            archive.writestr(place, text)
    return path


def python_in(prefix: Path, code: str) -> str:
    """What a line of Python prints in an env."""
    argv = [str(prefix / "bin/python"), "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
