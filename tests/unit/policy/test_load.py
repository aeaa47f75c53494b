"""The site is read from Dask's config; what cannot be meant is an answer, not a surprise."""

from __future__ import annotations

from pathlib import Path

import dask.config
import pytest

from hpcburst.errors import SiteError
from hpcburst.policy.decide import fits
from hpcburst.policy.discover import this_machine
from hpcburst.policy.load import load_site

CENTRE = {
    "queues": {
        "short": {"cores": 16, "memory": "64GB", "walltime": "1h", "total-cores": 64},
        "gpu": {"cores": 32, "memory": "128GB", "gpus": 4, "walltime": "12h"},
    }
}


def test_a_machine_without_config_is_a_site():
    """With no config at all, the site is this machine, and never more than it has."""
    site = load_site()
    machine = this_machine()
    (queue,) = site.queues
    assert site.scheduler == "local"
    assert (queue.total_cores, queue.total_memory_mb) == (machine.cores, machine.memory_mb)
    assert fits(site.default_shape, queue)
    assert site.host == "127.0.0.1"


def test_all_default_pilots_fit_into_the_machines_memory():
    """As many default pilots as there are cores do not ask for more memory than there is."""
    site = load_site()
    cores = this_machine().cores
    assert site.default_shape.memory_mb * cores <= this_machine().memory_mb


def test_the_config_of_dask_is_the_config():
    """What stands under `hpcburst` in Dask's config wins over the defaults, the call over both."""
    with dask.config.set({"hpcburst.max-jobs": 7, "hpcburst.idle-timeout": "3s"}):
        assert load_site().limits.max_jobs == 7
        assert load_site({"max-jobs": 3}).limits.max_jobs == 3
        assert load_site({"max-jobs": 3}).limits.idle_s == 3.0


def test_keys_may_be_written_with_underscores():
    """As everywhere in Dask, `max_jobs` is `max-jobs`: so DASK_HPCBURST__MAX_JOBS works."""
    stated = dask.config.collect_env({"DASK_HPCBURST__MAX_JOBS": "4"})
    with dask.config.set(stated):
        assert load_site().limits.max_jobs == 4
    assert load_site({"pilot": {"cores": 1}, "idle_timeout": 5}).limits.idle_s == 5.0


def test_part_of_a_section_keeps_the_rest_of_it():
    """Stating one field of a pilot leaves its others as they were."""
    usual = load_site().default_shape
    assert load_site({"pilot": {"walltime": "5m"}}).default_shape.cores == usual.cores
    assert load_site({"pilot": {"walltime": "5m"}}).default_shape.walltime_s == 300


def test_queues_are_what_the_site_states():
    """Queues come with their limits, in their order; the first is the default."""
    short, gpu = load_site(CENTRE).queues
    assert (short.name, short.max_cores, short.total_cores) == ("short", 16, 64)
    assert (gpu.max_gpus, gpu.max_memory_mb, gpu.max_walltime_s) == (4, 128_000, 43_200)
    assert load_site(CENTRE).queue(None) == short
    assert load_site(CENTRE).queue("nowhere") is None


def test_a_default_pilot_gets_its_share_of_a_nodes_memory():
    """A pilot of one core does not hold memory that the node's other cores need."""
    crowded = {"queues": {"q": {"cores": 64, "memory": "64GB", "walltime": "1h"}}}
    assert load_site(crowded).default_shape.memory_mb == 1000
    assert load_site({"pilot": {"memory": "2GB"}}).default_shape.memory_mb == 2000


def test_paths_may_hold_variables(monkeypatch):
    """`$SCRATCH/hpcburst` and `~/hpcburst` mean what they mean in a shell."""
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    site = load_site({"shared-root": "$SCRATCH/hpcburst", "node-root": "~/node"})
    assert site.paths.shared_root == Path("/scratch/me/hpcburst")
    assert site.paths.node_root == Path.home() / "node"


@pytest.mark.parametrize(
    ("stated", "key"),
    [
        ({"max-job": 3}, "hpcburst.max-job"),
        ({"pilot": {"core": 3}}, "hpcburst.pilot.core"),
        ({"envs": {"channel": []}}, "hpcburst.envs.channel"),
        (
            {"queues": {"q": {"cores": 1, "memory": 1, "walltime": 1, "ram": 1}}},
            "hpcburst.queues.q.ram",
        ),
    ],
)
def test_a_misspelt_key_is_named(stated, key):
    """A misspelt key is refused by its full name, beside the keys there are."""
    with pytest.raises(SiteError, match=key) as caught:
        load_site(stated)
    assert "the keys of" in str(caught.value).lower()


@pytest.mark.parametrize(
    "stated",
    [
        {"scheduler": "cron"},
        {"scheduler": None},
        {"max-jobs": "many"},
        {"max-jobs": None},
        {"max-jobs": 0},
        {"max-pending": 0},
        {"max-pending": -1},
        {"idle-timeout": "soon"},
        {"idle-timeout": 0},
        {"keep-runs": "for ever"},
        {"pilot": None},
        {"pilot": "small"},
        {"pilot": {"cores": 0}},
        {"pilot": {"cores": "two"}},
        {"pilot": {"memory": "lots"}},
        {"pilot": {"gpus": -1}},
        {"envs": {"channels": None}},
        {"envs": {"channels": "conda-forge"}},
        {"envs": {"mirror": ["here"]}},
        {"queues": ["short"]},
        {"queues": {"q": None}},
        {"queues": {"q": {"cores": 4}}},
        {"queues": {"q": {"cores": "all", "memory": "1GB", "walltime": "1h"}}},
        {"queues": {"q": {"cores": 0, "memory": "1GB", "walltime": "1h"}}},
        {"queues": {"q": {"cores": 1, "memory": "1GB", "walltime": "1h", "total-cores": "few"}}},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_meant_is_an_answer(stated):
    """A value that cannot be read is told with where to correct it, never as a traceback."""
    with pytest.raises(SiteError, match="Correct the hpcburst section"):
        load_site(stated)


@pytest.mark.parametrize("pilot", [{"memory": "999TB"}, {"gpus": 9}, {"queue": "nowhere"}], ids=str)
def test_a_default_pilot_that_no_queue_takes_is_refused(pilot):
    """A default pilot that could never start is refused now, not waited for for ever."""
    with pytest.raises(SiteError, match=r"(?i)queue"):
        load_site({"pilot": pilot})


def test_a_section_that_is_no_section_is_refused():
    """`hpcburst: 3` in the config is told as what it is."""
    with dask.config.set({"hpcburst": 3}), pytest.raises(SiteError):
        load_site()
