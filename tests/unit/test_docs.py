"""The pages keep their word: links lead somewhere, examples are Python, settings are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hpcburst.tasks import Needs, read_needs

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests" / "README.md"])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    """A reader who follows a link finds a page."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_example_compiles(page: Path) -> None:
    """An example that is copied is at least Python."""
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_the_settings_page_shows_the_settings_there_are() -> None:
    """Every key and default on the page is the one in the package."""
    page = ROOT / "docs" / "reference" / "settings.md"
    shown = yaml.safe_load(blocks(page, "yaml")[0])
    stated = yaml.safe_load((ROOT / "executors/hpcburst/policy/hpcburst.yaml").read_text())

    assert shown == stated


def test_the_settings_page_names_every_field_of_needs() -> None:
    """What `@needs` takes is what the page lists."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    fields = {
        "env": "e",
        "modules": [],
        "cores": 1,
        "memory": 1,
        "gpus": 0,
        "walltime": 1,
        "queue": "q",
        "command": "true",
        "ok": 0,
    }

    assert listed == set(fields)
    assert isinstance(read_needs(fields), Needs)
