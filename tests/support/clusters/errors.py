"""What can go wrong with a private cluster, said so that the reader knows what to do."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The private cluster did not do as asked."""


class CannotHave(ClusterError):
    """A private cluster of this kind cannot be had on this machine as it is."""
