"""What the README and the page of commands name is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli.commands import application
from config.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/commands.md")


def _commands() -> set[str]:
    """`up`, `keys`, `keys create` …"""

    def names(command: Any, before: str) -> set[str]:
        inner = getattr(command, "commands", {})
        found = {f"{before}{name}" for name in inner}
        return found.union(*(names(each, f"{before}{name} ") for name, each in inner.items()))

    return names(typer.main.get_command(application), "")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_shown_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    known = _commands()
    shown = re.findall(r"(?:^\$? ?|`)converge ([a-z]+)(?: ([a-z]+))?", text, re.MULTILINE)
    assert len(shown) > 10
    for first, second in shown:
        assert first in known, first
        if any(name.startswith(f"{first} ") for name in known) and second:
            assert f"{first} {second}" in known, f"{first} {second}"


@pytest.mark.parametrize("page", [*PAGES, "docs/architecture.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    file = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)\)", file.read_text())
    assert targets
    for target in targets:
        assert (file.parent / target).exists(), target


def test_every_setting_is_one() -> None:
    text = (ROOT / "README.md").read_text()
    cells = re.findall(r"^\| (`CONVERGE_[^|]+)\|", text, re.MULTILINE)
    assert len(cells) > 5
    for cell in cells:
        first, *others = re.findall(r"`(\w+)`", cell)
        stem = first.rpartition("_")[0]
        for name in [first, *(stem + other for other in others)]:
            assert name.removeprefix("CONVERGE_").lower() in Settings.model_fields, name


def test_the_map_of_the_house_is_whole() -> None:
    """Every place that it names is there, and every package of the house is named."""
    text = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:app|tests|producer|config|tasks|workers|benchmarks)/[\w/.]*)`", text)
    assert all((ROOT / place).exists() for place in named), named
    packages = [*ROOT.glob("app/*/__init__.py"), *ROOT.glob("app/usecases/*/__init__.py")]
    assert packages
    for package in packages:
        assert f"{package.parent.relative_to(ROOT)}/" in named
