"""Another ordinary user of the machine: another uid, no groups, no rights, and bad intentions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UID = 65_533
"""A number without an account: nothing on a machine belongs to it."""

PROGRAM = Path(__file__).with_name("attacks.py")

LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class Stranger:
    """Runs `support.attacks` as that user.

    Attributes:
        python: An interpreter that this user may run; the standard library is enough.
    """

    python: str

    @classmethod
    def here(cls) -> Stranger | str:
        """A stranger on this machine, or why there can be none."""
        if os.getuid() != 0:
            return "two users are needed, and only root can be another one (setpriv)"
        if shutil.which("setpriv") is None:
            return "setpriv is missing: apt-get install util-linux"
        for python in dict.fromkeys(("/usr/bin/python3", sys.executable, "/usr/local/bin/python3")):
            one = cls(python)
            done = subprocess.run(one.argv("-c", "pass"), capture_output=True, check=False, cwd="/")
            if done.returncode == 0:
                return one
        return "no Python on this machine can be run by others: apt-get install python3"

    def argv(self, *words: str) -> list[str]:
        """The command that runs Python with these words as the stranger."""
        who = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs"]
        return [*who, self.python, "-I", "-S", *words]

    def tries(self, attack: str, *words: str | Path | int) -> Any:
        """What an attack brought: what its program printed, as plain data."""
        done = subprocess.run(
            self.argv("-", attack, *map(str, words)),
            input=PROGRAM.read_text(),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            start_new_session=True,  # within a session, anybody may wake anybody
            check=False,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, f"the attack itself is broken: {done.stderr}"
        return json.loads(done.stdout)

    def stays(self, attack: str, *words: str | Path | int) -> subprocess.Popen[str]:
        """Start an attack that goes on; its first line says that it has begun."""
        started = subprocess.Popen(
            self.argv("-c", PROGRAM.read_text(), attack, *map(str, words)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
        assert started.stdout is not None
        assert started.stdout.readline().strip() == "ready"
        return started
