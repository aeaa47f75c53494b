"""Ports: the ones we need, and none else."""

from __future__ import annotations


class NoHttpServer:
    """Mixed into a Dask scheduler or worker, keeps it from opening its HTTP port.

    Dask opens it also with `dashboard=False`, and what it serves there (metrics, names of tasks,
    health) it serves to anybody who reaches the port: TLS does not cover it.
    """

    def start_http_server(self, *_: object, **__: object) -> None:
        """Open nothing."""
