"""What a cached result depends on beside its inputs: the body as it travels, and the env it ran in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import CachePolicy
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
