"""How `hpcburst prefect up` sets a server up, and what it keeps to itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hpcburst.errors import RequestError, SiteError
from hpcburst.policy.load import load_site
from hpcburst_recipes.prefect_server.house import House, Wish, house_of
from hpcburst_recipes.prefect_server.place import Place, Process, Running
from hpcburst_recipes.prefect_server.settings import (
    check_database,
    server_variables,
    shell_text,
    tunnel,
    without_prefect,
)


@pytest.fixture
def house(shared_root: Path, tmp_path: Path, monkeypatch) -> House:
    """A house with nothing running."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return house_of(load_site({"shared-root": str(shared_root)}), None, lambda _: None)


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite:///x.db", "postgresql://h/d", "x"])
def test_only_databases_that_prefect_has_are_taken(url):
    """Another kind of database is refused before anything is started."""
    with pytest.raises(RequestError, match="postgresql"):
        check_database(url)


def test_a_password_in_an_argument_is_refused():
    """Who writes a password into a command shows it to everybody: told, not repeated."""
    with pytest.raises(RequestError, match="pgpass") as caught:
        check_database("postgresql+asyncpg://me:hunter2@db/prefect")
    assert "hunter2" not in str(caught.value)
    assert check_database("postgresql+asyncpg://me@db/prefect").endswith("db/prefect")


def test_the_page_works_through_any_tunnel():
    """The page asks for its API where it came from, and the server asks all for the secret."""
    found = server_variables("sqlite://", Path("/data"), "me:secret")
    assert found["PREFECT_SERVER_UI_API_URL"] == "/api"
    assert found["PREFECT_SERVER_API_AUTH_STRING"] == "me:secret"
    assert tunnel("127.0.0.1", 20001, "me", "login1") == "ssh -N -L 4200:127.0.0.1:20001 me@login1"


def test_settings_of_another_server_stay_out():
    """What a shell says of another Prefect does not reach ours."""
    environ = {"PREFECT_API_KEY": "other", "PREFECT_API_URL": "https://cloud", "PATH": "/bin"}
    assert without_prefect(environ) == {"PATH": "/bin"}


def test_secret_and_shell_file_are_private(house):
    """Secret and shell file are for their owner's eyes; the secret stays the same."""
    house.place.make()
    secret = house.place.secret()
    assert secret == house.place.secret()
    assert len(secret) > 40
    house.place.note(running())
    for path in (house.place.secret_file, house.place.shell_file):
        assert path.stat().st_mode & 0o777 == 0o600
    assert house.place.shell_file.read_text() == shell_text("http://h:1/api", secret)


def test_what_was_noted_is_found_again(house):
    """Another `hpcburst prefect` finds what was started; a broken note is as good as none."""
    house.place.make()
    assert house.place.read() is None
    house.place.note(running())
    assert house.place.read() == running()
    (house.place.folder / "running.json").write_text("{}")
    assert house.place.read() is None


def test_another_machine_is_told_where_the_server_is(house):
    """`down` on the wrong login node ends nothing and names the right one."""
    house.place.make()
    house.place.note(replace(running(), machine="login7"))
    with pytest.raises(SiteError, match="login7"):
        house.down()
    assert house.place.read() is not None


def test_a_number_that_another_process_has_now_is_not_ours():
    """A pid that came back is not taken for the server."""
    assert Process.of(os.getpid()).lives()
    assert not Process(os.getpid(), "1").lives()


def test_a_group_needs_a_folder_it_can_reach(house):
    """A server for a group in a folder that only its owner can enter is refused."""
    with pytest.raises(RequestError, match="--folder"):
        house.up(Wish(group="users"))


def test_a_group_that_is_none_is_an_answer(tmp_path):
    """A misspelt group is told."""
    place = Place(tmp_path / "place")
    place.make()
    place.secret()
    with pytest.raises(RequestError, match="no such group"):
        place.share("no-such-group-here")


def running() -> Running:
    return Running(
        machine="head",
        address="h",
        port=1,
        url="http://h:1/api",
        database="sqlite://",
        server=Process(1, "1"),
        pool="sci",
    )
