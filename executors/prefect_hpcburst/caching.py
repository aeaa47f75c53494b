"""What a cached result depends on beside its inputs: the body as it travels, the env it ran in.

The body counts wherever a policy has `TASK_SOURCE`, by its digest, which covers the helpers it
uses. The env counts in every policy: the same code in another env is another computation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NONE, CachePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect import Task
    from prefect.context import TaskRunContext


@dataclass
class InEnv(CachePolicy):
    """A component of a cache key: the key of the env.

    Attributes:
        env_key: Digest of the env the body runs in.
    """

    env_key: str = ""

    def compute_key(
        self,
        task_ctx: TaskRunContext,  # noqa: ARG002 - the signature is Prefect's
        inputs: dict[str, Any] | None,  # noqa: ARG002
        flow_parameters: dict[str, Any] | None,  # noqa: ARG002
        **_: Any,
    ) -> str | None:
        """The key of the env; the same spec on the same platform gives the same key."""
        return self.env_key or None


def policy_in_env(task: Task[..., Any], env_key: Callable[[], str]) -> Any:
    """The task's cache policy, with its env in the key.

    Args:
        task: The task.
        env_key: Finds the key of its env, "" for the driver's own Python; not asked when the task
            caches nothing.

    Raises:
        EnvError: The env cannot be found or read.
    """
    policy = task.cache_policy
    if not isinstance(policy, CachePolicy) or policy == NONE:
        return policy
    key = env_key()
    return policy + InEnv(env_key=key) if key else policy
