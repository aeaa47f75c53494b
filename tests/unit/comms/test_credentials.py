"""Who has the run's certificate may speak; nobody else can, and nobody can read along."""

from __future__ import annotations

import ssl
import stat
from contextlib import suppress

import pytest

from hpcburst.comms.credentials import Credentials
from hpcburst.comms.staging import private_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The credentials of two runs."""
    folders = [private_folder(tmp_path_factory.mktemp("runs") / name) for name in ("one", "two")]
    return [Credentials.make(folder) for folder in folders]


def test_the_files_are_private(runs):
    """Certificate and key can be read by their owner alone, and nothing else is written."""
    for run in runs:
        files = [run.certificate, run.key]
        assert sorted(run.key.parent.iterdir()) == sorted(files)
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]


def test_the_key_is_in_the_key_file_alone(runs):
    """The certificate can be shown around; it does not hold the key."""
    assert "PRIVATE KEY" in runs[0].key.read_text()
    assert "PRIVATE KEY" not in runs[0].certificate.read_text()
    assert "PRIVATE KEY" not in repr(runs[0]) + repr(runs[0].security())


def test_every_run_has_its_own(runs):
    """No two runs share a key."""
    assert runs[0].key.read_text() != runs[1].key.read_text()


def test_plain_connections_are_not_an_option(runs):
    """Encryption is required for every role, so that no setting of the user turns it off."""
    security = runs[0].security()
    assert security.require_encryption is True
    for role in ("scheduler", "worker", "client"):
        assert security.get_connection_args(role)["require_encryption"] is True


def _talk(listener, caller):
    """What a client with one context hears from a server with the other; no socket is needed."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = listener.wrap_bio(there, back, server_side=True)
    client = caller.wrap_bio(back, there)
    for _ in range(3):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    server.write(b"hello")
    return client.read(), client.version()


def _listener(run):
    return run.security().get_listen_args("scheduler")["ssl_context"]


def _caller(run):
    return run.security().get_connection_args("client")["ssl_context"]


def test_who_has_the_certificate_is_heard(runs):
    """Driver and pilots of one run understand each other, over TLS 1.2 at least."""
    heard, version = _talk(_listener(runs[0]), _caller(runs[0]))
    assert heard == b"hello"
    assert version in ("TLSv1.2", "TLSv1.3")


def _without_certificate(_):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _of_another_run(runs):
    context = _caller(runs[1])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it would believe anybody; the other side must not
    return context


@pytest.mark.parametrize("stranger", [_without_certificate, _of_another_run])
def test_strangers_are_refused(runs, stranger):
    """Without the run's own certificate there is no conversation, not even with another run's."""
    with pytest.raises(ssl.SSLError):
        _talk(_listener(runs[0]), stranger(runs))


def test_an_impostor_of_the_driver_is_refused(runs):
    """A pilot does not believe a driver that has another certificate."""
    with pytest.raises(ssl.SSLError):
        _talk(_listener(runs[1]), _caller(runs[0]))
