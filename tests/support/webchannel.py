"""A web server for one folder, on loopback, that can be as troublesome as real mirrors are."""

from __future__ import annotations

import base64
import re
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ARCHIVE = (".conda", ".tar.bz2")


@dataclass(frozen=True)
class Asked:
    """One request that was made."""

    method: str
    path: str
    headers: dict[str, str]
    status: int

    @property
    def range(self):
        return self.headers.get("range", "")


@dataclass
class WebChannel:
    """What the server does, changed while it runs, and what it has been asked.

    Attributes:
        folder: What it serves.
        authorization: The header of that name that it demands.
        token: The conda token that it demands in the path.
        mount: The path that the folder is served below.
        ranges: Whether it knows ranges.
        cut: Cut so many answers with archives off after `cut_bytes`.
        hold: While clear, answers with archives stop after `cut_bytes` and wait.
        failing: Status to answer for archives, so many times.
        other_bytes: Send so many answers with archives that have other bytes in them.
        elsewhere: Redirect requests for archives to this URL.
    """

    folder: Path
    authorization: str = ""
    token: str = ""
    mount: str = ""
    ranges: bool = True
    cut: int = 0
    cut_bytes: int = 300_000
    hold: threading.Event = field(default_factory=threading.Event)
    failing: list[int] = field(default_factory=list)
    other_bytes: int = 0
    elsewhere: str = ""
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    sent: Counter = field(default_factory=Counter)

    def archives_asked(self, part_of_name=""):
        """The requests for archives."""
        return [a for a in self.asked if a.path.endswith(ARCHIVE) and part_of_name in a.path]

    @property
    def host(self):
        return urlsplit(self.url).netloc


def basic(user, password):
    """The header that proves a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def serving(folder, **settings):
    """A server for a folder, until the end of the block."""
    channel = WebChannel(Path(folder), **settings)
    channel.hold.set()
    handler = type("Handler", (_Handler,), {"channel": channel})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    channel.url = f"http://127.0.0.1:{server.server_address[1]}{channel.mount}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield channel
    finally:
        channel.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    channel: WebChannel

    def do_GET(self):
        channel, path = self.channel, unquote(urlsplit(self.path).path)
        is_archive = path.endswith(ARCHIVE)
        if not self._may_enter(path):
            self._say(401)
        elif is_archive and channel.elsewhere:
            self._say(302, Location=channel.elsewhere + path)
        elif is_archive and channel.failing:
            self._say(channel.failing.pop(0))
        else:
            self._send_file(self._file(path), is_archive)

    def do_HEAD(self):
        self.do_GET()

    def _may_enter(self, path):
        channel = self.channel
        if channel.token and not path.startswith(f"/t/{channel.token}/"):
            return False
        return channel.authorization in ("", self.headers.get("Authorization"))

    def _file(self, path):
        path = re.sub(r"^/t/[^/]+", "", path)
        return self.channel.folder / path.removeprefix(self.channel.mount).lstrip("/")

    def _send_file(self, file, is_archive):
        if not file.is_file():
            self._say(404)
            return
        content, start = file.read_bytes(), self._start()
        if start >= len(content) > 0:
            self._say(416)
            return
        if is_archive and self.channel.other_bytes > 0:
            self.channel.other_bytes -= 1
            content = content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
        headers = {"ETag": f'"{file.name}"', "Content-Length": str(len(content) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._say(206 if start else 200, **headers)
        if self.command == "GET":
            self._send(content[start:], is_archive)

    def _start(self):
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match and self.channel.ranges else 0

    def _send(self, content, is_archive):
        channel = self.channel
        if is_archive and channel.cut > 0 and len(content) > channel.cut_bytes:
            channel.cut -= 1
            self._write(content[: channel.cut_bytes])
            self.close_connection = True
            return
        if is_archive and not channel.hold.is_set():
            self._write(content[: channel.cut_bytes])
            channel.hold.wait(60)
            content = content[channel.cut_bytes :]
        self._write(content)

    def _write(self, content):
        try:
            self.wfile.write(content)
            self.wfile.flush()
            self.channel.sent[self.path.rpartition("/")[2]] += len(content)
        except OSError:
            self.close_connection = True

    def _say(self, status, **headers):
        lower = {name.lower(): value for name, value in self.headers.items()}
        self.channel.asked.append(Asked(self.command, self.path, lower, status))
        self.send_response(status)
        headers = {"Content-Length": "0", **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments):
        pass
