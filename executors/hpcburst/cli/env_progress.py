"""Progress of builds on stderr: a bar for each on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_words import part_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hpcburst.envs.child.process import Progress

SHOW_AFTER_S = 1.0
"""A step that ends sooner needs no words."""

SAY_EVERY_S = 5.0
"""Without a terminal, one line of progress in so many seconds: it ends up in a log."""

SAY_AGAIN_S = 30.0
"""When nothing moves, a line says so this often."""

BYTES = ("downloading",)
"""The steps whose numbers are bytes; those of the others count things."""

DONE = "done"
"""Told as the last step of a build: it is not shown any more."""


@contextmanager
def shown_progress() -> Iterator[Callable[[str], Progress]]:
    """Progress on stderr while things are built.

    Yields:
        What gives each named build a progress function of its own; the name may be "".
    """
    with _bars() if sys.stderr.isatty() else _lines() as board:
        yield board


@contextmanager
def _lines() -> Iterator[Callable[[str], Progress]]:
    """Say now and then what is being done, also while a step itself reports nothing."""
    latest: dict[str, str] = {}
    ended = threading.Event()

    def of(name: str) -> Progress:
        latest[name] = _named(name, "looking")

        def tell(what: str, done: int, total: int | None) -> None:
            amount = _amount(what, done, total)
            latest[name] = _named(name, f"{what} {amount}".rstrip())
            if what == DONE:
                del latest[name]

        return tell

    def say() -> None:
        said: dict[str, tuple[str, float]] = {}
        pause = SHOW_AFTER_S
        while not ended.wait(pause):
            pause = SAY_EVERY_S
            for name, text in list(latest.items()):
                _say_news(said, name, text)

    speaker = threading.Thread(target=say, name="env-progress", daemon=True)
    speaker.start()
    try:
        yield of
    finally:
        ended.set()
        speaker.join()


def _say_news(said: dict[str, tuple[str, float]], name: str, text: str) -> None:
    before, at = said.get(name, ("", 0.0))
    now = time.monotonic()
    if text != before or now - at >= SAY_AGAIN_S:
        said[name] = (text, now)
        print(text, file=sys.stderr, flush=True)


@contextmanager
def _bars() -> Iterator[Callable[[str], Progress]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[amount]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield lambda name: _bar(bars, name)


def _bar(bars: Any, name: str) -> Progress:
    line = bars.add_task(_named(name, "looking"), total=None, amount="")
    step = [""]

    def tell(what: str, done: int, total: int | None) -> None:
        if what == DONE:
            bars.update(line, visible=False)
        if what != step[0]:
            step[0] = what
            bars.reset(line, total=total, description=_named(name, what))
        speed = next(task.speed for task in bars.tasks if task.id == line)
        amount = _amount(what, done, total)
        if what in BYTES and speed and amount:
            amount += f", {size_text(speed)}/s"
        bars.update(line, completed=done, total=total, amount=amount)

    return tell


def _named(name: str, what: str) -> str:
    return f"{name}: {what}" if name else what


def _amount(what: str, done: int, total: int | None) -> str:
    if not total:
        return ""
    return part_text(done, total) if what in BYTES else f"{done}/{total}"
