"""The preview: the notebook run and drawn as a page, while the pilots still leave.

From the page alone a person can decide; nobody needs a job for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private
from hpcburst.errors import RunError, SiteError
from hpcburst_recipes.checkpoints.answering import Checkpoint
from hpcburst_recipes.checkpoints.notebook import DECIDE, NOTEBOOK, tags_of
from hpcburst_recipes.jupyter.kernels import Home, node_folder, write_kernelspec

PREVIEW = "preview.html"

CELL_TIMEOUT_S = 300
"""Seconds a cell may take: a preview that takes longer is no preview."""

NEEDED = ("nbclient", "nbconvert", "nbformat", "ipykernel")


def can_render() -> bool:
    """Whether this Python has what runs and draws notebooks."""
    from importlib.util import find_spec

    return all(find_spec(name) for name in NEEDED)


def render_preview(checkpoint: Checkpoint, home: Home) -> Path:
    """Run the notebook, its panel aside, in a kernel of its env; keep the outputs and the page.

    Raises:
        SiteError: Jupyter's packages are missing here.
        RunError: A cell failed; the page shows where, and is there.
    """
    if not can_render():
        raise SiteError(
            "A preview was to be drawn",
            f"one of these is missing: {', '.join(NEEDED)}",
            "pip install 'hpcburst[jupyter]'",
        )
    import nbformat

    folder = Path(checkpoint.folder)
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    failure = _run(notebook, folder, home)
    write_private(folder / NOTEBOOK, nbformat.writes(notebook).encode())
    write_private(folder / PREVIEW, page_of(notebook, without=(DECIDE,)).encode())
    if failure is not None:
        raise RunError("The preview was drawn", f"a cell failed: {failure}") from failure
    return folder / PREVIEW


def page_of(notebook: Any, *, without: Iterable[str] = ()) -> str:
    """A notebook as one HTML page that fetches nothing; cells with these tags are left out."""
    import nbformat
    from nbconvert import HTMLExporter

    left_out = set(without)
    kept = [cell for cell in notebook.cells if not left_out & set(tags_of(cell))]
    shown = nbformat.from_dict({**notebook, "cells": kept})
    exporter = HTMLExporter(
        embed_images=True, mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url=""
    )
    return str(exporter.from_notebook_node(shown)[0])


def _run(notebook: Any, folder: Path, home: Home) -> BaseException | None:
    """Run the cells in a fresh kernel; returns what stopped them."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    skipped = [cell for cell in notebook.cells if DECIDE in tags_of(cell)]
    for cell in skipped:
        cell.cell_type = "raw"  # the panel is for who can press its buttons
    place = node_folder()
    try:
        specs = KernelSpecManager(kernel_dirs=[str(write_kernelspec(place, home))])
        manager = AsyncKernelManager(
            kernel_spec_manager=specs,
            kernel_name=notebook.metadata.kernelspec.name,
            connection_file=str(place / "kernel.json"),
            transport="ipc",  # over TCP every user of this machine could read the outputs
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_TIMEOUT_S,
            resources={"metadata": {"path": str(folder)}},
            store_widget_state=False,
        )
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        stopped: BaseException = error
        return stopped
    finally:
        shutil.rmtree(place, ignore_errors=True)
        for cell in skipped:
            cell.cell_type = "code"
    return None
