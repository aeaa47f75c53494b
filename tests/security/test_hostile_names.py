"""Names that a shell, a batch system or a file system would read as more than a name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hpcburst.comms.credentials import Credentials
from hpcburst.comms.exports import exports
from hpcburst.envs.specs.places import resolve_env
from hpcburst.errors import BurstError
from hpcburst.jobs.known import DIALECTS
from hpcburst.jobs.local import LocalDialect
from hpcburst.placement import Placement
from hpcburst.policy.load import load_site
from hpcburst.policy.model import Paths
from hpcburst.pools.fleet import PilotScripts, Program
from hpcburst.tasks import Needs, Shape, read_modules, read_needs
from hpcburst.templates import read_words
from hpcburst_recipes.checkpoints.bundle import make_bundle
from hpcburst_recipes.checkpoints.question import question

CANARY = "planted-by-a-name"

NAMES = {
    "dollar": f"a$(touch {CANARY})",
    "backticks": f"a`touch {CANARY}`",
    "semicolon": f"a; touch {CANARY};",
    "quotes": f"a\"; touch {CANARY}; \"'; touch {CANARY}; '",
    "newline": f"a\ntouch {CANARY}\n",
    "directive": "a\n#SBATCH --wrap=id\n#PBS -v A\n#$ -N a\n#BSUB -N\n#OAR -n a\nqueue 2\n",
    "return": f"a\rtouch {CANARY}",
    "NUL": f"a\0touch {CANARY}",
    "dash": "-rf",
    "two dashes": "--help",
    "long": "a" * 4096,
    "up": "../../../../tmp/a",
    "pipe": f"a|touch {CANARY}&",
    "variable": "${HOME}",
    "template": "{x}%j%s%%{{",
    "look-alike": "\u0455\u04bbort",
    "right to left": "a\u202egnp.sh",
    "blank": "a b\tc",
    "comment": "a #",
    "escape": "a\x1b]0;x\x07",
}

every_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that notes its arguments beside itself."""
    path = tmp_path_factory.mktemp("recorder") / "recorder"
    path.write_text(
        f"#!{sys.executable} -IS\nimport json, sys\n"
        "open(sys.argv[0] + '.json', 'w').write(json.dumps(sys.argv[1:]))\n"
    )
    path.chmod(0o700)
    return path


def _run(script: str, folder: Path, recorder: Path) -> list[str]:
    """The arguments that a job's script gives to its program; the canary must not be there."""
    told = recorder.with_name("recorder.json")
    told.unlink(missing_ok=True)
    (folder / "job.sh").write_text(script)
    done = subprocess.run(
        ["/bin/bash", "job.sh"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )
    assert told.exists(), done.stderr
    return list(json.loads(told.read_text()))


def _dialect(name: str, folder: Path):
    return LocalDialect(folder) if name == "local" else DIALECTS[name]()


def _scripts(system: str, folder: Path, recorder: Path, node_root: str) -> PilotScripts:
    site = load_site({"scheduler": "local", "shared-root": str(folder)})
    object.__setattr__(site, "paths", Paths(folder, Path(node_root)))
    return PilotScripts(
        _dialect(system, folder),
        site,
        "tls://127.0.0.1:1",
        Credentials(folder / "tls.crt", folder / "tls.key"),
        "/var/log/run",
        Program(str(recorder)),
    )


SYSTEMS = ("local", "slurm", "pbs", "sge", "lsf", "htcondor", "oar")

FIELDS: dict[str, Callable[[str], Shape]] = {
    "queue": lambda name: Shape(queue=name),
    "account": lambda name: Shape(placement=Placement(account=name)),
    "qos": lambda name: Shape(placement=Placement(qos=name)),
    "constraint": lambda name: Shape(placement=Placement(constraint=name)),
    "reservation": lambda name: Shape(placement=Placement(reservation=name)),
    "gpu_model": lambda name: Shape(gpus=1, placement=Placement(gpu_model=name)),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_name_in_a_job_script_is_a_name_or_refused(tmp_path, recorder, tally, system):
    """Queue, account, quality of service, constraint, reservation and model: what is no name is
    refused; what is taken adds no line to the script, and the script runs nothing but the pilot."""
    scripts = _scripts(system, tmp_path, recorder, "/node")
    seen = set()
    for field, shape in FIELDS.items():
        for kind, name in NAMES.items():
            script = _text(scripts, shape(name))
            plain = _text(scripts, shape("a"))
            more = script and _lines(script) != _lines(plain)
            if script and not more and system != "htcondor" and script not in seen:
                seen.add(script)  # a field that is not told to this system changes nothing
                _run(script.replace("exec >>", "#"), tmp_path, recorder)
                more = (tmp_path / CANARY).exists()
            tally.note("names in job scripts", f"{kind} as {field} on {system}", more)


def _text(scripts: PilotScripts, shape: Shape) -> str:
    """The script of such a pilot; "" when it is refused."""
    try:
        return scripts.text("pilot-1", shape)
    except BurstError:
        return ""


def _lines(script: str) -> tuple[int, int]:
    return script.count("\n"), len(re.findall(r"(?m)^(?:#\S|queue\b)", script))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_node_that_is_avoided_is_named_or_left_out(tmp_path, recorder, tally, system):
    """Names of nodes come from the batch system; what is none does not get into a script."""
    scripts = _scripts(system, tmp_path, recorder, "/node")
    for kind, name in NAMES.items():
        script = scripts.text("pilot-1", Shape(), [name, "n1"])
        brought = not re.fullmatch(r"\w[\w.-]*", name) and name != "a #" and name in script
        tally.note("names in job scripts", f"{kind} as a node on {system}", brought)


@every_name
def test_a_folder_with_any_name_stays_one_argument(tmp_path, recorder, tally, name):
    """The node's root and the run's own folders may be called anything a file system takes: the
    pilot is given exactly that, and nothing of it is run."""
    if "\0" in name:
        with pytest.raises(ValueError, match="null"):
            Path(f"/{name}").exists() or (tmp_path / name).mkdir()
        tally.note("names of folders", "NUL", brought=False)
        return
    node = f"/node/{name}"
    script = _scripts("local", tmp_path, recorder, node).text("pilot-1", Shape())
    words = _run(script, tmp_path, recorder)
    told = words[words.index("--local-directory") + 1]
    brought = told != node or (tmp_path / CANARY).exists()
    tally.note("names of folders", f"{name[:20]!r}", brought)


@every_name
def test_values_of_variables_are_values(tmp_path, tally, name):
    """What a job's variable is set to is data, and what is no name of a variable is refused."""
    with pytest.raises(BurstError):
        exports({name: "x"}) if not re.fullmatch(r"a+", name) else exports({"a b": "x"})
    if "\0" not in name:
        text = exports({"IT": name}) + '\nprintf %s "$IT"'
        done = subprocess.run(
            ["/bin/sh", "-c", text], cwd=tmp_path, capture_output=True, check=True
        )
        assert done.stdout.decode() == name
    tally.note("variables", f"{name[:20]!r}", (tmp_path / CANARY).exists())


@every_name
def test_what_a_task_asks_for_is_read_or_refused(tmp_path, monkeypatch, tally, name):
    """Whatever is written for a field of @needs, it is read as what it says or refused."""
    monkeypatch.chdir(tmp_path)
    for field in ("memory", "walltime", "cores", "gpus", "ok"):
        with pytest.raises((BurstError, TypeError)):
            read_needs({field: name})
    with suppress(BurstError):
        modules = read_modules(name)
        assert all(re.fullmatch(r"[\w][\w.+\-/=@:]*", module) for module in modules)
    with suppress(BurstError):
        words = read_words(name)
        assert words is None or isinstance(words, tuple)
    assert read_needs({"queue": name}) == Needs(queue=name)
    tally.note("fields of @needs", f"{name[:20]!r}", (tmp_path / CANARY).exists())


@every_name
def test_an_env_with_any_name_is_found_or_not(tmp_path, monkeypatch, tally, name):
    """A name of an env that is none is an error that says so; no program is run to find out."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BurstError):
        resolve_env(name, [tmp_path])
    tally.note("names of envs", f"{name[:20]!r}", (tmp_path / CANARY).exists())


@every_name
def test_a_checkpoint_with_any_name_stays_in_its_folder(tmp_path, tally, name):
    """A name of a checkpoint or of something shown is a plain name or is refused."""
    root = tmp_path / "root"
    try:
        one = make_bundle(root, question(name), {name: 1})
    except BurstError:
        one = None
    if one is not None:
        assert Path(one.folder).parent.parent == root
    with pytest.raises(BurstError):
        make_bundle(root, question("look"), {f"{name}/../x": 1})
    outside = [path for path in tmp_path.iterdir() if path != root]
    tally.note("names of checkpoints", f"{name[:20]!r}", outside)


def test_what_is_set_in_the_login_environment_does_not_reach_an_env(tmp_path, monkeypatch, tally):
    """Variables that point Python elsewhere are taken away before a body runs in an env."""
    from hpcburst.tasks import Env
    from hpcburst.workers.guests import GuestPool, install_guest

    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": "/x"}
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    pool = GuestPool(home=install_guest(home), environ={**os.environ, **hostile})
    try:
        environ = pool._environ_of(Env("key", "/prefix"))
    finally:
        pool.close()
    tally.note("login environment", "Python's own", sorted(set(hostile) & set(environ)))


def test_a_file_that_is_called_like_a_command_is_not_run(tmp_path, tally):
    """Files in the working directory are never taken for programs of ours: jobs name theirs by
    their whole path, so a `python` or `localqueue.py` that a stranger left there stays what it is.
    """
    for name in ("python", "python3", "localqueue.py", "sitecustomize.py", "json.py"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path / CANARY}\n")
        (tmp_path / name).chmod(0o755)
    dialect = LocalDialect(tmp_path / uuid.uuid4().hex)
    dialect.spool.mkdir(mode=0o700)
    done = subprocess.run(
        dialect.states_argv(["1"]), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "unknown" in done.stdout
    tally.note("login environment", "programs in the folder", (tmp_path / CANARY).exists())
    shutil.rmtree(dialect.spool)
