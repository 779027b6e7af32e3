"""Alert rules, Grafana dashboards and the metrics tables of docs/metrics.md match the code."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from seance.core.events import CLIENT_REASONS, LIMITS, LINK_REASONS, RESUMPTIONS, LinkChange
from seance.heads.refusals import ADMIN_REFUSALS, REFUSALS
from seance.metrics.agent import LINK_STATES
from seance.metrics.catalogue import AGENT, PROCESS, RELAY, Kind, Metric
from tests.docs.pages import DOCS, table
from tests.tools import ROOT, require

PAGE = DOCS / "metrics.md"
RULES = ROOT / "deploy" / "prometheus" / "seance.rules.yml"
CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
ALERT_TESTS = ROOT / "tests" / "metrics" / "alerts.yml"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))

METRICS = {metric.name: metric for metric in (*RELAY, *AGENT, *PROCESS)}

LABEL_VALUES: dict[str, set[str]] = {
    "reason": {*CLIENT_REASONS, *LINK_REASONS},
    "outcome": set(RESUMPTIONS),
    "limit": set(LIMITS),
    "state": {state.value for state in LINK_STATES},
    "change": {change.value for change in LinkChange},
    "links": {"median", "worst"},
    "code": {kind.partition(".")[0] for kind in REFUSALS.keys() - ADMIN_REFUSALS.keys()},
}
"""The values of each label."""

PROMETHEUS_METRICS = {"up"}
FUNCTIONS = {"sum", "by", "rate", "increase", "histogram_quantile", "max", "label_values", "offset", "and"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for path in DASHBOARDS for panel in json.loads(path.read_text("utf-8"))["panels"]]


def expressions() -> list[str]:
    found = [str(rule["expr"]) for rule in rules()]
    found += [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    return found


def selectors(expression: str) -> list[tuple[str, str]]:
    """Return the metrics that an expression reads, each with its braces."""
    return re.findall(r"\b(up|(?:seance|process)_\w+)(\{[^}]*\})?", expression)


def metric_of(name: str) -> Metric | None:
    """Return the metric of a series; a histogram has three series."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    histogram = METRICS.get(base)
    if histogram is not None and histogram.kind is Kind.HISTOGRAM and base != name:
        return histogram
    found = METRICS.get(name)
    return None if found is None or found.kind is Kind.HISTOGRAM else found


def test_expressions_are_found() -> None:
    assert len(expressions()) > 40
    assert all(selectors(expression) for expression in expressions())


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_uses_metrics_and_labels_that_exist(expression: str) -> None:
    for name, braces in selectors(expression):
        metric = metric_of(name)
        assert metric is not None or name in PROMETHEUS_METRICS, name
        labels = {"instance", "job", *(metric.labels if metric else ())}
        for label, operator, text in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', braces):
            assert label in labels, f"{name} has no {label}"
            if label in LABEL_VALUES:
                for word in text.split("|") if "~" in operator else [text]:
                    assert [one for one in LABEL_VALUES[label] if re.fullmatch(word, one)], (
                        f"{label} is never {word}"
                    )
    by = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(", ")}
    of_metrics = {
        label for name, _ in selectors(expression) if (one := metric_of(name)) for label in one.labels
    }
    assert by <= of_metrics | {"instance", "job", "le"}


@pytest.mark.parametrize("expression", expressions())
def test_rate_is_used_for_counters_only(expression: str) -> None:
    for name in re.findall(r"(?:rate|increase)\(([a-z_]+)", expression):
        metric = metric_of(name)
        assert metric is not None
        assert metric.kind is not Kind.GAUGE, name
    for name in re.findall(r"\b(seance_\w+_total|seance_\w+_bucket)", expression):
        assert re.search(rf"(rate|increase)\({name}\b", expression), f"{name} without rate or increase"


def test_promtool_accepts_the_rules_the_configuration_and_every_expression(tmp_path: Path) -> None:
    require("promtool")
    every = tmp_path / "every.yml"
    plain = [re.sub(r"\$__rate_interval", "5m", one).replace("$instance", ".+") for one in expressions()]
    named = [{"record": f"test:{number}", "expr": one} for number, one in enumerate(plain)]
    for number, one in enumerate(named):
        one["record"] = f"test:x{number}"
    every.write_text(json.dumps({"groups": [{"name": "every", "rules": named}]}))
    for command in (["rules", "--lint=all", RULES], ["rules", every], ["config", CONFIG]):
        checked = subprocess.run(["promtool", "check", *command], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_fire_at_their_limits_and_not_before() -> None:
    require("promtool")
    tested = subprocess.run(
        ["promtool", "test", "rules", ALERT_TESTS], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_and_explained() -> None:
    names = [rule["alert"] for rule in rules()]
    cases = yaml.safe_load(ALERT_TESTS.read_text("utf-8"))["tests"]
    fired = {one["alertname"] for case in cases for one in case["alert_rule_test"] if one.get("exp_alerts")}
    assert fired == set(names)
    assert [row[0].strip("`") for row in table(PAGE, "Alerts")] == names
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "description"} <= rule["annotations"].keys()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboard_is_complete(path: Path) -> None:
    board = json.loads(path.read_text("utf-8"))
    assert (board["uid"], board["title"]) == (path.stem, "Seance relays")
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers) > 15
    variables = {f"${one['name']}" for one in board["templating"]["list"]} | {"$__rate_interval"}
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (column, line)
            for column in range(grid["x"], grid["x"] + grid["w"])
            for line in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["description"]
            assert panel["targets"]
            used = {word for one in panel["targets"] for word in re.findall(r"\$\w+", one["expr"])}
            assert used <= variables
            assert "$instance" in used


def row_of(metric: Metric) -> list[str]:
    labels = " ".join(f"`{label}`" for label in metric.labels)
    return [f"`{metric.name}`", metric.kind.value, metric.unit, labels, metric.meaning]


@pytest.mark.parametrize(
    ("heading", "metrics"), [("Metrics of a relay", RELAY), ("Metrics of an agent", AGENT)]
)
def test_every_metric_is_listed_with_its_type_unit_and_meaning(
    heading: str, metrics: tuple[Metric, ...]
) -> None:
    listed = table(PAGE, heading)
    wanted = [row_of(metric) for metric in metrics]
    missing = "\n".join(f"| {' | '.join(row)} |" for row in wanted)
    assert listed == wanted, f"the table under {heading!r} must be:\n{missing}"


def test_every_label_has_known_values_or_is_chosen_by_the_operator() -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert labels - LABEL_VALUES.keys() == {"version", "python", "twisted", "room"}


def test_every_label_value_is_explained() -> None:
    explained = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in table(PAGE, "Labels")}
    for label, words in LABEL_VALUES.items():
        if label != "code":
            assert explained[label] == words, label
