"""The suite itself is tested: with a hole planted in a copy of the sources, it must fail."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

SOURCES = ("executors", "recipes")


@dataclass(frozen=True)
class Hole:
    """A hole, and who must see it.

    Attributes:
        changes: File, what stands there, and what is put in its place.
        seen_by: The tests of this suite, one of which must fail.
    """

    changes: tuple[tuple[str, str, str], ...]
    seen_by: str


STAGING = "executors/hpcburst/comms/staging.py"
CREDENTIALS = "executors/hpcburst/comms/credentials.py"
CLUSTER = "executors/hpcburst/pools/cluster.py"
FLEET = "executors/hpcburst/pools/fleet.py"
PILOT = "executors/hpcburst/workers/pilot.py"
GUESTS = "executors/hpcburst/workers/guests.py"
ANSWERING = "recipes/hpcburst_recipes/checkpoints/answering.py"
SERVER = "recipes/hpcburst_recipes/jupyter/server.py"
HOUSE = "recipes/hpcburst_recipes/prefect_server/house.py"

TRUSTING = """\
        import ssl

        class Security(Security):
            def get_listen_args(self, role):
                args = super().get_listen_args(role)
                args["ssl_context"].verify_mode = ssl.CERT_NONE
                return args

        return Security(
"""

SHARED_SCRATCH = """\
    folder = node_root / f"{SCRATCH_PREFIX}scratch-space"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
"""

OVERWRITE = """\
            os.replace(aside, path)
            open(aside, "w").close()
"""

HOLES = {
    "TLS is off": Hole(
        (
            (CREDENTIALS, "require_encryption=True,", "require_encryption=False,"),
            (CLUSTER, 'protocol="tls"', 'protocol="tcp"'),
            (PILOT, 'protocol="tls"', 'protocol="tcp"'),
            (PILOT, "require_encryption=True,", "require_encryption=False,"),
        ),
        "test_pool.py -k plain",
    ),
    "any certificate will do": Hole(
        (
            (
                CREDENTIALS,
                "        return Security(\n",
                TRUSTING,
            ),
        ),
        "test_pool.py -k certificate",
    ),
    "scratch is in a shared temporary folder": Hole(
        (
            (
                STAGING,
                "    folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=node_root))",
                SHARED_SCRATCH,
            ),
            (GUESTS, "    _check_private(folder)\n", ""),
        ),
        "test_pool.py -k folders",
    ),
    "folders that others can rename will do": Hole(
        ((STAGING, "    check_place(node_root)\n", ""),),
        "test_prepared_places.py -k rename",
    ),
    "a folder that is there already will do": Hole(
        ((STAGING, "    check_private(path)\n    if path.lstat", "    if path.lstat"),),
        "test_prepared_places.py -k took",
    ),
    "a name is not quoted": Hole(
        (
            (
                FLEET,
                "local_directory=shlex.quote(str(self.site.paths.node_root))",
                "local_directory=str(self.site.paths.node_root)",
            ),
        ),
        "test_hostile_names.py -k argument",
    ),
    "a name of a queue may be anything": Hole(
        (
            (
                "executors/hpcburst/jobs/directives.py",
                "if not _QUEUE.fullmatch(queue):",
                "if not _QUEUE.match(queue):",
            ),
        ),
        "test_hostile_names.py -k job_script",
    ),
    "the last decision wins": Hole(
        ((ANSWERING, "            os.link(aside, path)\n", OVERWRITE),),
        "test_checkpoints.py -k 'once or replaced'",
    ),
    "anybody's answer counts": Hole(
        ((ANSWERING, "if found.st_uid != os.getuid() or not stat.S_ISREG", "if not stat.S_ISREG"),),
        "test_checkpoints.py -k somebody",
    ),
    "kernels speak over TCP": Hole(
        ((SERVER, '"KernelManager": {"transport": "ipc"},', '"KernelManager": {},'),),
        "test_checkpoints.py -k reached",
    ),
    "whoever answers is the Prefect server": Hole(
        ((HOUSE, "return mine and processes", "return processes"),),
        "test_prefect_server.py -k dead",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources."""
    folder = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _suite(copy: Path, chosen: str) -> subprocess.CompletedProcess[str]:
    """Run tests of this suite on the copy."""
    file, *words = shlex.split(chosen)
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*argv, str(Path(__file__).with_name(file)), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / name) for name in SOURCES)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", HOLES)
def test_a_planted_hole_is_seen(copy: Path, tally, stranger, kind: str):
    """Each of these holes, opened again, lets an attack of the suite through, which says so."""
    hole = HOLES[kind]
    before = {name: (copy / name).read_text() for name, _, _ in hole.changes}
    try:
        for name, old, new in hole.changes:
            text = (copy / name).read_text()
            assert old in text, f"{name} has changed: plant the hole anew"
            (copy / name).write_text(text.replace(old, new, 1))
        done = _suite(copy, hole.seen_by)
    finally:
        for name, text in before.items():
            (copy / name).write_text(text)
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-1000:]
    seen = re.search(r"(?m)^leaks: [1-9]", done.stdout)
    tally.note("planted holes seen", kind, "" if seen else done.stdout[-2000:] or "nothing")
