"""What attacks share: a stranger, a place where only our own modes protect, and a tally."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.stranger import Stranger


@dataclass(slots=True)
class Tally:
    """What was tried and what came of it.

    Attributes:
        tried: Attacks, by kind.
        stopped: Those of them that brought nothing.
        leaks: What came through, in words.
    """

    tried: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)

    def note(self, kind: str, what: str, brought: object) -> None:
        """Count an attack; it fails the test if it brought anything.

        Args:
            kind: What it belongs to in the table.
            what: The attack in words.
            brought: What it brought; falsy is nothing.
        """
        self.tried[kind] += 1
        if brought:
            self.leaks.append(f"{kind}: {what}: {str(brought)[:200]}")
            raise AssertionError(f"{what}: {brought}")
        self.stopped[kind] += 1


TALLY = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    """The suite's count of attacks."""
    return TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if not TALLY.tried:
        return
    write = terminalreporter.write_line
    terminalreporter.section("attacks")
    write(f"{'on':<34}{'tried':>8}{'stopped':>9}")
    for kind in TALLY.tried:
        write(f"{kind:<34}{TALLY.tried[kind]:>8}{TALLY.stopped[kind]:>9}")
    write(f"{'all':<34}{TALLY.tried.total():>8}{TALLY.stopped.total():>9}")
    write(f"leaks: {len(TALLY.leaks)}")
    for leak in TALLY.leaks:
        write(f"  {leak}")


@pytest.fixture(scope="session")
def stranger() -> Stranger:
    """Another user of this machine."""
    found = Stranger.here()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="module")
def careless() -> Iterator[None]:
    """A user whose umask closes nothing: what is private is so by our own doing."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def street() -> Iterator[Path]:
    """A folder that everybody may enter, on the way to no private one; `home` in it is ours."""
    folder = Path(tempfile.mkdtemp(prefix="street-"))
    folder.chmod(0o1777)
    (folder / "home").mkdir()
    (folder / "home").chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
