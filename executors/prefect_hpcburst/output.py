"""Where a body's lines go: to the log of the task run whose engine waits for it."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpcburst.results import Line

_STREAMS = ("stdout", "stderr")


def log_for_run(*, prints: bool) -> Callable[[Line], None]:
    """What takes the lines of a body, in the thread of its engine.

    Args:
        prints: Whether what the body prints is logged as well; if not, it goes to our own output.
    """
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        logger = get_run_logger()
    except MissingContextError:
        return _print

    def log(line: Line) -> None:
        if line.level in _STREAMS and not prints:
            _print(line)
        else:
            logger.log(_level(line), "%s", line.text)

    return log


def log_warning(text: str) -> None:
    """Put a line of our own into the log of the task run whose engine calls us."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    with suppress(MissingContextError):
        get_run_logger().warning("%s", text)


def _level(line: Line) -> int:
    level = logging.getLevelName(line.level)  # a number, unless it is a stream's or the user's own
    return level if isinstance(level, int) else logging.INFO


def _print(line: Line) -> None:
    stream = sys.stderr if line.level == "stderr" else sys.stdout
    stream.write(line.text + "\n")
