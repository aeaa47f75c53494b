"""Snakemake makes the conda envs of a workflow one after the other; here, some at a time.

The graph of jobs is what knows all envs, and no plug-in is told of it before they are made. So its
one method that makes them is wrapped: envs that are missing are first made by Snakemake's own code,
in threads; then the method itself runs, and finds them. Pins, archives, post-deploy scripts and
errors stay Snakemake's. In a release whose code we do not know, all stays as it is.
"""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

AT_ONCE = max(2, min(4, os.cpu_count() or 2))
"""Envs made at a time: while one solves, others wait for their channels. Each takes a core and up
to 1 GB for a while, and a login node is everybody's."""

GRACE_S = 3.0
"""Seconds that programs have to end after Ctrl-C before they are told again, and more sternly."""

TELL_EVERY_S = 10.0
"""Seconds between two words about envs that take longer."""

_KNOWN = {
    ("snakemake.dag", "DAG", "create_conda_envs"): ["self", "dryrun", "quiet"],
    ("snakemake.deployment.conda", "Env", "create"): ["self", "dryrun"],
}


def make_envs_side_by_side(notice: str = "") -> bool:
    """From now on, this process's Snakemake makes envs side by side, with the stand-in.

    Args:
        notice: What to tell the user first, once.

    Returns:
        False if Snakemake has not been imported, or is one whose code we do not know.
    """
    if not all(_is_known(place, names) for place, names in _KNOWN.items()):
        return False
    kind = sys.modules["snakemake.dag"].DAG
    original = getattr(kind.create_conda_envs, "__wrapped__", kind.create_conda_envs)
    kind.create_conda_envs = _wrapped(original, [notice] if notice else [])
    return True


def _is_known(place: tuple[str, str, str], names: list[str]) -> bool:
    module, kind, method = place
    found = getattr(getattr(sys.modules.get(module), kind, None), method, None)
    return found is not None and list(inspect.signature(found).parameters) == names


def _wrapped(original: Callable[..., None], notices: list[str]) -> Callable[..., None]:
    @wraps(original)
    def create_conda_envs(dag: Any, dryrun: bool = False, quiet: bool = False) -> None:
        if not (dryrun or dag.workflow.dryrun or dag.workflow.touch):
            _make(dag, notices)
        original(dag, dryrun, quiet)

    return create_conda_envs


def _make(dag: Any, notices: list[str]) -> None:
    from snakemake.logging import logger

    from hpcburst.envs.conda_standin import is_standin

    program = shutil.which("conda")
    if program is None or not is_standin(Path(program)):
        return  # a real conda does not promise that two of it may write to its caches at once
    while notices:
        logger.info(notices.pop())
    missing = _missing(dag)
    if missing:
        with _notes() as notes:
            _create_all(missing, notes, logger)


def _missing(dag: Any) -> dict[str, Any]:
    """The envs to make, by their place. Asking for it reads their files: here, not in threads."""
    flag_of = sys.modules["snakemake.deployment.conda"].get_env_setup_done_flag_file
    ours = [
        env
        for env in dag.conda_envs.values()
        if not env.is_externally_managed and env.container_img_url is None
    ]
    places = {str(env.address): env for env in ours}
    return {place: env for place, env in places.items() if not flag_of(Path(place)).exists()}


def _create_all(envs: dict[str, Any], notes: Path, logger: Any) -> None:
    """Make them all; after the first error nothing new begins, and what is under way ends."""
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE, "conda-env") as pool:
        places = {pool.submit(env.create, False): place for place, env in envs.items()}
        left = set(places)
        try:
            while left:
                done, left = wait(left, TELL_EVERY_S, FIRST_COMPLETED)
                if not done:
                    _tell_going(envs, [places[future] for future in left], notes, logger)
                for future in done:
                    future.result()
                    number = f"{len(envs) - len(left)} of {len(envs)}"
                    _tell(logger, envs[places[future]], f"ready, {number}", began)
        except Exception as error:
            pool.shutdown(cancel_futures=True)
            _tell_other_errors(places, error, logger)
            raise
        except BaseException:  # Ctrl-C, which may have reached nobody but us
            pool.shutdown(wait=False, cancel_futures=True)
            _end_builders(notes, places)
            raise


def _tell_going(envs: dict[str, Any], places: list[str], notes: Path, logger: Any) -> None:
    for place in places:
        with suppress(OSError):  # it says nothing yet, or has just been made
            _tell(logger, envs[place], (notes / Path(place).name).read_text())


def _tell(logger: Any, env: Any, what: str, began: float | None = None) -> None:
    after = "" if began is None else f" ({time.monotonic() - began:.1f} s)"
    text = f"Conda environment {env.file.simplify_path()}: {what}{after}"
    logger.info(text)  # Snakemake's handlers take the text as it is


def _tell_other_errors(futures: Iterable[Future[None]], first: Exception, logger: Any) -> None:
    """The errors beside the first one, which Snakemake reports."""
    for future in futures:
        error = None if future.cancelled() else future.exception()
        if error is not None and error is not first:
            logger.error(str(error))


def _end_builders(notes: Path, futures: Iterable[Future[None]]) -> None:
    """End the programs that make envs, also those that lost their parent; asked kindly first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        _signal_builders(number, str(notes))
        if not wait(futures, GRACE_S).not_done:
            return


def _signal_builders(number: int, notes: str) -> None:
    import psutil  # type: ignore[import-untyped]  # there are stubs, but who builds need not have them

    from hpcburst.envs.conda_standin import PROGRESS

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(PROGRESS) == notes and process.pid != os.getpid():
                process.send_signal(number)


@contextmanager
def _notes() -> Iterator[Path]:
    """A folder in which the stand-in says how far it is: Snakemake keeps its output to itself."""
    from hpcburst.envs.conda_standin import PROGRESS

    with tempfile.TemporaryDirectory(prefix="hpcburst-envs-") as folder:
        os.environ[PROGRESS] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[PROGRESS]
