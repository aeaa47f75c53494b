"""One URL into one file over HTTP, going on where an earlier try was cut off.

Standard library only: the proxies of the environment, redirects and certificates are urllib's.
Credentials go to the server they are meant for and never along with a redirect to another one.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hpcburst._version import __version__
from hpcburst.envs.child.credentials import ticket_for
from hpcburst.envs.child.refusals import ArchiveGone, ArchiveRefused, ServerUnreachable
from hpcburst.envs.specs.entries import redact

if TYPE_CHECKING:
    from collections.abc import Callable

SILENCE_S = 30.0
"""Seconds a server may say nothing: more than a busy mirror needs, less than a person waits."""

TRIES = 5
"""Tries in a row that brought nothing new, before giving up; with the pauses about 15 s."""

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Seconds between those tries: doubling, so that a server in trouble is left alone."""

CHUNK = 256 * 1024
"""Bytes read at once: a few calls a megabyte, and still a smooth progress bar."""

_GONE = (404, 410)
_REFUSED = (401, 403, 407)
_LATER = (408, 425, 429, 500, 502, 503, 504)


@dataclass
class Download:
    """A file that grows: `part` holds the first bytes of what `url` is, and perhaps all of them.

    Args:
        url: http or https, credentials and all.
        part: Open for reading and writing; what is in it is kept.
        size: Bytes of the whole, 0 if unknown.
        told: Called with the number of bytes that are there now.
        stopped: Asked between chunks; True ends the download with `InterruptedError`.
    """

    url: str
    part: IO[bytes]
    size: int
    told: Callable[[int], None]
    stopped: Callable[[], bool]
    _tag: str = ""

    def run(self) -> None:
        """Fetch what is missing.

        Raises:
            FetchFailed: It cannot be had; what came is in the part and is of use later.
            InterruptedError: `stopped` said so.
            OSError: The part cannot be written.
        """
        idle = 0
        while True:
            before = self._have()
            try:
                self._try()
                return
            except _Cut as cut:
                idle = 0 if self._have() >= before + CHUNK else idle + 1
                if idle >= TRIES:
                    raise ServerUnreachable(f"{redact(self.url)}: {cut}") from cut.__cause__
                self._wait(cut.after_s or PAUSES_S[min(max(idle, 1), len(PAUSES_S)) - 1])

    def _try(self) -> None:
        have = self._have()
        self.told(have)
        if self.size and have == self.size:
            return
        if self.size and have > self.size:
            have = self._empty()
        with self._answer(have) as answer:
            self._receive(answer, have)

    def _answer(self, have: int) -> http.client.HTTPResponse:
        try:
            return _open(self._request(have))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _broken(self.url, error) from error

    def _request(self, have: int) -> urllib.request.Request:
        request = _request(self.url)
        if have:
            request.add_header("Range", f"bytes={have}-")
            if self._tag:
                request.add_header("If-Range", self._tag)
        return request

    def _receive(self, answer: http.client.HTTPResponse, have: int) -> None:
        start, end = _span(answer)
        if start not in {0, have}:
            self._empty()
            raise _Cut(f"the server sent bytes from {start} on, and {have} was asked for")
        if start == 0 and have:
            self._empty()  # the server knows no ranges, or the file is another one by now
        self._tag = _strong_tag(answer)
        self.part.seek(start)
        while chunk := _read(answer):
            self._write(chunk)
            self.told(self.part.tell())
            if self.stopped():
                raise InterruptedError
            if self.size and self.part.tell() > self.size:
                return  # whatever this is, it is not the archive; its digest will say so
        if end and self.part.tell() < end:
            raise _Cut(f"the connection ended after {self.part.tell()} of {end} bytes")

    def _write(self, chunk: bytes) -> None:
        self.part.write(chunk)
        self.part.flush()  # a full disk is to be heard of here

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        error.close()
        said = f"{error.code} {error.reason}"
        if error.code in _GONE:
            return ArchiveGone(f"{redact(self.url)}: {said}")
        if error.code in _REFUSED:
            return ArchiveRefused(f"{redact(self.url)}: {said}")
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._empty()
            return _Cut(said)
        if error.code in _LATER:
            return _Cut(said, _seconds(error.headers.get("Retry-After", "")))
        return ServerUnreachable(f"{redact(self.url)}: {said}")

    def _have(self) -> int:
        return os.fstat(self.part.fileno()).st_size

    def _empty(self) -> int:
        self.part.truncate(0)
        return 0

    def _wait(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while time.monotonic() < until:
            if self.stopped():
                raise InterruptedError
            time.sleep(min(0.1, pause_s))


class _Cut(Exception):
    """A try ended early; the next one may bring more."""

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


def status_of(url: str, timeout_s: float) -> int:
    """The HTTP status a server has for this URL and us, 0 if it does not answer; asked once."""
    request = _request(url)
    request.method = "HEAD"
    try:
        with _open(request, timeout_s) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, ValueError, http.client.HTTPException):
        return 0


def _request(url: str) -> urllib.request.Request:
    ticket = ticket_for(url)
    # http and https only: the opener below knows no other scheme.
    request = urllib.request.Request(ticket.url)  # noqa: S310
    if ticket.authorization:
        request.add_unredirected_header("Authorization", ticket.authorization)
    return request


def _open(
    request: urllib.request.Request, timeout_s: float = SILENCE_S
) -> http.client.HTTPResponse:
    answer: http.client.HTTPResponse = _opener().open(request, timeout=timeout_s)
    return answer


@cache
def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", f"hpcburst/{__version__}")]
    for handler in (
        urllib.request.ProxyHandler(_proxies()),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_certificates()),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Lets credentials go on only to the server they were sent to."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        secret = req.get_header("Authorization")
        if following is not None and secret and _server(newurl) == _server(req.full_url):
            following.add_unredirected_header("Authorization", secret)
        return following


def _server(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _proxies() -> dict[str, str]:
    proxies = urllib.request.getproxies()
    for scheme in ("http", "https"):
        if "all" in proxies:
            proxies.setdefault(scheme, proxies["all"])
    return proxies


def _certificates() -> ssl.SSLContext:
    """What to trust: OpenSSL reads SSL_CERT_FILE itself, the other two are conda's and curl's."""
    context = ssl.create_default_context()
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        place = os.environ.get(name)
        if place and not os.environ.get("SSL_CERT_FILE"):
            context.load_verify_locations(
                **{"capath" if Path(place).is_dir() else "cafile": place},
            )
            break
    return context


def _span(answer: http.client.HTTPResponse) -> tuple[int, int]:
    """First byte of an answer and the one after its last; that is 0 if it is not told."""
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.match(r"bytes (\d+)-(\d+)/", answer.headers.get("Content-Range", ""))
        if match:
            return int(match[1]), int(match[2]) + 1
        return -1, 0
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else 0


def _strong_tag(answer: http.client.HTTPResponse) -> str:
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else ""


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(_reason(error)) from error


def _broken(url: str, error: Exception) -> Exception:
    """What a connection that did not come about means: try again, unless it is no use."""
    hopeless = (ssl.SSLCertVerificationError, http.client.InvalidURL)
    if isinstance(getattr(error, "reason", error), hopeless):
        return ServerUnreachable(f"{redact(url)}: {_reason(error)}")
    return _Cut(_reason(error))


def _reason(error: Exception) -> str:
    return redact(str(getattr(error, "reason", "") or error) or type(error).__name__)


def _seconds(retry_after: str) -> float:
    """What a server asks for, within reason; it may also be a date, which is not looked at."""
    return min(float(retry_after), 60.0) if retry_after.isdecimal() else 0.0
