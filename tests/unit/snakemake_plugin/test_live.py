"""The live line is true, stays out of files, and gives way to the log."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass

import pytest

from snakemake_executor_plugin_hpcburst import live
from snakemake_executor_plugin_hpcburst.live import CLEAR, LiveLine, describe
from support.processes import wait_until


@dataclass
class Life:
    """A pilot's."""

    asked_at: float
    up_at: float = 0.0
    gone_at: float = 0.0


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("jobs", "lives", "line"),
    [
        (1, [], "hpcburst: 1 job under way, 0 pilots up"),
        (7, [Life(10)], "hpcburst: 7 jobs under way, 0 pilots up, 1 queued for 90 s"),
        (
            7,
            [Life(1, 61), Life(1, 41, 70), Life(80), Life(90), Life(1, gone_at=5)],
            "hpcburst: 7 jobs under way, 1 pilot up, 2 queued (next in about 30 s)",
        ),
        (2, [Life(1, 2), Life(40)], "hpcburst: 2 jobs under way, 1 pilot up, 1 queued for 60 s"),
    ],
)
def test_the_line_says_what_is_there_and_when_more_comes(jobs, lives, line):
    """Pilots up and queued; when the next one starts is told once the queue's pace is known."""
    assert describe(jobs, lives, now=100.0) == line


def test_the_line_is_drawn_in_place_and_taken_away(monkeypatch):
    """It is rewritten on its own line, and nothing of it is left at the end."""
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    terminal, logger = Terminal(), logging.getLogger("hpcburst-test-live")
    line = LiveLine(lambda: "hello", logger, terminal)
    line.start()
    wait_until(lambda: terminal.getvalue().count("hello") > 1, "the line")
    line.close()
    line.close()
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith(CLEAR)
    assert not logger.handlers


def test_the_log_comes_first(monkeypatch):
    """Before a record is printed the line is gone, and it does not come back at once."""
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    terminal, logger = Terminal(), logging.getLogger("hpcburst-test-live")
    printing = logging.StreamHandler(terminal)
    logger.addHandler(printing)
    line = LiveLine(lambda: "hello", logger, terminal)
    line.start()
    wait_until(lambda: "hello" in terminal.getvalue(), "the line")
    logger.warning("a record")
    line.close()
    logger.removeHandler(printing)
    before, after = terminal.getvalue().split("a record\n")
    assert before.endswith(CLEAR)
    assert after in ("", CLEAR)


def test_nothing_is_drawn_into_a_file():
    """Without a terminal there is no line and no thread."""
    stream = io.StringIO()
    line = LiveLine(lambda: "hello", logging.getLogger("hpcburst-test-live"), stream)
    line.start()
    line.close()
    assert not stream.getvalue()
