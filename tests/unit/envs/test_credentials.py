"""Who we are to a channel: what goes into a request, and what does not."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.child.credentials import ticket_for

WORDS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12)
LABELS = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A person without any credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RATTLER_AUTH_FILE", raising=False)
    monkeypatch.delenv("NETRC", raising=False)


@given(user=WORDS, password=WORDS, labels=LABELS)
def test_user_and_password_of_a_url_are_sent_as_a_header_and_not_in_the_url(user, password, labels):
    """Any user and any password arrive as written, and the URL asked for holds neither."""
    host = ".".join(labels)
    said = f"{quote(user, safe='')}:{quote(password, safe='')}"
    ticket = ticket_for(f"https://{said}@{host}:8443/chan/noarch/a-1-0.conda?x=1")
    assert ticket.url == f"https://{host}:8443/chan/noarch/a-1-0.conda?x=1"
    scheme, _, code = ticket.authorization.partition(" ")
    assert (scheme, base64.b64decode(code).decode()) == ("Basic", f"{user}:{password}")


@given(labels=LABELS, wide=st.integers(0, 4))
def test_a_wildcard_covers_its_domain_and_all_below(labels, wide, tmp_path_factory):
    """`*.domain` speaks for that domain and every host in it, and for no other."""
    host, domain = ".".join([*labels, "org"]), ".".join([*labels, "org"][wide:])
    path = tmp_path_factory.mktemp("auth") / "auth.json"
    path.write_text(json.dumps({f"*.{domain}": {"CondaToken": "tk"}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATTLER_AUTH_FILE", str(path))
        covered = bool(domain)
        ticket = ticket_for(f"https://{host}/c/a.conda")
        assert urlsplit(ticket.url).path == ("/t/tk/c/a.conda" if covered else "/c/a.conda")
        assert ticket_for("https://elsewhere.net/c/a.conda").url.endswith("net/c/a.conda")


@pytest.mark.parametrize("content", ["", "[]", '{"h": 1}', '{"h": {"BearerToken": 3}}', "{"])
def test_a_file_that_makes_no_sense_is_no_credentials(content, monkeypatch, tmp_path):
    """A broken auth file does not stop us from asking without credentials."""
    path = tmp_path / "auth.json"
    path.write_text(content)
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(path))
    assert ticket_for("https://h/a").authorization == ""


def test_an_address_is_in_no_domain(monkeypatch, tmp_path):
    """Wildcards do not match numbers: `*.0.0.1` is nobody's domain."""
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"*.0.0.1": {"BearerToken": "x"}, "*.1": {"BearerToken": "x"}}))
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(path))
    assert ticket_for("http://127.0.0.1:1/a").authorization == ""
