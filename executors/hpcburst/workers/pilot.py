"""The pilot: what a batch job of ours runs.

    python -m hpcburst.workers.pilot tls://... --name pilot-1 --nthreads 1 ...

A Dask worker with nothing it does not need: no nanny (it doubles the start-up), no dashboard (it
answers anybody), a private 0700 folder on the node's own disk, TLS, one named address. Beside
Dask's tasks it runs ours, over a line of its own (`session`). It leaves when the driver is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.comms.staging import scratch_folder

if TYPE_CHECKING:
    from hpcburst.workers.ending import Ending

logger = logging.getLogger("hpcburst.pilot")

OPERATION = "hpcburst_session"
"""Name of the handler through which the driver opens its line."""

CLOSE_S = 3.0
"""Seconds the Dask worker may take to close; then the process ends without it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Be a pilot until the driver hangs up or the job is told to end."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    folder = scratch_folder(Path(args.local_directory))
    try:
        asyncio.run(_serve(args, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.flush()
    os._exit(0)  # threads that wait for a stubborn child must not hold the job


async def _serve(args: argparse.Namespace, folder: Path) -> None:
    from hpcburst.workers.ending import Ending
    from hpcburst.workers.work import Workplace

    os.environ["TMPDIR"] = str(folder)  # bodies' temporary files go when the pilot goes
    workplace = Workplace(folder, node_root=Path(args.local_directory))
    ending = Ending()
    ending.obey_signals()
    try:
        worker = await asyncio.wait_for(
            _worker(args, folder, workplace, ending), args.death_timeout
        )
        logger.info("pilot %s is up on %s", args.name, worker.address)
        gone = asyncio.create_task(worker.finished())
        told = asyncio.create_task(ending.told.wait())
        limit = asyncio.create_task(ending.ask(args.batch_system)) if args.batch_system else None
        await asyncio.wait([gone, told], return_when=asyncio.FIRST_COMPLETED)
        why = "told to" if ending.told.is_set() else "no driver"
        logger.info("pilot %s leaves: %s", args.name, why)
        if limit is not None:
            limit.cancel()
        workplace.close()
        await asyncio.wait_for(worker.close(timeout=CLOSE_S, nanny=False), CLOSE_S)
    except TimeoutError:
        logger.warning("pilot %s leaves: no answer in time", args.name)
    finally:
        workplace.close()


async def _worker(args: argparse.Namespace, folder: Path, workplace: Any, ending: Ending) -> Any:
    from distributed import Worker
    from distributed.security import Security

    from hpcburst.comms.ports import NoHttpServer
    from hpcburst.workers.session import Session

    class PortlessWorker(NoHttpServer, Worker):  # type: ignore[misc]
        """Dask's worker with its one TLS port."""

    async def open_session(comm: Any) -> str:
        await Session(comm, workplace, ending).serve()
        return "dont-reply"

    security = Security(
        tls_ca_file=args.tls_ca_file,
        tls_worker_cert=args.tls_cert,
        tls_worker_key=args.tls_key,
        require_encryption=True,
    )
    worker = PortlessWorker(
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
    worker.handlers[OPERATION] = open_session
    return await worker


def _parser() -> argparse.ArgumentParser:
    """The arguments dask-jobqueue writes for a worker, and our own."""
    parser = argparse.ArgumentParser(prog="hpcburst.workers.pilot", allow_abbrev=False)
    parser.add_argument("scheduler")
    parser.add_argument("--name", required=True)
    parser.add_argument("--nthreads", type=int, required=True)
    parser.add_argument("--memory-limit", required=True)
    parser.add_argument("--death-timeout", type=float, required=True, help="seconds")
    parser.add_argument("--local-directory", required=True, help="parent of the private folder")
    parser.add_argument("--host", default=None, help="address to listen on")
    parser.add_argument("--batch-system", default="", help="which one to ask when this job ends")
    parser.add_argument("--tls-ca-file", required=True)
    parser.add_argument("--tls-cert", required=True)
    parser.add_argument("--tls-key", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
