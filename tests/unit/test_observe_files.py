"""The rules, the dashboard and the runbook speak of what there is."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from app.cli.commands import application
from app.observe.measures import GAUGES, MEASURES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config/observe/alerts.yml"
DASHBOARD = ROOT / "config/observe/grafana.json"
RUNBOOK = ROOT / "docs/runbook.md"
METRIC = re.compile(r"\bconverge_[a-z0-9_]+")
LABELS = {label for measure in (*GAUGES, *MEASURES) for label in measure.labels} | {"le"}


def _alerts() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in _alerts())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def _known() -> set[str]:
    names = {measure.name for measure in (*GAUGES, *MEASURES) if not measure.buckets}
    for measure in MEASURES:
        if measure.buckets:
            names |= {f"{measure.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def test_rules_and_dashboard_name_metrics_and_labels_that_there_are() -> None:
    named = {name for expression in _expressions() for name in METRIC.findall(expression)}
    assert named, "no metric at all"
    assert named - _known() == set()
    for expression in _expressions():
        grouped = re.findall(r"(?:by|on|without) \(([^)]*)\)", expression)
        matched = re.findall(r"[{,]\s*([a-z_]+)\s*(?:=~|!=|!~|=)", expression)
        used = {label.strip() for group in grouped for label in group.split(",")} | set(matched)
        assert used <= LABELS, expression


def test_names_follow_the_conventions() -> None:
    for measure in MEASURES:
        assert measure.name.endswith("_seconds" if measure.buckets else "_total")
    for gauge in GAUGES:
        assert not gauge.name.endswith("_total")
    assert all(one.told.endswith(".") for one in (*GAUGES, *MEASURES))


def test_every_alert_says_what_to_do_and_nothing_else_is_there() -> None:
    sections = re.findall(r"^### (Converge\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    alerts = _alerts()
    assert [rule["alert"] for rule in alerts] == list(dict.fromkeys(sections))
    for rule in alerts:
        assert rule["for"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_the_runbook_links_to_what_there_is() -> None:
    text = RUNBOOK.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", text):
        assert (RUNBOOK.parent / path).exists(), path


def _typed() -> list[str]:
    """Each `converge …` that the runbook has somebody type."""
    text = RUNBOOK.read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    lines = [line for line in blocks.splitlines() if line.startswith("converge ")]
    return lines + re.findall(r"`(converge [a-z][^`…]*)`", text)


@pytest.mark.parametrize("line", _typed())
def test_the_runbook_has_commands_typed_that_there_are(line: str) -> None:
    """Parsed as the program itself would, to the last option; nothing is run."""
    command: Any = get_command(application)
    words = shlex.split(line, comments=True)[1:]
    context = command.make_context("converge", words)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(
            context,
            [*context._protected_args, *context.args],
        )
        if hasattr(command, "commands") and not rest:
            return  # a group, spoken of as such
        context = command.make_context(name, rest, parent=context)


@pytest.mark.debian
def test_prometheus_takes_the_rules_and_they_ring_when_they_should() -> None:
    program = shutil.which("promtool")
    assert program, "install the Debian package prometheus"
    for what, path in (("check", RULES), ("test", Path(__file__).with_name("alerts.test.yml"))):
        done = subprocess.run(
            [program, what, "rules", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
