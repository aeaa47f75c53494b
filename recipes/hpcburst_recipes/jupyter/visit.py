"""`hpcburst checkpoint open`: from a command to the notebook in a browser, and home again."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from hpcburst.errors import RequestError
from hpcburst.policy.model import Site
from hpcburst_recipes.checkpoints.answer import wake
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.desk import Standing, standing_of
from hpcburst_recipes.checkpoints.notebook import NOTEBOOK
from hpcburst_recipes.jupyter.access import (
    SAME_PORT,
    Tunnel,
    address,
    laptop_command,
    read_token,
    relay_argv,
    this_login,
    write_opener,
)
from hpcburst_recipes.jupyter.job import Desk
from hpcburst_recipes.jupyter.session import Phase, Session, read_session

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to a checkpoint.

    Attributes:
        checkpoint: The checkpoint.
        site: What the site allows.
        print_only: Whether the command for a laptop is all that is wanted.
        browser: Whether a browser is opened here, if there is a screen.
        json: Whether the address is told as JSON.
    """

    checkpoint: Checkpoint
    site: Site
    print_only: bool = False
    browser: bool = True
    json: bool = False

    def run(self, walltime: str | None) -> int:
        """Open it, and stay until it is answered or its session ends; Ctrl-C ends the visit alone.

        Raises:
            RequestError: It is decided, has no notebook, or asks for what no queue has.
            SubmitError: Its job could not be had.
        """
        self._check()
        desk = Desk(self.checkpoint, self.site)
        session = desk.live()
        if session is None or session.phase is not Phase.RUNNING:
            if session is None:
                desk.submit(walltime)
            session = desk.wait_ready(self._tell)
        if session.why:
            self._tell(f"a cell did not run: {session.why.strip().splitlines()[-1]}")
        folder = Path(self.checkpoint.folder)
        token = read_token(folder)
        if self.print_only:
            self._print_way(session, token)
            return 0
        argv = relay_argv(session, self.site.scheduler, desk.job_id())
        with Tunnel(session.socket, argv) as tunnel:
            url = address(tunnel.port, token)
            self._show(url, session)
            self._open(write_opener(folder, url))
            return self._stay(session)

    def _check(self) -> None:
        asked = f"The checkpoint {self.checkpoint.id} was to be opened"
        if standing_of(self.checkpoint) is Standing.DECIDED:
            record = f"its record is in {self.checkpoint.folder}/record"
            raise RequestError(asked, "it is decided", record)
        if not Path(self.checkpoint.folder, NOTEBOOK).is_file():
            raise RequestError(asked, "it has no notebook")

    def _print_way(self, session: Session, token: str) -> None:
        command = laptop_command(session, this_login())
        url = address(SAME_PORT, token)
        if self.json:
            print(jsonlib.dumps({"command": command, "url": url, "host": session.host}))
            return
        print(f"on your laptop:  {command}\nthen open:       {url}")

    def _show(self, url: str, session: Session) -> None:
        if self.json:
            print(
                jsonlib.dumps({"url": url, "host": session.host, "ends": session.ends}), flush=True
            )
            return
        ends = time.strftime("%H:%M", time.localtime(session.ends))
        print(f"open {url}\nthe session on {session.host} lasts until {ends}; ", end="")
        print("Ctrl-C ends this tunnel, not the session", flush=True)

    def _open(self, page: Path) -> None:
        if self.browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            webbrowser.open(page.as_uri())

    def _stay(self, session: Session) -> int:
        """Hold the tunnel until the checkpoint is decided or the session has ended."""
        woken = False
        folder = Path(self.checkpoint.folder)
        while True:
            if not woken and standing_of(self.checkpoint) is Standing.ANSWERED:
                wake(self.checkpoint)
                woken = True
            now = read_session(folder)
            if now is None or now.phase is Phase.ENDED:
                self._tell(f"the session has ended: {now.why if now else 'its folder is gone'}")
                return 0
            if now.name != session.name:
                self._tell("a longer session takes its place: open it again")
                return 0
            time.sleep(LOOK_EVERY_S)

    def _tell(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
