"""A warm notebook: its cells have run in the very kernel that the page will talk to.

Who opens it finds the results on the screen, the variables alive and the panel's buttons working.
"""

from __future__ import annotations

import asyncio
import http
import time
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private
from hpcburst.errors import RunError
from hpcburst_recipes.checkpoints.notebook import NOTEBOOK
from hpcburst_recipes.jupyter.kernels import KERNEL
from hpcburst_recipes.jupyter.server import Server

CELL_TIMEOUT_S = 600
READY_S = 120.0


def warm_up(server: Server, root: Path) -> str:
    """Start the notebook's session, run its cells there, keep the outputs, and trust them.

    Returns:
        What stopped the cells, in words; "" when all of them ran. The page shows it too.

    Raises:
        RunError: The kernel does not start.
    """
    import nbformat

    kernel_id = _session(server)
    notebook = nbformat.read(root / NOTEBOOK, as_version=4)
    connection = server.folder / "runtime" / f"kernel-{kernel_id}.json"
    stopped = asyncio.run(_run_cells(server, connection, notebook))
    write_private(root / NOTEBOOK, nbformat.writes(notebook).encode())
    # Outputs that no page has seen made are not trusted: neither widgets nor HTML would show.
    status, said = server.call("POST", f"/api/contents/{NOTEBOOK}/trust")
    if status != http.HTTPStatus.CREATED:
        raise RunError("The notebook was to be trusted", f"JupyterLab answered {status}: {said}")
    return stopped


def _session(server: Server) -> str:
    """Start the session that the page will find; returns the id of its kernel."""
    asked = {"path": NOTEBOOK, "name": NOTEBOOK, "type": "notebook", "kernel": {"name": KERNEL}}
    status, said = server.call("POST", "/api/sessions", asked)
    if status != http.HTTPStatus.CREATED:
        raise RunError(
            "The notebook's kernel was to start", f"JupyterLab answered {status}: {said}"
        )
    return str(said["kernel"]["id"])


async def _run_cells(server: Server, connection: Path, notebook: Any) -> str:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    kernel = await _connected(server, connection)
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT_S, store_widget_state=False)
    client.kc = kernel
    client.reset_execution_trackers()
    try:
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and cell.source.strip():
                await client.async_execute_cell(cell, number, store_history=True)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return str(error)
    finally:
        kernel.stop_channels()
    return ""


async def _connected(server: Server, connection: Path) -> Any:
    """A client of the kernel, once it answers.

    A client without a manager takes a kernel for dead that has not bound its heartbeat yet.
    """
    from jupyter_client.asynchronous import AsyncKernelClient

    deadline = time.monotonic() + READY_S
    while True:
        try:
            client = AsyncKernelClient(connection_file=str(connection))
            client.load_connection_file()
            client.start_channels()
            await client.wait_for_ready(timeout=READY_S)
            return client
        except (RuntimeError, OSError, ValueError) as error:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise RunError("The notebook's kernel was started", str(error)) from error
            await asyncio.sleep(0.2)
