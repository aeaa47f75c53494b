"""A pilot inside an env of the user's: a Dask worker for Dask's own tasks.

    python plain_pilot.py -m pilot tls://... --name pilot-1 --nthreads 1 ...

A copy of this file runs in that env's Python, which has distributed and knows no hpcburst: nothing
else is imported here. Like `workers.pilot` it has no nanny and no dashboard, a private folder on
the node's own disk, TLS and one named address, and leaves when the driver is gone or the job is
told to end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

logger = logging.getLogger("hpcburst.pilot")

ACTIVATION = "activation.json"
"""Beside this file: what activating the env changes; a value that ends with its own `${NAME}` goes
before what is there, None unsets."""

CLOSE_S = 3.0
"""Seconds the worker may take to close; then the process ends without it."""

ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGXCPU)
"""Signals by which batch systems end a job."""

WARNINGS = (signal.SIGUSR1,)
"""Signals by which they announce it; the driver knows the walltime and has begun to drain."""


def main() -> None:
    """Be a pilot until the driver hangs up or the job is told to end."""
    args = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    _activate(json.loads(Path(__file__).with_name(ACTIVATION).read_text()))
    folder = _private_folder(Path(args.local_directory))
    os.environ["TMPDIR"] = str(folder)  # tasks' temporary files go when the pilot goes
    try:
        asyncio.run(_serve(args, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.flush()
    os._exit(0)  # threads of tasks must not hold the job


async def _serve(args: argparse.Namespace, folder: Path) -> None:
    told = asyncio.Event()
    for signum in ORDERS:
        asyncio.get_running_loop().add_signal_handler(signum, told.set)
    for signum in WARNINGS:
        asyncio.get_running_loop().add_signal_handler(signum, logger.info, "the end is near")
    try:
        worker = await asyncio.wait_for(_worker(args, folder), args.death_timeout)
        logger.info("pilot %s is up on %s", args.name, worker.address)
        ends = [asyncio.create_task(end) for end in (worker.finished(), told.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        why = "told to" if told.is_set() else "no driver"
        logger.info("pilot %s leaves: %s", args.name, why)
        await asyncio.wait_for(worker.close(timeout=CLOSE_S, nanny=False), CLOSE_S)
    except TimeoutError:
        logger.warning("pilot %s leaves: no answer in time", args.name)


async def _worker(args: argparse.Namespace, folder: Path) -> Any:
    from distributed import Worker
    from distributed.security import Security

    class PortlessWorker(Worker):  # type: ignore[misc]  # distributed is untyped
        """Dask's worker with its one TLS port."""

        def start_http_server(self, *_: object, **__: object) -> None:
            """Open nothing: that port answers anybody."""

    security = Security(
        tls_ca_file=args.tls_ca_file,
        tls_worker_cert=args.tls_cert,
        tls_worker_key=args.tls_key,
        require_encryption=True,
    )
    return await PortlessWorker(
        args.scheduler,
        name=args.name,
        nthreads=args.nthreads,
        memory_limit=args.memory_limit,
        local_directory=str(folder),
        security=security,
        protocol="tls",
        host=args.host,
        dashboard=False,
        death_timeout=args.death_timeout,
    )


def _activate(activation: dict[str, str | None]) -> None:
    for name, value in activation.items():
        mark = f"${{{name}}}"
        if value is None:
            os.environ.pop(name, None)
        elif value.endswith(mark):
            parts = (value[: -len(mark)].rstrip(os.pathsep), os.environ.get(name, ""))
            os.environ[name] = os.pathsep.join(filter(None, parts))
        else:
            os.environ[name] = value


def _private_folder(node_root: Path) -> Path:
    """A fresh folder of this process, which other pilots of ours sweep when it was killed."""
    node_root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="hpcburst-", dir=node_root))
    started = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    (folder / "owner.json").write_text(json.dumps(owner))
    return folder


def _parser() -> argparse.ArgumentParser:
    """The arguments dask-jobqueue writes for a worker, and our own."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("scheduler")
    parser.add_argument("-m", dest="module", help="dask-jobqueue names one; this file is what runs")
    parser.add_argument("--name", required=True)
    parser.add_argument("--nthreads", type=int, required=True)
    parser.add_argument("--memory-limit", required=True)
    parser.add_argument("--death-timeout", type=float, required=True, help="seconds")
    parser.add_argument("--local-directory", required=True, help="parent of the private folder")
    parser.add_argument("--host", default=None, help="address to listen on")
    parser.add_argument("--batch-system", default="", help="not asked from here")
    parser.add_argument("--tls-ca-file", required=True)
    parser.add_argument("--tls-cert", required=True)
    parser.add_argument("--tls-key", required=True)
    return parser


if __name__ == "__main__":
    main()
