"""Everybody may configure; the centre's limits hold, and every value says where it is from."""

from __future__ import annotations

import dask.config
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.errors import SiteError
from hpcburst.policy.load import load_site, merged
from hpcburst.policy.shown import document
from hpcburst.policy.sources import bound, default_section, layers, origins

QUEUE = {"cores": 16, "memory": "64GB", "walltime": "1h"}


@pytest.fixture
def centre(tmp_path, monkeypatch):
    """Writes a file of the centre's and reads Dask's config anew, as a new process would."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.setenv("DASK_ROOT_CONFIG", str(folder))
    before = dask.config.paths[:]
    monkeypatch.setattr(dask.config, "paths", [str(folder), *before])

    def write(text):
        path = folder / "hpcburst.yaml"
        path.write_text(text)
        dask.config.refresh(paths=[str(folder), *before])
        return str(path)

    yield write
    monkeypatch.undo()
    dask.config.refresh(paths=before)


def test_a_limit_of_the_centre_is_not_passed_by_a_user(centre):
    """What /etc/dask limits, nobody raises by a file, a variable or an argument of their own."""
    centre("hpcburst: {max-jobs: 20, max_pending: 4, max-cores: 64, budget: 10}")

    limits = load_site({"max-jobs": 50, "max-pending": 99, "max-cores": None}).limits
    assert (limits.max_jobs, limits.max_pending) == (20, 4)
    assert (limits.max_cores, limits.max_core_hours) == (64, 10)
    with dask.config.set({"hpcburst.max-jobs": 50, "hpcburst.budget": "1e9"}):
        assert load_site().limits.max_jobs == 20
        assert load_site().limits.max_core_hours == 10


def test_a_user_may_take_less_than_the_centre_gives(centre):
    """A limit of the centre's is the most, not the only one."""
    centre("hpcburst: {max-jobs: 20, budget: 10}")

    assert load_site({"max-jobs": 5, "budget": 2}).limits.max_jobs == 5
    assert load_site({"max-jobs": 5, "budget": 2}).limits.max_core_hours == 2


def test_a_centre_may_slow_the_looks_down_but_nobody_speeds_them_up(centre):
    """The time between two looks is at least the centre's."""
    centre("hpcburst: {status-interval: 2m}")

    assert load_site({"status-interval": "1s"}).limits.status_interval_s == 120
    assert load_site({"status-interval": "5m"}).limits.status_interval_s == 300


def test_queues_of_the_centre_keep_their_limits_and_prices(centre):
    """A user's file may ask for smaller jobs in a queue, not for larger or cheaper ones."""
    centre(
        "hpcburst: {scheduler: slurm, host: h, queues: "
        "{short: {cores: 16, memory: 64GB, walltime: 1h, price: 2}}}"
    )
    wide = {"short": {**QUEUE, "cores": 999, "walltime": "10m", "price": 0.1}}
    (queue,) = load_site({"queues": wide}).queues

    assert (queue.max_cores, queue.max_walltime_s, queue.price) == (16, 600, 2.0)


def test_a_forbidden_queue_is_not_there(centre):
    """What the centre forbids stays forbidden, beside what the user forbids."""
    centre("hpcburst: {forbidden: [bigmem]}")
    queues = dict.fromkeys(("short", "bigmem", "slow"), QUEUE)
    stated = {"scheduler": "slurm", "host": "h", "queues": queues, "forbidden": ["slow"]}
    site = load_site(stated)

    assert [queue.name for queue in site.queues] == ["short"]
    assert set(site.forbidden) == {"bigmem", "slow"}
    with pytest.raises(SiteError, match="forbids"):
        load_site({**stated, "pilot": {"queue": "bigmem"}})
    with pytest.raises(SiteError, match="No other queue"):
        load_site({**stated, "forbidden": ["short", "slow"]})


def test_every_value_says_where_it_is_stated(centre, monkeypatch):
    """Default, file, environment and program are told apart, and a limit that held is named."""
    path = centre("hpcburst: {max-jobs: 20, message: Maintenance on Tuesday.}")
    monkeypatch.setenv("DASK_HPCBURST__JOBS", "3")
    dask.config.refresh(paths=dask.config.paths)
    with dask.config.set({"hpcburst.max-jobs": 50}):
        shown = document(load_site())
    rows = {row["key"]: (row["value"], row["source"]) for row in shown["settings"]}

    assert rows["jobs"] == (3, "environment")
    assert rows["max-jobs"] == (20, f"program, {path} (holds for all)")
    assert rows["max-pending"] == (10, "default")
    assert shown["message"] == "Maintenance on Tuesday."
    assert shown["queues"][0]["source"] == "this machine"


def test_without_config_everything_is_default():
    """Nobody stated anything: every value is ours."""
    assert set(origins(layers()).values()) == {"default"}


limits = st.fixed_dictionaries(
    {},
    optional={
        "max-jobs": st.integers(1, 1000),
        "max-pending": st.integers(1, 1000),
        "max-cores": st.none() | st.integers(1, 10**6),
        "budget": st.none() | st.floats(0.1, 10**6),
        "forbidden": st.lists(st.sampled_from("abc"), max_size=3),
        "queues": st.dictionaries(
            st.sampled_from("xy"),
            st.fixed_dictionaries({"cores": st.integers(1, 99), "price": st.floats(0, 9)}),
            max_size=2,
        ),
    },
)


@given(limits, limits)
def test_nothing_is_ever_held_beyond_the_centre(asked, theirs):
    """Whatever both state, the outcome is within the centre's limits, and within the user's."""
    held = bound(merged(default_section(), asked), theirs)
    for key in ("max-jobs", "max-pending", "max-cores", "budget"):
        for stated in (asked.get(key), theirs.get(key)):
            assert stated is None or held[key] <= stated
    assert set(held["forbidden"]) == {*asked.get("forbidden", ()), *theirs.get("forbidden", ())}
    for name, fields in held["queues"].items():
        if name in theirs.get("queues", {}):
            assert fields["cores"] <= theirs["queues"][name]["cores"]
            assert fields["price"] == theirs["queues"][name]["price"]
