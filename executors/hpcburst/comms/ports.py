"""Ports: the ones we need, and none else."""

from __future__ import annotations


class NoHttpServer:
    """Mixed into a Dask scheduler or worker, keeps it from opening its HTTP port.

    Dask opens it also with `dashboard=False`, and what it serves there (metrics, task names, health)
    it serves to anybody who reaches the port: TLS does not cover it. Our reports say the same.
    """

    def start_http_server(self, *_: object, **__: object) -> None:
        """Open nothing."""
