"""Cache keys: the env counts wherever something is cached."""

from __future__ import annotations

import pytest
from prefect import task
from prefect.cache_policies import DEFAULT, INPUTS, NO_CACHE, TASK_SOURCE, CachePolicy

from prefect_hpcburst.caching import policy_in_env

POLICIES = [INPUTS, TASK_SOURCE, INPUTS + TASK_SOURCE, DEFAULT]


def fit(x):
    return x


def key(policy, inputs):
    return policy.compute_key(None, inputs, {})


@pytest.mark.parametrize("policy", [INPUTS, INPUTS - "y"], ids=["inputs", "fewer inputs"])
def test_another_env_is_another_key(policy):
    """The same inputs in another env have another key; in the same env the same."""
    a_task = task(fit, cache_policy=policy)
    keys = [
        key(policy_in_env(a_task, lambda env=env: env), {"x": x})
        for env, x in [("a", 1), ("a", 1), ("b", 1), ("a", 2)]
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_key_function_of_the_users_counts_with_the_env():
    """A user's own cache key is kept, within the env."""
    policy = CachePolicy.from_cache_key_fn(lambda _context, inputs: f"x={inputs['x']}")
    a_task = task(fit, cache_policy=policy)
    assert key(policy_in_env(a_task, lambda: "a"), {"x": 1}) != key(
        policy_in_env(a_task, lambda: "b"), {"x": 1}
    )


@pytest.mark.parametrize("policy", POLICIES, ids=range(len(POLICIES)))
def test_without_an_env_the_policy_is_as_written(policy):
    """A task in the driver's own Python keeps its policy."""
    a_task = task(fit, cache_policy=policy)
    assert policy_in_env(a_task, lambda: "") is a_task.cache_policy


def test_what_caches_nothing_asks_for_no_env():
    """A task that caches nothing is not held up by finding the key of its env."""
    a_task = task(fit, cache_policy=NO_CACHE)
    policy = policy_in_env(a_task, lambda: pytest.fail("the env was asked for"))
    assert policy == NO_CACHE


def test_storage_and_lock_of_a_policy_are_kept(tmp_path):
    """`configure(key_storage=...)` of a policy holds with the env in it."""
    policy = INPUTS.configure(key_storage=tmp_path)
    assert policy_in_env(task(fit, cache_policy=policy), lambda: "a").key_storage == tmp_path
